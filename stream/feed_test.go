package stream_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream"
)

const everyone = feed.Everyone

// A fakeFeed is a hub without a database. The test publishes the transactions.
type fakeFeed struct {
	*site
	now  cursor.Cursor
	last cursor.Row
	stop func()
}

// start is the cursor at which a feed begins.
var start = cursor.Cursor{Xmax: 1043, Epoch: 0x5be3b1f2, Anchor: cursor.Anchor{ID: 77, Tag: 0x0c9a8e11}}

// newFeed returns a feed whose hub has begun. No server serves its streams.
func newFeed(t testing.TB, configure ...func(*site)) *fakeFeed {
	f := &fakeFeed{
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
	f.hub.Publish(feed.Batch{Cursor: start})
	return f
}

// serveFeed returns a feed and serves its streams.
func serveFeed(t testing.TB, configure ...func(*site)) *fakeFeed {
	f := newFeed(t, configure...)
	f.stop = f.open(t)
	return f
}

// publish publishes a transaction with one event.
func (f *fakeFeed) publish(recipient, name, data string) feed.Row {
	e := f.event(f.now.Xmax, recipient, name, data)
	f.now = e.Cursor.Reached(cursor.Cursor{Xmax: e.Xid + 1, Epoch: f.now.Epoch})
	f.hub.Publish(feed.Batch{Rows: []feed.Row{e}, Cursor: f.now})
	return e
}

// publishMany publishes a transaction with n equal events, in one batch.
func (f *fakeFeed) publishMany(n int, recipient, data string) {
	xid, rows := f.now.Xmax, make([]feed.Row, n)
	for i := range rows {
		rows[i] = f.event(xid, recipient, "message", data)
	}
	f.now = rows[n-1].Cursor.Reached(cursor.Cursor{Xmax: xid + 1, Epoch: f.now.Epoch})
	f.hub.Publish(feed.Batch{Rows: rows, Cursor: f.now})
}

// event returns the next event, as part of the given transaction.
func (f *fakeFeed) event(xid uint64, recipient, name, data string) feed.Row {
	f.last = cursor.Row{Xid: xid, ID: f.last.ID + 1, Tag: cursor.Tag(f.last.ID)}
	return feed.Row{
		Row:       f.last,
		Recipient: recipient,
		Event:     name,
		Data:      []byte(data),
		Size:      int64(len(data)),
		Cursor:    f.now.After(f.last, cursor.Cursor{Xmax: xid + 1, Epoch: f.now.Epoch}),
	}
}

// A source is a stream.Source whose methods call the test's functions. A method whose function is nil returns at once:
// the source is caught up, has no rows, and regards each cursor as valid.
type source struct {
	catchUp func(ctx context.Context) error
	page    func(ctx context.Context, c, end cursor.Cursor) (events []feed.Row, next cursor.Cursor, horizon uint64, err error)
	valid   func(ctx context.Context) (bool, error)
}

func (s *source) CatchUp(ctx context.Context) error {
	if s.catchUp == nil {
		return nil
	}
	return s.catchUp(ctx)
}

func (s *source) Page(ctx context.Context, c, end cursor.Cursor, _ []string) ([]feed.Row, cursor.Cursor, uint64, error) {
	if s.page == nil {
		return nil, end, 0, nil
	}
	return s.page(ctx, c, end)
}

func (s *source) IsValid(ctx context.Context, _, _ cursor.Cursor) (bool, error) {
	if s.valid == nil {
		return true, nil
	}
	return s.valid(ctx)
}
