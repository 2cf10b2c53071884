package main_test

import (
	"bytes"
	"context"
	"flag"
	"io"
	"net/http"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	main "rowcast/cmd/rowcast"
	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// atATime is the number of tests that run at a time if there are fewer processors and no -parallel. Most tests wait for
// browsers, other programs or timers. Two at a time would exceed go test's limit of ten minutes.
const atATime = 5

func TestMain(m *testing.M) {
	flag.Parse()
	isSet := false
	flag.Visit(func(f *flag.Flag) { isSet = isSet || f.Name == "test.parallel" })
	if !isSet && runtime.GOMAXPROCS(0) < atATime {
		_ = flag.Set("test.parallel", strconv.Itoa(atATime))
	}
	dbtest.Main(m)
}

// waitLimit is the usual time limit of a wait.
const waitLimit = 30 * time.Second

// schemaVersion is the version of the schema that migrate installs, as text.
var schemaVersion = strconv.FormatInt(sql.Version(), 10)

// environment has the environment variables of the program.
type environment map[string]string

// run runs the program to its end.
func run(t *testing.T, env environment, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	p := start(t, env, args...)
	code = p.wait()
	return code, p.out.String(), p.err.String()
}

// A process is a run of the program rowcast, inside the process of the test.
type process struct {
	t        *testing.T
	out, err *output
	cancel   context.CancelFunc
	ended    chan int
}

// start starts the program. It is stopped at the end of the test.
func start(t *testing.T, env environment, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{t: t, out: newOutput(), err: newOutput(), cancel: cancel, ended: make(chan int, 1)}
	go func() {
		code := main.Run(ctx, args, func(name string) string { return env[name] }, p.out, p.err)
		p.out.close()
		p.err.close()
		p.ended <- code
	}()
	t.Cleanup(func() { p.stop() })
	return p
}

// wait waits until the program has ended and returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case code := <-p.ended:
		p.ended <- code // for the next call
		return code
	case <-time.After(waitLimit):
		p.t.Fatalf("the program has not ended within %v; stderr: %s", waitLimit, p.err)
		return -1
	}
}

// stop ends the context of the program, as a signal does, and waits until the program has ended.
func (p *process) stop() int {
	p.t.Helper()
	p.cancel()
	return p.wait()
}

// output collects what a program writes.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	ended bool
	grown chan struct{} // closed by the next call of Write or close
}

func newOutput() *output { return &output{grown: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.notify()
	return o.text.Write(p)
}

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.notify()
}

func (o *output) notify() {
	close(o.grown)
	o.grown = make(chan struct{})
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await waits until the output matches the pattern, and returns the match and its groups.
func (o *output) await(t testing.TB, pattern string) []string {
	t.Helper()
	expression := regexp.MustCompile(pattern)
	timeout := time.After(waitLimit)
	for {
		o.mu.Lock()
		found, ended, grown := expression.FindStringSubmatch(o.text.String()), o.ended, o.grown
		o.mu.Unlock()
		if found != nil {
			return found
		}
		if ended {
			t.Fatalf("the program has ended; got %q, want a match of %q", o, pattern)
		}
		select {
		case <-grown:
		case <-timeout:
			t.Fatalf("waited %v; got %q, want a match of %q", waitLimit, o, pattern)
		}
	}
}

// A hub is a running rowcast serve.
type hub struct {
	*process
	url string
}

// serve starts a hub with --insecure-uid, and waits until it listens.
func serve(t *testing.T, dsn string, args ...string) *hub {
	t.Helper()
	return startHub(t, dsn, append([]string{"--insecure-uid"}, args...)...)
}

// startHub starts a hub and waits until it listens. The arguments must configure an authentication method.
func startHub(t *testing.T, dsn string, args ...string) *hub {
	t.Helper()
	args = append([]string{"serve", "--listen", "127.0.0.1:0", "--drain", "10ms", "--database-url", dsn}, args...)
	h := &hub{process: start(t, nil, args...)}
	h.url = "http://" + h.err.await(t, `msg"?[=:]"?listening"? ?,?"?addr"?[=:]"?([0-9.:]+)`)[1]
	return h
}

// client does not keep idle connections, so that none outlives a test.
var client = http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}, Timeout: waitLimit}

// streamClient is a client for streams. It limits only the time until an answer begins, because the Timeout of client
// would also end a stream that is open for longer. A test must limit the time in which it reads a stream.
var streamClient = http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true, ResponseHeaderTimeout: waitLimit}}

// An answer is a response whose body has been read.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a request. Headers are given as name, value, name, value.
func ask(t testing.TB, method, url string, headers ...string) answer {
	t.Helper()
	return send(t, method, url, "", headers...)
}

// send sends a request with a body.
func send(t testing.TB, method, url, body string, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	request.Host = request.Header.Get("Host")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(text)}
}

// askUntil repeats a GET request until the body of the answer matches the pattern.
func askUntil(t testing.TB, url, pattern string) answer {
	t.Helper()
	return askFor(t, waitLimit, url, pattern)
}

// askFor is askUntil with another limit.
func askFor(t testing.TB, limit time.Duration, url, pattern string) answer {
	t.Helper()
	expression := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		got := ask(t, http.MethodGet, url)
		if expression.MatchString(got.body) {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v; got %d, %s, want a match of %q", limit, got.status, got.body, pattern)
		}
	}
}

// receive waits for the next value of a channel, and fails the test after waitLimit. ok is false if the channel is
// closed.
func receive[T any](t testing.TB, channel <-chan T, what string) (value T, ok bool) {
	t.Helper()
	select {
	case value, ok = <-channel:
	case <-time.After(waitLimit):
		t.Fatalf("waited %v for %s", waitLimit, what)
	}
	return value, ok
}

// waitFor waits until a condition is true.
func waitFor(t testing.TB, what string, isSo func() bool) {
	t.Helper()
	waitWithin(t, waitLimit, what, isSo)
}

// waitWithin is waitFor with another limit.
func waitWithin(t testing.TB, limit time.Duration, what string, isSo func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !isSo(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", limit, what)
		}
	}
}

// tail starts rowcast tail and waits until its stream has begun.
func (h *hub) tail(t *testing.T, uid string, args ...string) *process {
	t.Helper()
	args = append([]string{"tail", "--verbose", "--json", "--url", h.url + "/events", "--uid", uid}, args...)
	p := start(t, nil, args...)
	p.out.await(t, "rowcast.hello")
	return p
}

// lines splits a text into lines. A line break at the end begins no line.
func lines(text string) []string { return strings.Split(strings.TrimSuffix(text, "\n"), "\n") }
