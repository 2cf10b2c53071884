package sse_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"rowcast/stream/sse"
)

func TestAppend(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, got, want string
	}{
		{"message", string(sse.Block{Data: []byte("hi")}.AppendFields(nil)), "data: hi\n"},
		{"message by name", string(sse.Block{Name: sse.MustName("message"), Data: []byte("hi")}.AppendFields(nil)), "data: hi\n"},
		{"no data", string(sse.Block{Name: sse.MustName("x")}.AppendFields(nil)), "event: x\n"},
		{
			"all fields",
			string(sse.Block{Name: sse.MustName("notify"), Time: time.Unix(1700000000, 123_999_999), Data: []byte(`{"a": 1}`)}.AppendFields(nil)),
			"event: notify\ntime: 1700000000123\ndata: {\"a\": 1}\n",
		},
		{"a time before 1970", string(sse.Block{Time: time.Unix(0, -1), Data: []byte("1")}.AppendFields(nil)), "time: -1\ndata: 1\n"},
		{"empty data", string(sse.Block{Data: []byte{}}.AppendFields(nil)), "data: \n"},
		{"leading space", string(sse.Block{Data: []byte(" x")}.AppendFields(nil)), "data:  x\n"},
		{
			"data that would be fields",
			string(sse.Block{Data: []byte("a\nevent: b\r\rid: 1\r\n\nretry: 0\n")}.AppendFields(nil)),
			"data: a\ndata: event: b\ndata: \ndata: id: 1\ndata: \ndata: retry: 0\ndata: \n",
		},
		{"retry", string(sse.AppendRetry(nil, 3*time.Second)), "retry: 3000\n"},
		{"negative retry", string(sse.AppendRetry(nil, -time.Second)), "retry: 0\n"},
		{"appended", string(sse.Block{Data: []byte("y")}.AppendFields([]byte("x"))), "xdata: y\n"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, tt.got, tt.want)
		}
	}
}

// Split returns the data itself and writes nothing behind it, although the slice has capacity for that.
func TestSplitDoesNotCopyOrChangeData(t *testing.T) {
	t.Parallel()
	buffer := []byte(`"hi" and the next row`)
	data := buffer[:4]
	head, rest := sse.Block{Name: sse.MustName("notify"), Data: data}.Split(nil)
	if string(head) != "event: notify\ndata: " || string(rest) != `"hi"` || &rest[0] != &data[0] {
		t.Errorf("got head %q and data %q (uncopied: %t), want the event's name and the uncopied data", head, rest, &rest[0] == &data[0])
	}
	if string(buffer) != `"hi" and the next row` {
		t.Errorf("the buffer has become %q, want it unchanged", buffer)
	}
}

func BenchmarkDecode(b *testing.B) {
	const events = 1000
	stream := strings.Repeat("id: 77-1042-1042--5be3b1f2-0c9a8e11\nevent: notify\ndata: {\"msg\": \"Bob liked your post\"}\n\n", events)
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range sse.Events(strings.NewReader(stream)) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != events {
			b.Fatalf("%d events, want %d", n, events)
		}
	}
}

