package inbox_test

import (
	"context"
	"log"
	"log/slog"
	"net/http"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/stream"
	"rowcast/stream/auth"
	"rowcast/stream/inbox"
)

// A program that embeds a hub can serve inboxes, too. Both handlers use the same authenticator. With Hub.Inbox, the
// streams of a user receive the changes of the user's inbox.
func Example() {
	ctx, logger := context.Background(), slog.Default()
	config, err := pgx.ParseConfig("postgresql://hub@localhost/app")
	if err != nil {
		log.Fatal(err)
	}
	l := &listener.Listener{Config: config, Logger: logger}
	key, err := auth.Secret([]byte("a secret of at least thirty-two bytes"))
	if err != nil {
		log.Fatal(err)
	}
	store, err := l.NewInbox(ctx, 4) // call store.Close when the program ends
	if err != nil {
		log.Fatal(err)
	}
	hub := &stream.Hub{Logger: logger, Inbox: true}
	tokens := &auth.Tokens{Keys: []auth.Key{key}}
	bell := &inbox.Handler{Store: store, Authenticate: tokens.Authenticate, Logger: logger, Failures: &hub.Failures}
	http.Handle("/events", &auth.Handler{Hub: hub, Authenticate: tokens.Authenticate, Logger: logger})
	http.Handle("/inbox", bell)
	http.Handle("/inbox/", bell)
}
