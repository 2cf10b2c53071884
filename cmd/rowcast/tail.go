package main

import (
	"context"
	"errors"
	"net/url"

	"rowcast/cmd/internal/tail"
	"rowcast/cmd/internal/terminal"
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
	client := tail.Client{
		URL: (*url.URL)(c.URL), UID: c.UID, Token: c.Token, LastEventID: c.LastEventID, Count: c.Count, JSON: c.JSON, Verbose: c.Verbose,
		Out: console.out, Err: console.err,
	}
	return client.Run(ctx)
}
