package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"rowcast/cmd/internal/terminal"
	"rowcast/stream/sse"
)

type tailCmd struct {
	URL         *webURL `name:"url" default:"http://127.0.0.1:8080/events" placeholder:"URL" help:"The hub's stream (default ${default})."`
	UID         string  `name:"uid" xor:"who" placeholder:"USER" help:"Whose events to print, from a hub with --insecure-uid."`
	Token       string  `xor:"who" placeholder:"JWT" help:"The token that says whose events to print."`
	LastEventID string  `name:"last-event-id" placeholder:"ID" help:"Where to resume: the id of an event that --json printed. Default: only what comes from now on."`
	Count       int     `min:"0" max:"1000000000" placeholder:"N" help:"End after N rows or messages (default: never). The hub's own events do not count."`
	JSON        bool    `name:"json" help:"Print each event as a JSON object with time, id, event and data."`
	Verbose     bool    `short:"v" help:"Print the hub's own events, too: greetings and heartbeats."`
}

// Help is shown by rowcast tail --help.
func (tailCmd) Help() string {
	return "A line is the time of arrival, the row's id (- for what is sent by hand and not stored), the event's name and its data. " +
		"When the connection is lost it comes back by itself and misses nothing; it says so on stderr. It ends at SIGINT, " +
		"or when the hub refuses it."
}

// Validate refuses what no hub could be asked for.
func (c *tailCmd) Validate() error {
	if terminal.HasControl(c.LastEventID) {
		return errors.New("--last-event-id: the id has control characters in it, which no id of a hub has")
	}
	return nil
}

// Run prints events until ctx ends, or as many as were asked for.
func (c *tailCmd) Run(ctx context.Context, console console) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	transport.ResponseHeaderTimeout = 30 * time.Second
	transport.DisableCompression = true
	defer transport.CloseIdleConnections()
	t := tail{
		tailCmd: c,
		console: console,
		client:  http.Client{Transport: transport, CheckRedirect: followNone},
		decoder: sse.Decoder{LastID: c.LastEventID, Retry: 3 * time.Second},
	}
	return t.run(ctx)
}

// tail is a running tailCmd: a client that comes back.
type tail struct {
	*tailCmd
	console console
	client  http.Client
	decoder sse.Decoder

	connected bool   // has been, at least once
	lost      int    // how often in a row no stream was got
	id        string // of the last event
	printed   int
}

var (
	errEnough = errors.New("as many events as were asked for")
	errSilent = errors.New("nothing was heard from the hub for too long")
)

// A refusal is an answer that will be the same the next time.
type refusal struct{ text string }

func (r refusal) Error() string { return r.text }

func (t *tail) run(ctx context.Context) error {
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

// isOver tells whether an error is the wanted end.
func isOver(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, errEnough)
}

// pause is what the hub asks for, longer while there is none, and never the same for all who wait.
func (t *tail) pause() time.Duration {
	const longest = 10 * time.Second
	wait := max(t.decoder.Retry, 100*time.Millisecond)
	for range t.lost - 1 {
		wait = max(wait, min(2*wait, longest))
	}
	return wait + rand.N(wait/2)
}

func (t *tail) say(format string, args ...any) {
	fmt.Fprintf(t.console.err, "rowcast: %s\n", terminal.Printable(fmt.Sprintf(format, args...)))
}

// follow opens a stream and prints it to its end.
func (t *tail) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.lost++
	response, err := t.open(ctx)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err // without the URL, which has been said
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	t.lost = 0
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

func (t *tail) sayConnected() {
	switch id := rowID(t.decoder.LastID); {
	case id != "":
		t.say("connected to %s, resuming after row %s", t.URL.place(), id)
	case t.connected:
		t.say("connected again to %s", t.URL.place())
	default:
		t.say("connected to %s", t.URL.place())
	}
	t.connected = true
}

// take interprets the hub's own events and prints the others.
func (t *tail) take(event sse.Event, watch *watch) error {
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
