package main_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"rowcast/stream/sse"
)

// An eventSource is a client that does as a browser's EventSource: it comes back from where it was whenever its stream ends, after the
// time that it was told, and from any status but 200 never.
type eventSource struct {
	url     string
	from    string // for X-Forwarded-For
	hears   func(sse.Event)
	decoder sse.Decoder
	streams int // that it has had
}

// errFinal is why an EventSource does not come back.
var errFinal = errors.New("closed for good")

// run follows the stream until ctx ends, or for good.
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

// stream follows it until it ends: nil says that it did so in order.
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
	response, err := client.Do(request)
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
		c.hears(event)
	}
	return nil
}
