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
	"rowcast/listener/feed"
)

// naiveSchema is the schema of the naive design: a table like rowcast's, and a trigger that sends each row with NOTIFY.
const naiveSchema = `
CREATE SCHEMA naive;
CREATE TABLE naive.notifications (LIKE rowcast.notifications INCLUDING ALL);
CREATE FUNCTION naive.notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_notify('naive', row_to_json(NEW)::text);
	RETURN NULL;
END $$;
CREATE TRIGGER notify AFTER INSERT ON naive.notifications FOR EACH ROW EXECUTE FUNCTION naive.notify();`

// naive is a hub of the naive design. It has a connection that LISTENs, and for each stream a handler of net/http with
// a channel. A client misses the rows that are inserted while the client or the hub is disconnected. An INSERT fails if
// the JSON of the row has 8,000 bytes or more.
type naive struct {
	mu      sync.RWMutex
	streams map[string]map[chan []byte]struct{} // the key is the recipient; all streams are also under "*"
}

// naiveQueue is the maximum number of events that wait for a client.
const naiveQueue = 1024

func newNaive(ctx context.Context) (actions, error) {
	n := &naive{streams: map[string]map[chan []byte]struct{}{}}
	conn, err := open(ctx, os.Getenv("DATABASE_URL"))
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
	return actions{"address": action(func(context.Context, nothing) (string, error) {
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
		default: // the client is too slow and loses the event
		}
	}
}

func (n *naive) serve(w http.ResponseWriter, r *http.Request) {
	queue := make(chan []byte, naiveQueue)
	recipients := []string{feed.Everyone, r.URL.Query().Get("uid")}
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
