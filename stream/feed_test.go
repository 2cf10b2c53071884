package stream_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/stream"
)

// A feed is a hub without a database: the test publishes, one transaction after the other.
type feed struct {
	*site
	now  cursor.Cursor
	last cursor.Row
	stop func()
}

// start is the cursor from which a feed begins.
var start = cursor.Cursor{Xmax: 1043, Epoch: 0x5be3b1f2, Anchor: cursor.Anchor{ID: 77, Tag: 0x0c9a8e11}}

// newFeed makes a feed that is not served.
func newFeed(t testing.TB, configure ...func(*site)) *feed {
	f := &feed{
		site: &site{hub: &stream.Hub{
			Source: &source{},
			Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
			Drain:  time.Millisecond,
		}},
		now:  start,
		last: cursor.Row{Xid: start.Xmax - 1, ID: start.Anchor.ID},
	}
	for _, c := range configure {
		c(f.site)
	}
	f.hub.Publish(stream.Batch{Cursor: start})
	return f
}

// serveFeed makes a feed and serves it.
func serveFeed(t testing.TB, configure ...func(*site)) *feed {
	f := newFeed(t, configure...)
	f.stop = f.open(t)
	return f
}

// tell publishes a transaction of one event.
func (f *feed) tell(recipient, name, data string) stream.Event {
	e := f.event(f.now.Xmax, recipient, name, data)
	f.now = e.Cursor.Reached(cursor.Cursor{Xmax: e.Xid + 1, Epoch: f.now.Epoch})
	f.hub.Publish(stream.Batch{Events: []stream.Event{e}, Cursor: f.now})
	return e
}

// event makes the next event, of some transaction.
func (f *feed) event(xid uint64, recipient, name, data string) stream.Event {
	f.last = cursor.Row{Xid: xid, ID: f.last.ID + 1, Tag: cursor.Tag(f.last.ID)}
	return stream.Event{
		Row:       f.last,
		Recipient: recipient,
		Name:      name,
		Data:      []byte(data),
		Size:      int64(len(data)),
		Cursor:    f.now.After(f.last, cursor.Cursor{Xmax: xid + 1, Epoch: f.now.Epoch}),
	}
}

// A source is a stream.Source of functions; without them it holds nothing and answers at once.
type source struct {
	catchUp func(ctx context.Context) error
	page    func(ctx context.Context, from, to cursor.Cursor) (events []stream.Event, next cursor.Cursor, horizon uint64, err error)
	stands  func(ctx context.Context) (bool, error)
}

func (s *source) CatchUp(ctx context.Context) error {
	if s.catchUp == nil {
		return nil
	}
	return s.catchUp(ctx)
}

func (s *source) Page(ctx context.Context, from, to cursor.Cursor, _ []string) ([]stream.Event, cursor.Cursor, uint64, error) {
	if s.page == nil {
		return nil, to, 0, nil
	}
	return s.page(ctx, from, to)
}

func (s *source) Stands(ctx context.Context, _, _ cursor.Cursor) (bool, error) {
	if s.stands == nil {
		return true, nil
	}
	return s.stands(ctx)
}
