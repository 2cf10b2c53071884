package stream_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"rowcast/listener/feed"
	"rowcast/stream"
	"rowcast/stream/sse"
)

// A stream lasts as long as its user is signed in. The hub calls Renew each time that the grant expires. Here the first
// call finds the session, and the second call does not find it because the user has signed out.
func ExampleGrant_renew() {
	hub := &stream.Hub{Logger: slog.Default()}
	hub.Publish(feed.Batch{}) // In a real program, a Listener delivers the batches.
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var running errgroup.Group
	running.Go(func() error { return hub.Run(ctx) })

	calls := 0
	renew := func(context.Context) (expires time.Time, ok bool) {
		calls++ // The hub never makes two calls for one stream at once.
		signedIn := calls == 1
		fmt.Println("signed in:", signedIn)
		return time.Now().Add(time.Millisecond), signedIn
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hub.Serve(w, r, stream.Grant{User: "alice", Expires: time.Now().Add(time.Millisecond), Renew: renew})
	}))
	response, err := http.Get(server.URL)
	check(err)
	for event, err := range sse.Events(response.Body) { // The loop ends when the hub ends the stream.
		check(err)
		if strings.HasPrefix(event.Name, "rowcast.bye") {
			fmt.Println(event.Name, event.Data)
		}
	}

	check(response.Body.Close())
	stop()
	check(running.Wait())
	server.Close()
	// Output:
	// signed in: true
	// signed in: false
	// rowcast.bye {"reason": "revoked", "expires_in": 0}
}
