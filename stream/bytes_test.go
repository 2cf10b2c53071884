package stream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/listener/guard"
)

// The blocks of a stream have the bytes that stream/README.md describes. The test leaves out the field time, regular
// heartbeats, rowcast.reset at the beginning of a stream, rowcast.inbox, and rowcast.bye without an id.
func TestTheBytesOfAStream(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c := listen(t, f.site, "team:7", "alice", "", "alice")
	c.expect(":\n" + void(start.String()))
	wantRetry(t, c.line(), 3*time.Second)
	c.expect(hello(start.String(), "alice", "team:7"))

	e := f.publish("alice", "notify", `{"msg": "Bob liked your post"}`)
	c.expect("event: notify\ndata: {\"msg\": \"Bob liked your post\"}\nid: " + e.Cursor.String() + "\n\n")
	f.publish("bob", "notify", "0")
	e = f.publish(everyone, "message", "1") // no event line
	c.expect("data: 1\nid: 80-1045-1045--5be3b1f2-0000004f\n\n")
	if got, want := e.Cursor.String(), "80-1045-1045--5be3b1f2-0000004f"; got != want {
		t.Errorf("the id is %s, want %s", got, want)
	}
	f.hub.Send(feed.Message{Recipient: "team:7", Event: "notify", Data: []byte(`"with NOTIFY"`)})
	c.expect("event: notify\ndata: \"with NOTIFY\"\n\n") // no id
	for _, size := range []int{32 << 10, 32<<10 + 1, 1 << 20} {
		e = f.publish("alice", "notify", text(size))
		c.expect("event: notify\ndata: " + text(size) + "\nid: " + e.Cursor.String() + "\n\n")
	}
	e = f.publish("alice", "lines", text(32<<10)+"\n1") // the table refuses such data
	c.expect("event: lines\ndata: " + text(32<<10) + "\ndata: 1\nid: " + e.Cursor.String() + "\n\n")

	e = f.publishChanged("alice", func(e *feed.Row) { e.Data, e.Size = nil, 123456789 })
	c.expect(fmt.Sprintf("event: rowcast.toolarge\ndata: {\"id\": %d, \"size\": 123456789}\nid: %s\n\n", e.ID, e.Cursor))
	e = f.publishChanged("alice", func(e *feed.Row) { e.Data, e.Size = nil, 0 })
	c.expect(fmt.Sprintf("event: rowcast.toolarge\ndata: {\"id\": %d, \"size\": null}\nid: %s\n\n", e.ID, e.Cursor))
	e = f.publishChanged("alice", func(e *feed.Row) { e.Data, e.Unreadable = nil, "encoding" })
	c.expect(fmt.Sprintf("event: rowcast.unreadable\ndata: {\"id\": %d, \"reason\": \"encoding\"}\nid: %s\n\n", e.ID, e.Cursor))

	f.hub.Publish(feed.Batch{Cursor: f.now, Reset: "history"})
	c.expect("event: rowcast.reset\ndata: {\"reason\": \"history\"}\nid: " + f.now.String() + "\n\n")
	disconnected := listen(t, f.site, "bob")
	disconnected.hello()
	f.hub.Disconnect("bob")
	wantRetry(t, disconnected.line(), 3*time.Second)
	disconnected.expect("event: rowcast.bye\ndata: {\"reason\": \"disconnected\", \"expires_in\": 0}\nid: " + f.now.String() + "\n\n")
	f.stop()
	wantRetry(t, c.line(), 3*time.Second)
	c.expect("event: rowcast.beat\ndata: {\"behind\": 0}\nid: " + f.now.String() + "\n\n")
}

// The block of a row has the created_at of the row in whole milliseconds, whatever the size of the data is.
func TestTheBytesOfATime(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c := listen(t, f.site, "alice")
	c.expect(":\n" + void(start.String()))
	c.line()
	c.expect(hello(start.String(), "alice"))
	for _, at := range []time.Time{time.Unix(1764383642, 999_999_999), time.Unix(0, -1), time.UnixMilli(8_640_000_000_000_000)} {
		for _, data := range []string{"1", text(100 << 10)} {
			e := f.publishChanged("alice", func(e *feed.Row) { e.Data, e.CreatedAt = []byte(data), at })
			c.expect(fmt.Sprintf("event: notify\ntime: %d\ndata: %s\nid: %s\n\n", at.UnixMilli(), data, e.Cursor))
		}
	}
	// JavaScript has no Date for this time, so the event has no time field.
	e := f.publishChanged("alice", func(e *feed.Row) { e.CreatedAt = time.UnixMilli(8_640_000_000_000_001) })
	c.expect(fmt.Sprintf("event: notify\ndata: 1\nid: %s\n\n", e.Cursor))
}

