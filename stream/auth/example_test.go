package auth_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"rowcast/listener/feed"
	"rowcast/stream"
	"rowcast/stream/auth"
	"rowcast/stream/sse"
)

// A program can supply its own Authenticator. This one identifies the user by the app's session cookie.
func ExampleHandler() {
	sessions := map[string]string{"secret": "alice"}
	authenticate := func(r *http.Request) (stream.Grant, error) {
		cookie, err := r.Cookie("session")
		if err != nil || sessions[cookie.Value] == "" {
			return stream.Grant{}, auth.Denial{Status: http.StatusUnauthorized, Reason: "sign in first"}
		}
		return stream.Grant{User: sessions[cookie.Value], Groups: []string{"team:7"}}, nil
	}
	hub := &stream.Hub{Logger: slog.New(slog.DiscardHandler)}
	hub.Publish(feed.Batch{}) // in a program, a Listener calls Publish
	server := httptest.NewServer(&auth.Handler{Hub: hub, Authenticate: authenticate, Logger: hub.Logger})
	defer server.Close()

	for _, cookie := range []string{"guessed", "secret"} {
		request, err := http.NewRequest(http.MethodGet, server.URL, http.NoBody)
		check(err)
		request.AddCookie(&http.Cookie{Name: "session", Value: cookie})
		response, err := http.DefaultClient.Do(request)
		check(err)
		fmt.Println(response.Status)
		if response.StatusCode == http.StatusOK {
			fmt.Println(hello(response))
		}
		check(response.Body.Close())
	}
	// Output:
	// 401 Unauthorized
	// 200 OK
	// rowcast.hello {"recipients":["alice","team:7"],"heartbeat":15}
}

// hello returns the event that names the recipients of a stream.
func hello(response *http.Response) string {
	for event, err := range sse.Events(response.Body) {
		check(err)
		if event.Name == "rowcast.hello" {
			return event.Name + " " + event.Data
		}
	}
	return "no event"
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
