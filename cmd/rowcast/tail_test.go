package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	main "rowcast/cmd/rowcast"
	"rowcast/sql/dbtest"
)

// An event is a line of tail --json.
type event struct {
	Time  time.Time
	ID    string
	Event string
	Data  json.RawMessage

	CreatedAt string `json:"created_at"`
}

// eventsOf returns the events that tail --json has printed, without the hub's own events.
func eventsOf(t *testing.T, out *output) (events []event) {
	t.Helper()
	for _, line := range lines(out.String()) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("a line of tail --json is not JSON: %v: %s", err, line)
		}
		if !strings.HasPrefix(e.Event, "rowcast.") {
			events = append(events, e)
		}
	}
	return events
}

func dataOf(t *testing.T, out *output) (data []string) {
	t.Helper()
	for _, e := range eventsOf(t, out) {
		data = append(data, string(e.Data))
	}
	return data
}

func TestTailPrintsLines(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn)
	tail := start(t, nil, "tail", "--url", h.url+"/events", "--uid", "alice", "--count", "4")
	tail.err.await(t, "connected to "+h.url+"/events\n")
	askUntil(t, h.url+"/metrics", `(?m)^rowcast_streams 1$`)
	runSQL(t, dsn, `NOTIFY rowcast, 'a message'`)
	tail.out.await(t, "a message")
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES
		('bob', 'notify', '0'), ('alice', 'notify', '{"msg": "hi"}'), ('*', DEFAULT, '"\u2028 ü 👩‍👩‍👧"'), ('alice', E'\x1b[2J\t\u202e', '1'), ('alice', 'notify', '2')`)
	if code := tail.wait(); code != 0 {
		t.Errorf("got exit code %d, want 0: %s", code, tail.err)
	}
	want := []string{
		"-  message  \"a message\"",
		"2  notify  {\"msg\": \"hi\"}",
		"3  message  \"\\u2028 ü 👩‍👩‍👧\"",
		"4  \\u001b[2J\\u0009\\u202e  1",
	}
	got := lines(tail.out.String())
	stamp := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  `)
	for i, line := range got {
		if !stamp.MatchString(line) {
			t.Errorf("%q does not begin with a time", line)
		}
		got[i] = stamp.ReplaceAllString(line, "")
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestTailPrintsJSON(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	tail := serve(t, dsn).tail(t, "alice")
	runSQL(t, dsn, `NOTIFY rowcast, 'a message'`)
	tail.out.await(t, "a message")
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, event, data, created_at)
		VALUES ('*', 'notify', '{"msg": "<hi>"}', '2026-11-29 02:34:02.123999+01')`)
	tail.out.await(t, `"event":"notify"`)
	events := eventsOf(t, tail.out)
	if len(events) != 2 {
		t.Fatalf("got %v, want two events", events)
	}
	if e := events[0]; e.ID != "" || e.CreatedAt != "" || e.Event != "message" || string(e.Data) != `"a message"` || time.Since(e.Time) > time.Minute {
		t.Errorf("got %+v, want an event with the name message, no id, no created_at, the data \"a message\", and a time within the last minute", e)
	}
	var data struct{ Msg string }
	if e := events[1]; !strings.HasPrefix(e.ID, "1-") || json.Unmarshal(e.Data, &data) != nil || data.Msg != "<hi>" || e.CreatedAt != "2026-11-29T01:34:02.123Z" {
		t.Errorf("got %+v, want row 1 with the msg <hi> and its created_at in whole milliseconds", e)
	}
}

// A hub is stopped and another one is started at the same address. Rows that were committed meanwhile arrive, and no
// row is repeated.
func TestTailResumes(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	// The port is reserved, because a client of another test could get a free port as its own while no hub listens.
	address := freeAddress(t)
	h := serve(t, dsn, "--retry", "100ms", "--listen", address)
	tail := h.tail(t, "alice")
	insert := func(n int) {
		runSQL(t, dsn, fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '%d'), ('bob', '0')`, n))
	}
	insert(1)
	tail.out.await(t, `"data":1}`)
	for n := 2; n < 8; n += 2 {
		h.stop()
		insert(n)
		h = serve(t, dsn, "--retry", "100ms", "--listen", address)
		tail.out.await(t, fmt.Sprintf(`"data":%d}`, n))
		insert(n + 1)
		tail.out.await(t, fmt.Sprintf(`"data":%d}`, n+1))
	}
	if got, want := fmt.Sprint(dataOf(t, tail.out)), "[1 2 3 4 5 6 7]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if code := tail.stop(); code != 0 {
		t.Errorf("after the stop: got exit code %d, want 0", code)
	}
	tail.err.await(t, `the stream has ended; reconnecting in \d`)
	tail.err.await(t, `connected to `+h.url+`/events, resuming after row \d+\n`)

	last := eventsOf(t, tail.out)[4].ID // of row 5; a new tail resumes after it
	again := start(t, nil, "tail", "--json", "--url", h.url+"/events", "--uid", "alice", "--last-event-id", last, "--count", "2")
	if code := again.wait(); code != 0 || fmt.Sprint(dataOf(t, again.out)) != "[6 7]" {
		t.Errorf("resumed from %s: got exit code %d, %s, want 0 and the rows 6 and 7", last, code, again.out)
	}
}