// publishChanged publishes a transaction with one event, after change has changed the event.
func (f *fakeFeed) publishChanged(recipient string, change func(*feed.Row)) feed.Row {
	e := f.event(f.now.Xmax, recipient, "notify", "1")
	change(&e)
	f.now = e.Cursor.Reached(cursor.Cursor{Xmax: e.Xid + 1, Epoch: f.now.Epoch})
	f.hub.Publish(feed.Batch{Rows: []feed.Row{e}, Cursor: f.now})
	return e
}

// The missed events of a stream that resumes have the same bytes as live events, whether they come from the hub's
// memory or from the Source.
func TestTheBytesOfMissedEvents(t *testing.T) {
	t.Parallel()
	for name, memory := range map[string]int{"from the memory": 64 << 20, "from the Source": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var published guard.Value[[]feed.Row]
			rows := &source{page: func(_ context.Context, c, end cursor.Cursor) (page []feed.Row, _ cursor.Cursor, _ uint64, _ error) {
				published.Do(func(rows *[]feed.Row) {
					for _, e := range *rows {
						if !c.Seen(e.Xid, e.ID) && end.Seen(e.Xid, e.ID) {
							page = append(page, e)
						}
					}
				})
				return page, end, 0, nil
			}}
			f := serveFeed(t, func(s *site) { s.hub.Memory, s.hub.Source = memory, rows })
			publish := func(data string) (block string) {
				published.Do(func(rows *[]feed.Row) {
					e := f.publishChanged("alice", func(e *feed.Row) { e.Data, e.CreatedAt = []byte(data), time.UnixMilli(42) })
					*rows = append(*rows, e)
					block = "event: notify\ntime: 42\ndata: " + data + "\nid: " + e.Cursor.String() + "\n\n"
				})
				return block
			}
			want := ""
			for _, data := range []string{"1", text(32 << 10), text(100 << 10), "2", text(1 << 20)} {
				want += publish(data)
			}
			c := resume(t, f.site, start.String(), "alice")
			c.expect(":\n" + void(start.String()))
			c.line()
			c.expect(hello(start.String(), "alice") + want)
			c.expect(publish("3"))
		})
	}
}

// void returns the block rowcast.void of a stream that begins at a cursor.
func void(id string) string { return "event: rowcast.void\ndata: {}\nid: " + id + "\n\n" }

// hello returns the block rowcast.hello of a stream that begins at a cursor.
func hello(id string, recipients ...string) string {
	names, err := json.Marshal(append([]string{}, recipients...))
	if err != nil {
		panic(err) // strings can be encoded
	}
	return "event: rowcast.hello\ndata: {\"recipients\":" + string(names) + ",\"heartbeat\":15}\nid: " + id + "\n\n"
}

// wholeStream matches a stream of comments and whole blocks. A retry field may come last. A whole block has data, its
// id is the last field if it has one, and an empty line ends it. There are no other empty lines.
var (
	wholeBlock  = `(?:retry: [0-9]+\n)?(?:event: [^\r\n]+\n)?(?:time: -?[0-9]+\n)?(?:data: [^\r\n]*\n)+(?:id: [^\r\n]+\n)?\n`
	wholeStream = regexp.MustCompile(`^(?::\n|` + wholeBlock + `)*(?:retry: [0-9]+\n)?$`)
)

// wantWholeBlocks checks that a stream consists of comments and whole blocks.
func wantWholeBlocks(t *testing.T, stream string) {
	t.Helper()
	if !wholeStream.MatchString(stream) {
		t.Errorf("got %q, want comments and whole blocks: each has data, its id is the last field if it has one, and an empty line ends it", stream)
	}
}

// wholeStream matches whole streams, and does not match streams with mistakes.
func TestWholeStream(t *testing.T) {
	t.Parallel()
	whole := []string{"", "retry: 1\n", ":\n:\n", ":\n" + void("1") + "retry: 2\n" + hello("1", "alice") + "data: 1\ndata: 2\nid: 1\n\nretry: 1\n", "event: a\ntime: -1\ndata: 1\n\n"}
	broken := []string{"\n", "retry: 1\n\n", ":\n\n", "id: 1\ndata: 1\n\n", "event: a\nid: 1\n\n", "data: 1\nid: 1\n", "data: 1\nid: 1\nevent: a\n\n", "data: 1\nid: 1\nid: 2\n\n"}
	if i := slices.IndexFunc(whole, func(s string) bool { return !wholeStream.MatchString(s) }); i >= 0 {
		t.Errorf("%q does not match, want a match", whole[i])
	}
	if i := slices.IndexFunc(broken, wholeStream.MatchString); i >= 0 {
		t.Errorf("%q matches, want no match", broken[i])
	}
}
