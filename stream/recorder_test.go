package stream_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"rowcast/stream"
	"rowcast/stream/sse"
)

// A recorder opens a stream without a socket, so it works in a synctest bubble. It records each write and its time.
type recorder struct {
	done  chan struct{} // closed when the stream has ended
	leave context.CancelFunc

	mu     sync.Mutex
	header http.Header
	code   int
	writes []written
	gate   chan struct{} // if not nil, writes and flushes wait until gate is closed
	failed error         // if not nil, writes fail with it
}

type written struct {
	at   time.Duration // the time since the stream was opened
	text string
}

// record opens a stream for the recipients from a cursor, or without one if id is empty. The stream is closed at the
// end of the test.
func record(t *testing.T, s *site, id string, recipients ...string) *recorder {
	return recordGrant(t, s, id, stream.Grant{Groups: recipients})
}

func recordGrant(t *testing.T, s *site, id string, grant stream.Grant) *recorder {
	r := newRecorder()
	r.begin(t, s, id, grant)
	return r
}

// recordStalled is like record, but writes and flushes wait until resumeWrites is called.
func recordStalled(t *testing.T, s *site, id string, recipients ...string) (r *recorder, resumeWrites func()) {
	r = newRecorder()
	resumeWrites = r.stall()
	r.begin(t, s, id, stream.Grant{Groups: recipients})
	return r, resumeWrites
}

// recordPoll is like recordGrant, but polls.
func recordPoll(t *testing.T, s *site, id string, grant stream.Grant) *recorder {
	r := newRecorder()
	r.request(t, s, "/?poll=1", id, grant)
	return r
}

func newRecorder() *recorder {
	return &recorder{done: make(chan struct{}), header: make(http.Header)}
}

func (r *recorder) begin(t *testing.T, s *site, id string, grant stream.Grant) {
	r.request(t, s, "/", id, grant)
}

func (r *recorder) request(t *testing.T, s *site, url, id string, grant stream.Grant) {
	ctx, leave := context.WithCancel(t.Context())
	r.leave = leave
	request := httptest.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	request.ProtoMajor = 2 // over HTTP/2, Serve writes through the recording
	if id != "" {
		request.Header.Set("Last-Event-ID", id)
	}
	began := time.Now()
	go func() {
		defer close(r.done)
		s.hub.Serve(&recording{r, began}, request, grant)
	}()
}

// A recording is the http.ResponseWriter of a recorder.
type recording struct {
	*recorder
	began time.Time
}

func (r *recording) Header() http.Header    { return r.header }
func (r *recording) WriteHeader(status int) { r.setStatus(status) }

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
	if r.failed != nil {
		return 0, r.failed
	}
	r.writes = append(r.writes, written{time.Since(r.began), string(b)})
	return len(b), nil
}

// awaitEnd waits until the stream has ended, for at most an hour, and checks that it has only whole blocks. In a
// synctest bubble, the hour takes no real time.
func (r *recorder) awaitEnd(t *testing.T) {
	t.Helper()
	select {
	case <-r.done:
		wantWholeBlocks(t, r.text())
	case <-time.After(time.Hour):
		t.Errorf("the stream is still open after an hour, want its end; it received %q", r.text())
	}
}

// stall makes writes and flushes wait until resumeWrites is called.
func (r *recorder) stall() (resumeWrites func()) {
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

// disconnect makes writes fail and ends the context of the request, as net/http does when a connection fails.
func (r *recorder) disconnect() {
	r.mu.Lock()
	r.failed = net.ErrClosed
	r.mu.Unlock()
	r.leave()
}

// times returns the times of the writes that contain text.
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

// text returns everything that was written.
func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all strings.Builder
	for _, w := range r.writes {
		all.WriteString(w.text)
	}
	return all.String()
}

// events returns all events except rowcast.void and rowcast.hello.
func (r *recorder) events() (events []sse.Event) {
	for e, err := range sse.Events(strings.NewReader(r.text())) {
		if err != nil {
			panic(err) // reading from a string does not fail
		}
		if e.Name != "rowcast.void" && e.Name != "rowcast.hello" {
			events = append(events, e)
		}
	}
	return events
}

func (r *recorder) setStatus(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.code = status
}

// status returns the status of the response.
func (r *recorder) status() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.code
}
