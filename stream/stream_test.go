package stream_test

import (
	"bufio"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/sql/dbtest"
	"rowcast/stream"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// A table is rowcast.notifications as a hub reads it.
type table struct {
	*listener.Listener
	*listener.Replayer
}

func (t *table) Page(ctx context.Context, from, to cursor.Cursor, recipients []string) ([]stream.Event, cursor.Cursor, uint64, error) {
	rows, next, horizon, err := t.Replayer.Page(ctx, from, to, recipients)
	return events(rows), next, horizon, err
}

func events(rows []listener.Row) []stream.Event {
	events := make([]stream.Event, len(rows))
	for i, r := range rows {
		events[i] = stream.Event{Row: r.Row, Recipient: r.Recipient, Name: r.Event, Data: r.Data, Size: r.Size, Cursor: r.Cursor}
	}
	return events
}

// serve runs a listener and a hub on a database and serves streams at the address that it returns, until the test ends.
func serve(t *testing.T, dsn string, configure ...func(*stream.Hub, *listener.Listener)) (*stream.Hub, string) {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	hub := &stream.Hub{Logger: log, Drain: time.Millisecond}
	l := &listener.Listener{Config: config, Logger: log, Look: -1}
	l.Message = func(m listener.Message) {
		hub.Send(stream.Message{Recipient: m.Recipient, Name: m.Event, Data: m.Data})
	}
	began := make(chan struct{})
	once := false
	l.Deliver = func(b listener.Batch) {
		hub.Publish(stream.Batch{Events: events(b.Rows), Cursor: b.Cursor, Horizon: b.Horizon, Reset: b.Reset})
		if !once {
			once = true
			close(began)
		}
	}
	for _, c := range configure {
		c(hub, l)
	}
	replayer, err := l.NewReplayer(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	hub.Source = &table{l, replayer}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- l.Run(ctx) }()
	go func() { done <- hub.Run(ctx) }()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hub.Serve(w, r, r.URL.Query()["recipient"])
	}))
	t.Cleanup(func() {
		cancel()
		<-done
		<-done
		server.Close()
		replayer.Close()
	})
	<-began
	return hub, server.URL
}

func TestSmoke(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	_, url := serve(t, dsn)
	response, err := http.Get(url + "?recipient=alice")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '{"a": 1}'), ('bob', '2'), (NULL, '3'); NOTIFY rowcast, 'hi'`); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		t.Log(lines.Text())
		if lines.Text() == `data: "hi"` {
			break
		}
	}
}
