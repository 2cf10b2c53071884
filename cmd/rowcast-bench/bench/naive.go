package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/jackc/pgx/v5"
)

// naiveSchema is the naive design's half in the database: the same table, and a trigger that sends each row.
const naiveSchema = `
CREATE SCHEMA naive;
CREATE TABLE naive.notifications (LIKE rowcast.notifications INCLUDING ALL);
CREATE FUNCTION naive.tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_notify('naive', row_to_json(NEW)::text);
	RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT ON naive.notifications FOR EACH ROW EXECUTE FUNCTION naive.tell();`

// naive is the design that one writes in an afternoon: a connection that LISTENs, and for each stream a handler of net/http's
// with a channel. It loses what happens while a client or itself is away, and rows above 8,000 bytes cannot be inserted.
type naive struct {
	mu      sync.RWMutex
	streams map[string]map[chan []byte]struct{} // by recipient; all under ""
}

// naiveQueue is how many events a client may be owed.
const naiveQueue = 1024

func newNaive(ctx context.Context) (deeds, error) {
	n := &naive{streams: map[string]map[chan []byte]struct{}{}}
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN naive"); err != nil {
		return nil, err
	}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 2)
	go func() { failed <- n.listen(ctx, conn) }()
	go func() { failed <- http.Serve(socket, http.HandlerFunc(n.serve)) }()
	return deeds{"address": deed(func(context.Context, nothing) (string, error) {
		select {
		case err := <-failed:
			return "", err
		default:
			return socket.Addr().String(), nil
		}
	})}, nil
}

func (n *naive) listen(ctx context.Context, conn *pgx.Conn) error {
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		var row struct {
			ID        int64           `json:"id"`
			Recipient string          `json:"recipient"`
			Event     string          `json:"event"`
			Data      json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal([]byte(notification.Payload), &row); err != nil {
			return err
		}
		n.send(row.Recipient, fmt.Appendf(nil, "id: %d\nevent: %s\ndata: %s\n\n", row.ID, row.Event, row.Data))
	}
}

func (n *naive) send(recipient string, event []byte) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for queue := range n.streams[recipient] {
		select {
		case queue <- event:
		default: // too slow: it loses the event
		}
	}
}

func (n *naive) serve(w http.ResponseWriter, r *http.Request) {
	queue := make(chan []byte, naiveQueue)
	recipients := []string{"", r.URL.Query().Get("uid")}
	n.subscribe(recipients, queue)
	defer n.unsubscribe(recipients, queue)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	for event := []byte(": hello\n\n"); ; {
		if _, err := w.Write(event); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
		select {
		case event = <-queue:
		case <-r.Context().Done():
			return
		}
	}
}

func (n *naive) subscribe(recipients []string, queue chan []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, recipient := range recipients {
		if n.streams[recipient] == nil {
			n.streams[recipient] = map[chan []byte]struct{}{}
		}
		n.streams[recipient][queue] = struct{}{}
	}
}

func (n *naive) unsubscribe(recipients []string, queue chan []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, recipient := range recipients {
		delete(n.streams[recipient], queue)
		if len(n.streams[recipient]) == 0 {
			delete(n.streams, recipient)
		}
	}
}