func TestInvalidNames(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"a\nb", "\r"} {
		if _, err := sse.NewName(text); err == nil {
			t.Errorf("NewName(%q): got no error, want one", text)
		}
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, stream string
		want         []sse.Event
	}{
		// The examples of the standard.
		{"data of three lines", "data: YHOO\ndata: +2\ndata: 10\n\n", []sse.Event{{Name: "message", Data: "YHOO\n+2\n10"}}},
		{
			"four blocks", ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
			[]sse.Event{{LastID: "1", Name: "message", Data: "first event"}, {Name: "message", Data: "second event"}, {Name: "message", Data: " third event"}},
		},
		{"empty data", "data\n\ndata\ndata\n\ndata:", []sse.Event{{Name: "message", Data: ""}, {Name: "message", Data: "\n"}}},
		{"a space after the colon", "data:test\n\ndata: test\n\n", []sse.Event{{Name: "message", Data: "test"}, {Name: "message", Data: "test"}}},

		{"byte order mark", "\ufeffdata: x\n\n", []sse.Event{{Name: "message", Data: "x"}}},
		{"only one byte order mark", "\ufeff\ufeffdata: x\n\ndata: y\n\n", []sse.Event{{Name: "message", Data: "y"}}},
		{"byte order mark in a later line", "\n\ufeffdata: x\n\n", nil},
		{"CR", "data: x\rid: 1\r\rdata: y\r\r", []sse.Event{{LastID: "1", Name: "message", Data: "x"}, {LastID: "1", Name: "message", Data: "y"}}},
		{"CRLF", "data: x\r\nid: 1\r\n\r\ndata: y\r\n\r\n", []sse.Event{{LastID: "1", Name: "message", Data: "x"}, {LastID: "1", Name: "message", Data: "y"}}},
		{"mixed line ends", "data: x\rdata: y\r\ndata: z\n\r", []sse.Event{{Name: "message", Data: "x\ny\nz"}}},
		{"LF CR are two line ends", "data: x\n\rdata: y\n\n", []sse.Event{{Name: "message", Data: "x"}, {Name: "message", Data: "y"}}},
		{"event", "event: a\ndata: x\n\ndata: y\n\n", []sse.Event{{Name: "a", Data: "x"}, {Name: "message", Data: "y"}}},
		{"the last of several event fields applies", "event: a\nevent: b\ndata: x\n\nevent: a\nevent\ndata: y\n\n", []sse.Event{{Name: "b", Data: "x"}, {Name: "message", Data: "y"}}},
		{"id is kept", "id: 1\ndata: x\n\ndata: y\n\n", []sse.Event{{LastID: "1", Name: "message", Data: "x"}, {LastID: "1", Name: "message", Data: "y"}}},
		{"id of a block without data", "id: 1\n\ndata: y\n\n", []sse.Event{{LastID: "1", Name: "message", Data: "y"}}},
		{"event of a block without data", "event: a\n\ndata: y\n\n", []sse.Event{{Name: "message", Data: "y"}}},
		{"id with NUL", "id: 1\ndata: x\n\nid: 2\x003\ndata: y\n\n", []sse.Event{{LastID: "1", Name: "message", Data: "x"}, {LastID: "1", Name: "message", Data: "y"}}},
		{"unknown fields", "foo: 1\nData: 2\n data: 3\ndata : 4\nfoo\ndata: x\n\n", []sse.Event{{Name: "message", Data: "x"}}},
		{"colon in the value", "data: a: b:c\n\n", []sse.Event{{Name: "message", Data: "a: b:c"}}},
		{"time", "time: 1700000000123\ndata: x\n\ndata: y\n\ntime:-1\ndata: z\n\n", []sse.Event{
			{Name: "message", Data: "x", Time: time.UnixMilli(1700000000123).UTC()},
			{Name: "message", Data: "y"},
			{Name: "message", Data: "z", Time: time.UnixMilli(-1).UTC()},
		}},
		{"time of a block without data", "time: 1\n\ndata: y\n\n", []sse.Event{{Name: "message", Data: "y"}}},
		{"time that is not a number", "time: 1.5\ntime\ntime: 9223372036854775808\ndata: x\n\n", []sse.Event{{Name: "message", Data: "x"}}},
		{"comments", ":\n: data: x\n:data: x\ndata: y\n:\n\n", []sse.Event{{Name: "message", Data: "y"}}},
		{"cut off", "data: x\n\ndata: y\n", []sse.Event{{Name: "message", Data: "x"}}},
		{"cut off in a line", "data: x\n\ndata: y", []sse.Event{{Name: "message", Data: "x"}}},
		{"nothing", "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, r := range []io.Reader{strings.NewReader(tt.stream), iotest.OneByteReader(strings.NewReader(tt.stream))} {
				got, err := collect(sse.Events(r))
				if err != nil || !slices.Equal(got, tt.want) {
					t.Errorf("got %q, %v, want %q", got, err, tt.want)
				}
			}
		})
	}
}

