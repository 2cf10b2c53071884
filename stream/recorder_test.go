package stream_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"rowcast/stream"
	"rowcast/stream/sse"
)

// A recorder is a stream without a socket, so that its time can be that of a synctest bubble: it notes what is written when.
type recorder struct {
	done  chan struct{} // the stream has ended
	leave context.CancelFunc

	mu     sync.Mutex
	header http.Header
	writes []written
	gate   chan struct{} // if not nil, who writes or flushes waits for it to be closed
}

type written struct {
	at   time.Duration // since the stream was opened
	text string
}

// record opens a stream for the recipients from a cursor, "" for none. It ends with the test at the latest.
func record(t *testing.T, s *site, id string, recipients ...string) *recorder {
	return recordGrant(t, s, id, stream.Grant{Groups: recipients})
}

func recordGrant(t *testing.T, s *site, id string, grant stream.Grant) *recorder {
	r := newRecorder()
	r.begin(t, s, id, grant)
	return r
}

// recordStalled is record, but even the first write waits until goOn is called.
func recordStalled(t *testing.T, s *site, id string, recipients ...string) (r *recorder, goOn func()) {
	r = newRecorder()
	goOn = r.stall()
	r.begin(t, s, id, stream.Grant{Groups: recipients})
	return r, goOn
}

func newRecorder() *recorder {
	return &recorder{done: make(chan struct{}), header: make(http.Header)}
}

func (r *recorder) begin(t *testing.T, s *site, id string, grant stream.Grant) {
	ctx, leave := context.WithCancel(t.Context())
	r.leave = leave
	request := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	request.ProtoMajor = 2 // not to be hijacked
	if id != "" {
		request.Header.Set("Last-Event-ID", id)
	}
	began := time.Now()
	go func() {
		defer close(r.done)
		s.hub.Serve(&recording{r, began}, request, grant)
	}()
}

// recording is a recorder's side towards the hub.
type recording struct {
	*recorder
	began time.Time
}

func (r *recording) Header() http.Header { return r.header }
func (r *recording) WriteHeader(int)     {}

func (r *recording) Flush() {
	r.mu.Lock()
	gate := r.gate
	r.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

func (r *recording) Write(b []byte) (int, error) {
	r.Flush()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes = append(r.writes, written{time.Since(r.began), string(b)})
	return len(b), nil
}

// awaitEnd returns when the stream has ended. In a bubble, a stream that goes on costs no time.
func (r *recorder) awaitEnd(t *testing.T) {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(time.Hour):
		t.Errorf("waited an hour for the end of the stream: %q", r.text())
	}
}

// stall makes writing wait until what it returns is called.
func (r *recorder) stall() (goOn func()) {
	gate := make(chan struct{})
	r.mu.Lock()
	r.gate = gate
	r.mu.Unlock()
	return func() {
		r.mu.Lock()
		r.gate = nil
		r.mu.Unlock()
		close(gate)
	}
}

// times are when something was written that contains text.
func (r *recorder) times(text string) (at []time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.writes {
		if strings.Contains(w.text, text) {
			at = append(at, w.at)
		}
	}
	return at
}

// text is everything that was written.
func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all strings.Builder
	for _, w := range r.writes {
		all.WriteString(w.text)
	}
	return all.String()
}

// events are those that were written after the hello.
func (r *recorder) events() (events []sse.Event) {
	for e, err := range sse.Events(strings.NewReader(r.text())) {
		if err != nil {
			panic(err) // a string does not fail
		}
		if e.Name != "rowcast.hello" {
			events = append(events, e)
		}
	}
	return events
}
