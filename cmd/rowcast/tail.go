package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"rowcast/cmd/internal/flags"
	"rowcast/cmd/internal/tail"
	"rowcast/cmd/internal/terminal"
)

type tailCmd struct {
	URL         *flags.URL `name:"url" default:"http://127.0.0.1:8080/events" placeholder:"URL" help:"The URL of the hub's stream (default ${default})."`
	UID         string     `name:"uid" xor:"who" placeholder:"USER" help:"Print the events of this user, if the hub runs with --insecure-uid."`
	Token       string     `xor:"who" placeholder:"JWT" help:"Print the events of the user to whom this token was issued, if the hub accepts tokens."`
	Topic       []string   `sep:"none" placeholder:"TOPIC" help:"Ask for this topic, such as ticket:42, and print its events, too. Repeat the flag for more topics."`
	LastEventID string     `name:"last-event-id" placeholder:"ID" help:"Resume after the event with this id, which --json printed (default: print new events only)."`
	Count       int        `min:"0" max:"1000000000" placeholder:"N" help:"Stop after N rows and messages (default: never). Events such as heartbeats are not counted."`
	JSON        bool       `name:"json" help:"Print each event as a JSON object with time, event and data. A row also has id and created_at."`
	Verbose     bool       `short:"v" help:"Print the hub's own events, too, such as heartbeats."`
}

// Help is shown by rowcast tail --help.
func (tailCmd) Help() string {
	return "A line has the time of arrival, the id of the row (- for a message, which is not stored), the name of the event and its data. " +
		"When the connection is lost, the command reconnects, resumes after the last event and reports this on standard error. " +
		"It stops at SIGINT and SIGTERM, when --count is reached, when an event cannot be printed, and when another attempt would fail, too, for example because the hub refuses the stream."
}

// Validate refuses an id that cannot be sent in a header.
func (c *tailCmd) Validate() error {
	if terminal.HasControl(c.LastEventID) {
		return errors.New("--last-event-id: the id contains control characters, so it is not the id of an event")
	}
	return nil
}

// Run runs the client. If the hub answers 401, and no user and no token were given, the error names the flags --token
// and --uid.
func (c *tailCmd) Run(ctx context.Context, console console) error {
	client := tail.Client{
		URL: (*url.URL)(c.URL), UID: c.UID, Token: c.Token, Topics: c.Topic, LastEventID: c.LastEventID, Count: c.Count, JSON: c.JSON, Verbose: c.Verbose,
		Out: console.out, Err: console.err,
	}
	err := client.Run(ctx)
	if refused, ok := errors.AsType[tail.Refusal](err); ok && refused.Status == http.StatusUnauthorized && c.UID == "" && c.Token == "" {
		return fmt.Errorf("%w; give --token, or --uid if the hub runs with --insecure-uid", err)
	}
	return err
}