func TestTailReportsResets(t *testing.T) {
	t.Parallel()
	h := serve(t, dbtest.Database(t))
	tail := h.tail(t, "alice", "--last-event-id", "yesterday")
	tail.err.await(t, `connected to .*, resuming after row yesterday\n`)
	tail.err.await(t, `the hub cannot continue the stream, so events may be missing: {"reason": "malformed"}\n`)
	tail.out.await(t, `"event":"rowcast.reset"`)
}

// script starts a server that answers each request with the next of its parts. After the last part it answers 404, so
// that tail ends.
func script(t *testing.T, parts ...func(w http.ResponseWriter, r *http.Request)) string {
	t.Helper()
	next := make(chan func(http.ResponseWriter, *http.Request), len(parts))
	for _, part := range parts {
		next <- part
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case part := <-next:
			part(w, r)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// streamOf returns a handler that answers with text as an event stream.
func streamOf(text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, text)
	}
}

// After a stream that is cut off, the status 503 or 429, or a closed connection, tail reconnects with the id of the
// last complete event and with its credentials.
func TestTailReconnects(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var ids []string
	visit := func(answer func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Authorization"); got != "Bearer abc" {
				t.Errorf("the hub received the Authorization %q, want Bearer abc", got)
			}
			mu.Lock()
			ids = append(ids, r.Header.Get("Last-Event-ID"))
			mu.Unlock()
			answer(w, r)
		}
	}
	url := script(t,
		visit(streamOf("retry: 1\n\nid: 1\ndata: 1\n\nid: 2\ndata: 2\n")), // cut off
		visit(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "later", http.StatusServiceUnavailable) }),
		visit(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
		visit(streamOf("id: 2\ndata: 2\n\nid: 3\n\n")),
		visit(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusTooManyRequests) }),
		visit(streamOf("data: a message\n\n")),
	)
	code, stdout, stderr := run(t, environment{"ROWCAST_TOKEN": "abc"}, "tail", "--json", "--url", url)
	if got, want := fmt.Sprintf("%q", ids), `["" "1" "1" "1" "3" "3"]`; code != 1 || got != want {
		t.Errorf("got exit code %d and the Last-Event-IDs %s, want 1 and %s", code, got, want)
	}
	for i, want := range []string{`"id":"1","event":"message","data":1}`, `"id":"2","event":"message","data":2}`, `"event":"message","data":"a message"}`} {
		if line := lines(stdout)[i]; !strings.HasSuffix(line, want) {
			t.Errorf("got the line %s, want %s at the end", line, want)
		}
	}
	for _, want := range []string{
		"rowcast: " + url + " answered 503 Service Unavailable: later; reconnecting in ",
		"rowcast: " + url + " answered 429 Too Many Requests; reconnecting in ",
		"rowcast: connected to " + url + ", resuming after row 3\n",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("stderr is %s, want %q in it", stderr, want)
		}
	}
}

