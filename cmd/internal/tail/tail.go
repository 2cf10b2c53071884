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
	"syscall"
	"time"

	"rowcast/cmd/internal/terminal"
	"rowcast/stream/sse"
)

// A Client prints the events of a stream. It reconnects and resumes by itself. URL, Out and Err must be set.
type Client struct {
	URL         *url.URL // the address of the stream
	UID         string   // the user, for a hub with --insecure-uid
	Token       string   // sent in the Authorization header
	Topics      []string // added to the topics in URL
	LastEventID string   // where to resume; if empty, only new events are printed
	Count       int      // the number of rows and messages after which Run returns; 0 is no limit
	JSON        bool     // print each event as a JSON object
	Verbose     bool     // print the hub's own events, too

	Out io.Writer // for events
	Err io.Writer // for the state of the connection

	client    http.Client
	decoder   sse.Decoder
	connected bool   // the client has been connected before
	attempts  int    // attempts to connect since the last stream was opened
	id        string // the id of the last event that was received
	printed   int    // printed rows and messages
}

// Run prints events until ctx ends, Count is reached, the hub refuses the stream or an event cannot be printed. If the
// hub refuses the stream, the error is a Refusal.
func (t *Client) Run(ctx context.Context) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	transport.ResponseHeaderTimeout = 30 * time.Second
	transport.DisableCompression = true
	defer transport.CloseIdleConnections()
	t.client = http.Client{Transport: transport, CheckRedirect: followNoRedirect}
	t.decoder = sse.Decoder{LastID: t.LastEventID, Retry: 3 * time.Second}
	return t.run(ctx)
}

var (
	errCount  = errors.New("the requested number of events has been printed")
	errSilent = errors.New("no data from the hub for too long")
)

// A Refusal is the error of a stream that cannot be opened. Another attempt would fail, too.
type Refusal struct {
	Status int // the HTTP status; 0 if there was no answer
	text   string
}

func (r Refusal) Error() string { return r.text }

// A printError is the error of an event that cannot be printed, for example because the disk is full. The connection is
// not the cause, so the client does not reconnect.
type printError struct{ error }

func (e printError) Unwrap() error { return e.error }

func (t *Client) run(ctx context.Context) error {
	for {
		err := t.follow(ctx)
		if isFinal(err) {
			return err
		}
		if isDone(ctx, err) {
			return nil
		}
		wait := t.pause()
		t.report("%s; reconnecting in %v", terminal.OneLine(cmp.Or(err, errors.New("the stream has ended"))), wait.Round(100*time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// isDone reports whether Run is done: it was interrupted, or it has printed enough events.
func isDone(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, errCount)
}

// isFinal reports whether Run must end with an error, because another attempt would fail, too.
func isFinal(err error) bool {
	_, refused := errors.AsType[Refusal](err)
	_, unprinted := errors.AsType[printError](err)
	return refused || unprinted
}

// pause returns the time until the next attempt. It begins with the time that the hub asked for, or 3 s, but at least
// 100 ms. Each further failure doubles the time, up to 10 s. A time that is longer already stays the same. Then a
// random part of up to half of the time is added.
func (t *Client) pause() time.Duration {
	const longest = 10 * time.Second
	wait := max(t.decoder.Retry, 100*time.Millisecond)
	for range t.attempts - 1 {
		wait = max(wait, min(2*wait, longest))
	}
	return wait + rand.N(wait/2)
}

// report prints a line about the connection.
func (t *Client) report(format string, args ...any) {
	fmt.Fprintf(t.Err, "rowcast: %s\n", terminal.Printable(fmt.Sprintf(format, args...)))
}

// follow opens a stream and prints its events until it ends.
func (t *Client) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.attempts++
	response, err := t.open(ctx)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		if isRefused(err) {
			return fmt.Errorf("%w: is rowcast serve running at this address?", failed.Err)
		}
		if errors.Is(err, http.ErrSchemeMismatch) {
			return fmt.Errorf("%w: write http:// in --url, because a hub speaks no TLS", failed.Err)
		}
		return failed.Err // the error without the URL, which may contain a password
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	t.attempts = 0
	t.reportConnected()

	watch := newWatch(response.Body, func() { cancel(errSilent) })
	defer watch.timer.Stop()
	for event, err := range t.decoder.Events(watch) {
		if err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
		if err := t.receive(event, watch); err != nil {
			return err
		}
	}
	return nil
}

// isRefused reports whether err says that nothing listens at an address. Windows has its own number for this error, and
// syscall.ECONNREFUSED is another number there.
func isRefused(err error) bool {
	const onWindows = syscall.Errno(10061) // WSAECONNREFUSED
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, onWindows)
}

func (t *Client) reportConnected() {
	switch id := rowID(t.decoder.LastID); {
	case id != "":
		t.report("connected to %s, resuming after row %s", withoutSecrets(t.URL), id)
	case t.connected:
		t.report("reconnected to %s", withoutSecrets(t.URL))
	default:
		t.report("connected to %s", withoutSecrets(t.URL))
	}
	t.connected = true
}

// receive interprets the hub's own events, and prints all other events. With Verbose, it also prints the hub's own
// events, except rowcast.void, which carries no information.
func (t *Client) receive(event sse.Event, watch *watch) error {
	if event.Name == "rowcast.void" {
		return nil
	}
	stored := event.LastID != t.id // a message that is not stored does not change the last event id
	t.id = event.LastID
	switch event.Name {
	case "rowcast.hello":
		watch.setHeartbeat(event.Data)
	case "rowcast.bye":
		t.report("the stream is about to end: %s", terminal.Printable(event.Data))
	case "rowcast.reset":
		t.report("the hub cannot continue the stream, so events may be missing: %s", terminal.Printable(event.Data))
	}
	own := isHubs(event.Name)
	if own && !t.Verbose {
		return nil
	}
	if err := t.print(event, stored); err != nil {
		return printError{fmt.Errorf("cannot print an event: %w", err)}
	}
	if own {
		return nil
	}
	t.printed++
	if t.printed == t.Count {
		return errCount
	}
	return nil
}

// isHubs reports whether an event is about the stream itself. The event rowcast.inbox is not, because it is a row. The
// events rowcast.toolarge and rowcast.unreadable are not, because they replace rows.
func isHubs(name string) bool {
	return strings.HasPrefix(name, "rowcast.") && name != "rowcast.inbox" && name != "rowcast.toolarge" && name != "rowcast.unreadable"
}

// withoutSecrets returns a URL without its user and its query, which may contain a password or an API key.
func withoutSecrets(u *url.URL) string { return u.Scheme + "://" + u.Host + u.Path }
