package demo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rowcast/cmd/internal/database"
	"rowcast/cmd/internal/demo"
	"rowcast/sql/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// timeLimit limits each wait of these tests.
const timeLimit = 30 * time.Second

// TestNamedDatabase shows that the demo installs the schema in the database that the user names and prints a psql command for it.
func TestNamedDatabase(t *testing.T) {
	t.Parallel()
	d := start(t, dbtest.Empty(t), "127.0.0.1:0")
	if want := "not a private database"; !strings.Contains(d.out.String(), want) {
		t.Errorf("the demo prints\n%s\nwant %q", &d.out, want)
	}
	if want := "installed the schema"; !strings.Contains(d.err.String(), want) {
		t.Errorf("the demo prints\n%s\nwant %q", &d.err, want)
	}
	d.runPsql(t, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1'), ('bob', '2')`)
	for user, want := range map[string][]string{"alice": {"1"}, "bob": {"2"}} {
		if got := d.rows(t, user); !slices.Equal(got, want) {
			t.Errorf("%s: the page gets the rows %v, want %v", user, got, want)
		}
	}
}

// TestHidesPassword shows that no password of a connection string is printed or served.
func TestHidesPassword(t *testing.T) {
	t.Parallel()
	dsn, err := url.Parse(dbtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	dsn.User = url.UserPassword(dsn.User.Username(), "secret")
	keyValue := fmt.Sprintf("host=%s port=%s user=%s dbname=%s password=secret",
		dsn.Query().Get("host"), dsn.Query().Get("port"), dsn.User.Username(), dsn.Path[1:])
	for _, dsn := range []string{dsn.String(), keyValue} {
		d := start(t, dsn, "127.0.0.1:0")
		page := d.get(t, "/")
		if shown := d.out.String() + d.err.String() + page.body; page.status != http.StatusOK || strings.Contains(shown, "secret") {
			t.Errorf("status %d; the password is shown:\n%s", page.status, shown)
		}
		d.runPsql(t, "SELECT 1")
	}
}

// TestTakesAnotherPort shows that the demo starts on a free port if the port of its address is in use.
func TestTakesAnotherPort(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	d := start(t, dbtest.Database(t), taken.Addr().String())
	if got, want := d.err.String(), taken.Addr().String()+" is in use"; !strings.Contains(got, want) {
		t.Errorf("the demo prints %q, want %q", got, want)
	}
	if got := d.get(t, "/"); got.status != http.StatusOK {
		t.Errorf("GET /: got status %d, want 200", got.status)
	}
}

// TestServesItsFiles shows that the page's files have the content types that browsers require.
func TestServesItsFiles(t *testing.T) {
	t.Parallel()
	d := start(t, dbtest.Database(t), "127.0.0.1:0")
	for path, want := range map[string]string{
		"/": "text/html", "/demo/demo.js": "text/javascript", "/demo/demo.css": "text/css", "/demo/icon.svg": "image/svg+xml", "/rowcast.js": "text/javascript",
	} {
		if got := d.get(t, path); got.status != http.StatusOK || !strings.HasPrefix(got.header.Get("Content-Type"), want) {
			t.Errorf("%s: got status %d, type %s, want 200, %s", path, got.status, got.header.Get("Content-Type"), want)
		}
	}
	for _, path := range []string{"/demo/index.html", "/demo/..%2fpage.go", "/demo/.", "/demo/"} {
		if got := d.get(t, path); got.status < 400 || got.status >= 500 {
			t.Errorf("%s: got status %d, want 4xx", path, got.status)
		}
	}
}

// TestRefuses shows that the demo refuses requests from pages of other sites. If PostgreSQL refuses a row, the answer
// has its error.
func TestRefuses(t *testing.T) {
	t.Parallel()
	d := start(t, dbtest.Database(t), "127.0.0.1:0")
	const row = `{"recipient": "alice", "event": "notify", "data": "{}"}`
	for name, test := range map[string]struct {
		body    string
		headers []string
		status  int
		text    string
	}{
		"a page whose host name resolves to this machine": {row, []string{"Host", "evil.example"}, http.StatusForbidden, "localhost"},
		"a page of another site":                          {row, []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden, ""},
		"a page of another port":                          {row, []string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden, ""},
		"a page of another origin, in an old browser":     {row, []string{"Origin", "http://evil.example"}, http.StatusForbidden, ""},
		"a reserved event":                                {`{"event": "rowcast.x", "data": "{}"}`, nil, http.StatusUnprocessableEntity, "event_is_not_reserved"},
		"an empty recipient":                              {`{"recipient": "", "event": "x", "data": "{}"}`, nil, http.StatusUnprocessableEntity, "recipient_is_1_to_256_bytes"},
		"an event with a line break":                      {`{"event": "a\nb", "data": "{}"}`, nil, http.StatusUnprocessableEntity, "event_has_no_line_break"},
		"an event with NUL":                               {`{"event": "a\u0000b", "data": "{}"}`, nil, http.StatusUnprocessableEntity, "0x00"},
		"data that is not JSON":                           {`{"event": "x", "data": "{"}`, nil, http.StatusUnprocessableEntity, "invalid input syntax for type json"},
		"a request that is not JSON":                      {`recipient=alice`, nil, http.StatusBadRequest, "read the request"},
		"an unknown field":                                {`{"event": "x", "data": "{}", "id": 1}`, nil, http.StatusBadRequest, "unknown field"},
		"a body above the limit":                          {`{"data": "` + strings.Repeat("x", 17<<20), nil, http.StatusBadRequest, "too large"},
	} {
		got := d.post(t, test.body, test.headers...)
		if got.status != test.status || !strings.Contains(got.body, test.text) {
			t.Errorf("%s: got %d %s, want %d %s", name, got.status, got.body, test.status, test.text)
		}
	}
	if got := d.rows(t, "alice"); got != nil {
		t.Errorf("the refused requests inserted %v", got)
	}
	if got := d.post(t, row, "Sec-Fetch-Site", "same-origin", "Origin", d.url); got.status != http.StatusCreated {
		t.Errorf("the page's own request: got %d %s, want 201", got.status, got.body)
	}
}

// A running is a demo that runs until the end of its test.
type running struct {
	url, psql string // the address of the page, and the psql command line that the demo printed
	out, err  output
}

// start starts a demo on a database and waits until it has printed its commands.
func start(t *testing.T, dsn, listen string) *running {
	t.Helper()
	r := &running{out: output{written: make(chan struct{}, 1)}, err: output{written: make(chan struct{}, 1)}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	d := demo.Demo{Listen: listen, Database: database.Flags{DatabaseURL: dsn}, Out: &r.out, Err: &r.err}
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the demo ended with: %v", err)
			}
		case <-time.After(timeLimit):
			t.Errorf("the demo did not stop within %v", timeLimit)
		}
	})
	timeout := time.After(timeLimit)
	for !strings.Contains(r.out.String(), "Ctrl-C") {
		select {
		case <-r.out.written:
		case err := <-ended:
			ended <- nil
			t.Fatalf("the demo ended before it listened: %v", err)
		case <-timeout:
			t.Fatalf("the demo did not listen within %v; it printed\n%s%s", timeLimit, &r.out, &r.err)
		}
	}
	r.url = regexp.MustCompile(`http://[^/\s]+`).FindString(r.out.String())
	r.psql = strings.TrimSpace(regexp.MustCompile(`(?m)^ *\S*psql .*$`).FindString(r.out.String()))
	return r
}

