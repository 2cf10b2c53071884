package main_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"rowcast/stream/sse"
)

// An eventSource is a client that behaves like a browser's EventSource. When its stream ends or it cannot connect, it
// waits for the retry time and resumes from its last event id. After any answer but an event stream with status 200, it
// stops.
type eventSource struct {
	url     string
	from    string // the X-Forwarded-For header; not sent if empty
	onEvent func(sse.Event)
	decoder sse.Decoder
	streams int // the number of streams so far
}

// errFinal reports an answer after which an EventSource does not reconnect.
var errFinal = errors.New("closed for good")

// run reads the stream, with reconnects, until ctx ends or an answer makes an EventSource stop.
func (c *eventSource) run(ctx context.Context) error {
	for {
		if err := c.stream(ctx); errors.Is(err, errFinal) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.decoder.Retry):
		}
	}
}

// stream reads one connection to its end. It returns nil if the stream ended without an error.
func (c *eventSource) stream(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return err
	}
	if c.decoder.LastID != "" {
		request.Header.Set("Last-Event-ID", c.decoder.LastID)
	}
	if c.from != "" {
		request.Header.Set("X-Forwarded-For", c.from)
	}
	response, err := streamClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if kind := response.Header.Get("Content-Type"); response.StatusCode != http.StatusOK || kind != "text/event-stream" {
		return fmt.Errorf("%w: %s, %q", errFinal, response.Status, kind)
	}
	c.streams++
	for event, err := range c.decoder.Events(response.Body) {
		if err != nil {
			return err
		}
		c.onEvent(event)
	}
	return nil
}