// A fullDisk is a file on a disk without space.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// If an event cannot be printed, tail ends with an error and does not reconnect.
func TestTailCannotPrint(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"--json", "--verbose"} {
		url := script(t, streamOf("event: rowcast.hello\ndata: {}\n\nid: 1\ndata: 1\n\n"))
		ctx, stop := context.WithTimeout(t.Context(), waitLimit)
		defer stop()
		stderr := newOutput()
		code := main.Run(ctx, []string{"tail", flag, "--url", url}, func(string) string { return "" }, fullDisk{}, stderr)
		want := "rowcast: connected to " + url + "\nrowcast: cannot print an event: no space left on device\n"
		if code != 1 || stderr.String() != want {
			t.Errorf("%s: got exit code %d, %q, want 1, %q", flag, code, stderr, want)
		}
	}
}

// tail closes a connection on which no data arrives for three heartbeat intervals, but not before 1 s has passed.
func TestTailNoticesSilence(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	url := script(t, func(w http.ResponseWriter, r *http.Request) {
		streamOf("event: rowcast.hello\ndata: {\"heartbeat\": 0.01}\n\n")(w, r)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(gone)
	})
	began := time.Now()
	tail := start(t, nil, "tail", "--url", url)
	tail.err.await(t, "no data from the hub for too long; reconnecting in ")
	select {
	case <-gone:
	case <-time.After(waitLimit):
		t.Errorf("the connection is still open after %v", waitLimit)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("the connection was closed after %v, want at least 1s", took)
	}
	if code := tail.stop(); code != 0 {
		t.Errorf("after the stop: got exit code %d, want 0", code)
	}
}

// A comment in the stream shows that the connection is alive, so tail keeps the connection open.
func TestTailCommentsShowLife(t *testing.T) {
	t.Parallel()
	url := script(t, func(w http.ResponseWriter, r *http.Request) {
		streamOf("event: rowcast.hello\ndata: {\"heartbeat\": 2}\n\n")(w, r)
		ticker := time.NewTicker(1500 * time.Millisecond) // all pauses together are longer than the limit of 6 s, and each pause is shorter
		defer ticker.Stop()
		for range 5 {
			_, _ = io.WriteString(w, ":\n")
			w.(http.Flusher).Flush()
			<-ticker.C
		}
		streamOf("data: 1\n\n")(w, r)
	})
	code, stdout, stderr := run(t, nil, "tail", "--url", url, "--count", "1")
	if want := "rowcast: connected to " + url + "\n"; code != 0 || !strings.HasSuffix(stdout, "  message  1\n") || stderr != want {
		t.Errorf("got %d, %q, %q, want 0, the message 1 at the end, and %q", code, stdout, stderr, want)
	}
}

// If --url begins with https:// and the server speaks no TLS, the error says what to write.
func TestTailExplainsHTTPSWithoutTLS(t *testing.T) {
	t.Parallel()
	url := script(t, streamOf("data: 1\n\n"))
	tail := start(t, nil, "tail", "--url", strings.Replace(url, "http:", "https:", 1))
	tail.err.await(t, `^rowcast: http: server gave HTTP response to HTTPS client: write http:// in --url, because a hub speaks no TLS; reconnecting in \d(\.\d)?s\n`)
	if code := tail.stop(); code != 0 {
		t.Errorf("after the stop: got exit code %d, want 0", code)
	}
}

// While no hub listens, tail keeps trying, and its error names the address and says what is probably missing.
func TestTailWaitsForAHub(t *testing.T) {
	t.Parallel()
	tail := start(t, nil, "tail", "--url", "http://127.0.0.1:1/events", "--uid", "alice")
	tail.err.await(t, `^rowcast: dial tcp 127.0.0.1:1: connect: connection refused: is rowcast serve running at this address\?; reconnecting in \d(\.\d)?s\n`)
	if code := tail.stop(); code != 0 {
		t.Errorf("after the stop: got exit code %d, want 0", code)
	}
}
