package stream_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"rowcast/listener"
	"rowcast/sql/dbtest"
	"rowcast/stream"
	"rowcast/stream/sse"
)

// A Go program runs a hub in its own process. The program chooses the path of the streams, and decides which rows each
// client receives.
func Example() {
	dsn := dbtest.Example() // a database that "rowcast migrate" has prepared
	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	hub := &stream.Hub{Logger: slog.Default()}
	config, err := pgx.ParseConfig(dsn)
	check(err)
	l := &listener.Listener{Config: config, Logger: slog.Default()}
	l.Deliver, l.Message = hub.Publish, hub.Send
	replayer, err := l.NewReplayer(ctx, 2) // reads the rows that clients have missed
	check(err)
	hub.Source = replayer
	var running errgroup.Group
	running.Go(func() error { return l.Run(ctx) })
	running.Go(func() error { return hub.Run(ctx) })
	events := func(w http.ResponseWriter, r *http.Request) { hub.Serve(w, r, stream.Grant{User: "alice"}) }

	app, err := pgx.ConnectConfig(ctx, config)
	check(err)
	server := httptest.NewServer(http.HandlerFunc(events))
	check(l.CatchUp(ctx)) // Until the first batch arrives, the hub answers clients with "retry later".
	response, err := http.Get(server.URL)
	check(err)
	for event, err := range sse.Events(response.Body) {
		check(err)
		if event.Name == "rowcast.hello" {
			_, err := app.Exec(ctx, `INSERT INTO rowcast.notifications (recipient, event, data)
				VALUES ('alice', 'notify', '{"msg": "Bob liked your post"}')`)
			check(err)
		}
		if !strings.HasPrefix(event.Name, "rowcast.") {
			fmt.Println(event.Name, event.Data)
			break
		}
	}

	check(response.Body.Close())
	check(app.Close(ctx))
	stop()
	check(running.Wait())
	replayer.Close()
	server.Close()
	// Output: notify {"msg": "Bob liked your post"}
}

// check stops an example at the first error.
func check(err error) {
	if err != nil {
		panic(err)
	}
}
