// Package tail prints the events of a stream as text.
package tail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"rowcast/cmd/internal/terminal"
	"rowcast/stream/sse"
)

// A Client prints the events of a stream. It reconnects and resumes by itself. URL, Out and Err must be set.
type Client struct {
	URL         *url.URL // of the stream
	UID         string   // the user, for a hub with --insecure-uid
	Token       string   // sent in the Authorization header
	LastEventID string   // where to resume; if empty, only new events are printed
	Count       int      // of rows and messages, after which Run returns; 0 is no limit
	JSON        bool     // print an event as a JSON object
	Verbose     bool     // print the hub's own events, too

	Out io.Writer // for events
	Err io.Writer // for the state of the connection

	client    http.Client
	decoder   sse.Decoder
	connected bool   // there was a stream
	attempts  int    // since the last stream
	id        string // of the last event
	printed   int
}

// Run prints events until ctx ends, Count is reached or the hub refuses the stream.
func (t *Client) Run(ctx context.Context) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	transport.ResponseHeaderTimeout = 30 * time.Second
	transport.DisableCompression = true
	defer transport.CloseIdleConnections()
	t.client = http.Client{Transport: transport, CheckRedirect: followNone}
	t.decoder = sse.Decoder{LastID: t.LastEventID, Retry: 3 * time.Second}
	return t.run(ctx)
}

var (
	errEnough = errors.New("as many events as were asked for")
	errSilent = errors.New("nothing was heard from the hub for too long")
)

// A refusal is an answer that another attempt would not change.
type refusal struct{ text string }

func (r refusal) Error() string { return r.text }

func (t *Client) run(ctx context.Context) error {
	for {
		err := t.follow(ctx)
		if isOver(ctx, err) {
			return nil
		}
		if _, refused := errors.AsType[refusal](err); refused {
			return err
		}
		wait := t.pause()
		t.say("%s; trying again in %v", terminal.OneLine(cmp.Or(err, errors.New("the stream has ended"))), wait.Round(100*time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// isOver reports whether an error is the end that was asked for.
func isOver(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, errEnough)
}

// pause returns the time until the next attempt: what the hub asked for, longer after several failures, and random.
func (t *Client) pause() time.Duration {
	const longest = 10 * time.Second
	wait := max(t.decoder.Retry, 100*time.Millisecond)
	for range t.attempts - 1 {
		wait = max(wait, min(2*wait, longest))
	}
	return wait + rand.N(wait/2)
}

func (t *Client) say(format string, args ...any) {
	fmt.Fprintf(t.Err, "rowcast: %s\n", terminal.Printable(fmt.Sprintf(format, args...)))
}

// follow opens a stream and prints it to its end.
func (t *Client) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.attempts++
	response, err := t.open(ctx)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err // without the URL, which has been said
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	t.attempts = 0
	t.sayConnected()

	watch := newWatch(response.Body, func() { cancel(errSilent) })
	defer watch.timer.Stop()
	for event, err := range t.decoder.Events(watch) {
		if err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
		if err := t.take(event, watch); err != nil {
			return err
		}
	}
	return nil
}

func (t *Client) sayConnected() {
	switch id := rowID(t.decoder.LastID); {
	case id != "":
		t.say("connected to %s, resuming after row %s", place(t.URL), id)
	case t.connected:
		t.say("connected again to %s", place(t.URL))
	default:
		t.say("connected to %s", place(t.URL))
	}
	t.connected = true
}

// take interprets the hub's own events and prints the others.
func (t *Client) take(event sse.Event, watch *watch) error {
	stored := event.LastID != t.id
	t.id = event.LastID
	switch event.Name {
	case "rowcast.hello":
		watch.learn(event.Data)
	case "rowcast.bye":
		t.say("the stream is about to end: %s", terminal.Printable(event.Data))
	case "rowcast.reset":
		t.say("the hub cannot resume from there, and events may have been missed: %s", terminal.Printable(event.Data))
	}
	ours := isHubs(event.Name)
	if ours && !t.Verbose {
		return nil
	}
	if err := t.print(event, stored); err != nil || ours {
		return err
	}
	t.printed++
	if t.printed == t.Count {
		return errEnough
	}
	return nil
}

// isHubs reports whether an event is the hub's own. Two of the hub's events stand for a row: they count as rows.
func isHubs(name string) bool {
	return strings.HasPrefix(name, "rowcast.") && name != "rowcast.toolarge" && name != "rowcast.unreadable"
}

// place returns the part of a URL that may be shown: it may have a password, or a key in its query.
func place(u *url.URL) string { return u.Scheme + "://" + u.Host + u.Path }