// An answer is a response whose body has been read.
type answer struct {
	status int
	header http.Header
	body   string
}

func (r *running) get(t *testing.T, path string) answer {
	t.Helper()
	return r.send(t, http.MethodGet, path, "")
}

// post inserts a row as the page does. headers are pairs of a name and a value.
func (r *running) post(t *testing.T, body string, headers ...string) answer {
	t.Helper()
	return r.send(t, http.MethodPost, "/demo/notifications", body, headers...)
}

func (r *running) send(t *testing.T, method, path, body string, headers ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	request.Host, request.Close = request.Header.Get("Host"), true
	response, err := http.DefaultClient.Do(request)
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

// rows returns the data of a user's existing rows, as the page gets them.
func (r *running) rows(t *testing.T, user string) (data []string) {
	t.Helper()
	got := r.get(t, "/demo/notifications?uid="+user)
	var existing struct {
		Cursor string
		Rows   []struct{ Data json.RawMessage }
	}
	if err := json.Unmarshal([]byte(got.body), &existing); got.status != http.StatusOK || err != nil || existing.Cursor == "" {
		t.Fatalf("existing rows: %d %s (%v)", got.status, got.body, err)
	}
	for _, row := range existing.Rows {
		data = append(data, string(row.Data))
	}
	return data
}

// runPsql runs the printed command line in a shell, with a statement as its input.
func (r *running) runPsql(t *testing.T, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", r.psql+" -X -v ON_ERROR_STOP=1")
	cmd.Stdin = strings.NewReader(statement)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", r.psql, err, out)
	}
}

// An output is a writer that several goroutines may use.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	written chan struct{} // receives a value after a write
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.written <- struct{}{}:
	default:
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
