package main_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"rowcast/stream"
)

// A stage is a page with rowcast.js, and the server of the page. The test or a handler answers each request for a
// stream.
type stage struct {
	*httptest.Server
	page
	visits chan *visit
}

// A visit is a request for a stream. Its answer ends when the channel end is closed.
type visit struct {
	t       *testing.T
	request *http.Request
	answer  http.ResponseWriter
	arrived time.Time
	end     chan struct{}
}

const stageHTML = `<!doctype html><script type="module">
	import { RowcastSource } from "/rowcast.js";
	Object.assign(window, { heard: [], states: [], RowcastSource });
	window.listen = (url, options) => {
		window.stream = new RowcastSource(url, options);
		stream.onevent = ({ name, data }) => heard.push([name, data]);
		stream.onstate = ({ state, reason, status }) => states.push([state, reason ?? status].filter(Boolean).join(" "));
	};
</script>`

func newStage(t *testing.T) *stage {
	s := &stage{visits: make(chan *visit)}
	s.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &visit{t: t, request: r, answer: w, arrived: time.Now(), end: make(chan struct{})}
		select {
		case s.visits <- v:
			<-v.end
		case <-r.Context().Done():
		}
	}))
	return s
}

// newStageWith returns a stage whose requests for a stream are answered by the given handler.
func newStageWith(t *testing.T, events http.Handler) *stage {
	s := &stage{}
	s.serve(t, events)
	return s
}

func (s *stage) serve(t *testing.T, events http.Handler) {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, stageHTML)
	})
	mux.HandleFunc("/rowcast.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = w.Write(stream.Script)
	})
	mux.Handle("/events", events)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
}

// listen makes the page open a stream. options is a JavaScript expression.
func (s *stage) listen(options string) {
	s.t.Helper()
	s.await("window.listen")
	value[bool](s.page, fmt.Sprintf("listen('/events', %s), true", options))
}

// next returns the next request for a stream.
func (s *stage) next() *visit {
	s.t.Helper()
	select {
	case v := <-s.visits:
		s.t.Cleanup(v.leave)
		return v
	case <-time.After(browserLimit):
		s.t.Fatalf("the browser opened no stream within %v", browserLimit)
		return nil
	}
}

// quiet fails the test if the browser requests a stream within d.
func (s *stage) quiet(d time.Duration) {
	s.t.Helper()
	select {
	case v := <-s.visits:
		close(v.end)
		s.t.Errorf("the browser opened the stream %s, want none for %v", v.request.URL, d)
	case <-time.After(d):
	}
}

// refuse answers with a status. headers are given as name, value, name, value.
func (v *visit) refuse(status int, headers ...string) {
	for i := 0; i < len(headers); i += 2 {
		v.answer.Header().Set(headers[i], headers[i+1])
	}
	v.answer.WriteHeader(status)
	v.leave()
}

// greet begins a stream with rowcast.void and rowcast.hello, and then writes the texts in more.
func (v *visit) greet(cursor string, heartbeat time.Duration, more ...string) {
	v.answer.Header().Set("Content-Type", "text/event-stream")
	v.send(fmt.Sprintf(":\nevent: rowcast.void\ndata: {}\nid: %[1]s\n\nretry: 10\nevent: rowcast.hello\ndata: {\"recipients\": [], \"heartbeat\": %[2]g}\nid: %[1]s\n\n",
		cursor, heartbeat.Seconds()) + strings.Join(more, ""))
}

func (v *visit) send(text string) {
	v.t.Helper()
	_, err := io.WriteString(v.answer, text)
	if err == nil {
		err = http.NewResponseController(v.answer).Flush()
	}
	if err != nil {
		v.t.Error(err)
	}
}

// leave ends the answer, and with it the stream.
func (v *visit) leave() {
	select {
	case <-v.end:
	default:
		close(v.end)
	}
}

// gone waits until the browser has closed the stream.
func (v *visit) gone() {
	v.t.Helper()
	select {
	case <-v.request.Context().Done():
	case <-time.After(browserLimit):
		v.t.Errorf("the browser has not closed the stream within %v", browserLimit)
	}
}

func (v *visit) wantCursor(want string) {
	v.t.Helper()
	got := v.request.Header.Get("Last-Event-ID")
	if got == "" {
		got = v.request.URL.Query().Get("last_event_id")
	}
	if got != want {
		v.t.Errorf("the stream resumes from %q, want %q", got, want)
	}
}

func (s *stage) want(variable string, want any) {
	s.t.Helper()
	if got := value[any](s.page, variable); !reflect.DeepEqual(got, want) {
		s.t.Errorf("%s: got %v, want %v", variable, got, want)
	}
}