func collect(events func(func(sse.Event, error) bool)) (all []sse.Event, err error) {
	for event, err := range events {
		if err != nil {
			return all, err
		}
		all = append(all, event)
	}
	return all, nil
}

func TestDecoderKeepsIDAndRetry(t *testing.T) {
	t.Parallel()
	d := sse.Decoder{LastID: "0"}
	read := func(stream string) {
		t.Helper()
		if _, err := collect(d.Events(strings.NewReader(stream))); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(lastID string, retry time.Duration) {
		t.Helper()
		if d.LastID != lastID || d.Retry != retry {
			t.Errorf("got the last id %q and the retry time %v, want %q and %v", d.LastID, d.Retry, lastID, retry)
		}
	}
	read("data: x\n\nretry: 10\n")
	expect("0", 10*time.Millisecond)
	read("id: 1\n\nid: 2\ndata: x\n")
	expect("1", 10*time.Millisecond) // the block with the id 2 was cut off
	read("data: y\n\nretry: 5s\nretry: -1\nretry\nretry: 1 \n")
	expect("1", 10*time.Millisecond)
	read("retry: 99999999999999999999\n")
	expect("1", 1<<63-1)
	read("retry: 20\nid\n\n")
	expect("", 20*time.Millisecond)
}

func TestReadError(t *testing.T) {
	t.Parallel()
	r := io.MultiReader(strings.NewReader("data: x\n\ndata: y\n"), iotest.ErrReader(io.ErrUnexpectedEOF))
	got, err := collect(sse.Events(r))
	if len(got) != 1 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v, want one event and %v", got, err, io.ErrUnexpectedEOF)
	}
}

func TestLongLines(t *testing.T) {
	t.Parallel()
	const limit = 10_000
	line := func(n int) string { return "data:" + strings.Repeat("x", n-len("data:")) }
	tests := []struct {
		name, stream string
		fails        bool
	}{
		{"at the limit", line(limit) + "\r\n\r\n", false},
		{"above the limit", line(limit+1) + "\n\n", true},
		{"far above the limit", line(10 * limit), true},
		{"without a line break", line(limit + 1), true},
		{"data at the limit", line(limit/2+5) + "\n" + line(limit/2+4) + "\n\n", false},
		{"data above the limit", line(limit/2+5) + "\n" + line(limit/2+5) + "\n\n", true},
		{"data of many lines", strings.Repeat(line(limit/10)+"\n", 11) + "\n", true},
		{"comments of many lines", strings.Repeat(":"+line(limit/10)+"\n", 11) + "data:\n\n", false},
	}
	for _, tt := range tests {
		for _, r := range []io.Reader{strings.NewReader(tt.stream), iotest.OneByteReader(strings.NewReader(tt.stream))} {
			d := sse.Decoder{MaxLine: limit}
			got, err := collect(d.Events(r))
			if tt.fails {
				if want := "line or data is too long: more than 10000 bytes"; len(got) != 0 || !errors.Is(err, sse.ErrTooLong) || err.Error() != want {
					t.Errorf("%s: got %d events, %v, want none and %q", tt.name, len(got), err, want)
				}
			} else if len(got) != 1 || err != nil {
				t.Errorf("%s: got %d events, %v, want one", tt.name, len(got), err)
			}
		}
	}
}

// An event is yielded as soon as its last byte has been read, even if that byte is a CR, which an LF may follow.
func TestEventsAreNotDelayed(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"\n\n", "\r\r", "\r\n\r"} {
		r, w := io.Pipe()
		timeout := time.AfterFunc(10*time.Second, func() { _ = w.CloseWithError(errors.New("the event was not yielded within 10 s")) })
		defer timeout.Stop()
		go func() {
			_, _ = io.WriteString(w, "data: x"+end) // the stream remains open
		}()
		for event, err := range sse.Events(r) {
			if err != nil || event.Data != "x" {
				t.Errorf("an event that ends with %q: got %q, %v, want the data x", end, event, err)
			}
			break
		}
		_ = r.Close()
	}
}
