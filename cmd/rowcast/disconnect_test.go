package main_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"rowcast/sql/dbtest"
)

// A hubWithAdmin has an address of its own for administrators.
type hubWithAdmin struct {
	*hub
	admin string
}

func serveWithAdmin(t *testing.T, dsn string, args ...string) hubWithAdmin {
	t.Helper()
	h := serve(t, dsn, append([]string{"--admin-listen", "127.0.0.1:0"}, args...)...)
	return hubWithAdmin{h, "http://" + h.err.await(t, `admin_addr=([0-9.:]+)`)[1]}
}

// post sends a body, of some type, with headers: name, value.
func post(t *testing.T, url, kind, body string, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", kind)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
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

const form = "application/x-www-form-urlencoded"

// Ending a user's streams at one hub ends them at all, and nobody else's. Whoever is still let in comes back.
func TestDisconnectOnEveryHub(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	first := serveWithAdmin(t, dsn, "--no-notify-messages", "--retry", "100ms")
	second := serve(t, dsn, "--retry", "100ms")
	alices := []*process{first.tail(t, "alice"), first.tail(t, "alice"), second.tail(t, "alice")}
	bobs := []*process{first.tail(t, "bob"), second.tail(t, "bob")}
	const bye = `"event":"rowcast.bye","data":{"reason": ?"disconnected", ?"expires_in": ?0}`
	got := ask(t, "POST", first.admin+"/disconnect?recipient=alice")
	if want := "{\"recipient\":\"alice\",\"disconnected\":2}\n"; got.status != 200 || got.body != want || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("got %+v, want %s", got, want)
	}
	for _, tail := range alices {
		tail.out.await(t, `(?s)rowcast.hello.*`+bye+`.*rowcast.hello`)
	}
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (data) VALUES ('1')`, `SELECT pg_notify('rowcast.disconnect', 'bob')`)
	for _, tail := range alices {
		tail.out.await(t, `"data":1}`)
	}
	for _, tail := range bobs {
		tail.out.await(t, `(?s)"data":1}.*`+bye)
		if got := strings.Count(tail.out.String(), "rowcast.bye"); got != 1 {
			t.Errorf("bob was disconnected %d times: %s", got, tail.out)
		}
	}
	for _, h := range []string{first.admin, second.url} {
		askUntil(t, h+"/metrics", `(?m)^rowcast_disconnected_total [1-9]`)
	}
}

// It takes a user or a group key, in any usual form, and says what is wrong with all else. Pages cannot ask for it, and without an
// address for administrators nobody can.
func TestDisconnectRequests(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serveWithAdmin(t, dsn)
	const wrong = "say whose streams to end, as recipient=alice or {\"recipient\": \"alice\"}: a user, or a group key\n"
	tests := []struct {
		name, query, kind, body string
		headers                 []string
		status                  int
		want                    string
	}{
		{name: "in the query", query: "?recipient=alice", status: 200, want: `{"recipient":"alice","disconnected":0}` + "\n"},
		{name: "in a form", kind: form, body: "recipient=team%3A7", status: 200, want: `{"recipient":"team:7","disconnected":0}` + "\n"},
		{name: "in JSON", kind: "application/json; charset=utf-8", body: `{"recipient": "é\r\n"}`, status: 200, want: `{"recipient":"é\r\n","disconnected":0}` + "\n"},
		{name: "none", status: 400, want: wrong},
		{name: "empty", query: "?recipient=", status: 400, want: wrong},
		{name: "too long", query: "?recipient=" + strings.Repeat("x", 257), status: 400, want: wrong},
		{name: "with NUL", query: "?recipient=a%00", status: 400, want: wrong},
		{name: "not UTF-8", query: "?recipient=%ff", status: 400, want: wrong},
		{name: "not JSON", kind: "application/json", body: `recipient=alice`, status: 400, want: wrong},
		{name: "a million bytes", kind: form, body: "recipient=" + strings.Repeat("x", 1<<20), status: 400, want: wrong},
		{name: "a million bytes of JSON", kind: "application/json", body: `{"recipient": "` + strings.Repeat("x", 1<<20) + `"}`, status: 400, want: wrong},
		{name: "from a page", kind: form, body: "recipient=alice", headers: []string{"Sec-Fetch-Site", "cross-site"}, status: 403},
		{name: "from a page in an old browser", kind: form, body: "recipient=alice", headers: []string{"Origin", "https://evil.example"}, status: 403},
	}
	for _, tt := range tests {
		got := post(t, h.admin+"/disconnect"+tt.query, tt.kind, tt.body, tt.headers...)
		if got.status != tt.status || tt.want != "" && got.body != tt.want {
			t.Errorf("%s: got %d, %q, want %d, %q", tt.name, got.status, got.body, tt.status, tt.want)
		}
	}
	if got := ask(t, "GET", h.admin+"/disconnect?recipient=alice"); got.status != 405 || got.header.Get("Allow") != "POST" {
		t.Errorf("GET: got %+v", got)
	}
	alone := serve(t, dsn)
	for _, public := range []string{h.url, alone.url} {
		if got := ask(t, "POST", public+"/disconnect?recipient=alice"); got.status != 404 {
			t.Errorf("at the public address: got %d, want 404", got.status)
		}
	}
}

// A hub that polls hears of no other's, but can tell the others, through a pooler, too.
func TestDisconnectThroughAPooler(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	polls := serveWithAdmin(t, pooler(t, dsn), "--poll")
	listens := serve(t, dsn)
	here, there := polls.tail(t, "alice"), listens.tail(t, "alice")
	if got := ask(t, "POST", polls.admin+"/disconnect?recipient=alice"); got.status != 200 || !strings.Contains(got.body, `"disconnected":1}`) {
		t.Errorf("got %+v", got)
	}
	here.out.await(t, "rowcast.bye")
	there.out.await(t, "rowcast.bye")
}

// While PostgreSQL is away, the streams here end, and the answer says that the others could not be told.
func TestDisconnectWithoutPostgres(t *testing.T) {
	t.Parallel()
	server := dbtest.Cluster(t)
	dsn := server.DSN("postgres")
	migrate(t, dsn)
	h := serveWithAdmin(t, dsn)
	tail := h.tail(t, "alice")
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := ask(t, "POST", h.admin+"/disconnect?recipient=alice")
	want := `{"recipient":"alice","disconnected":1,"error":"the other hubs could not be told: PostgreSQL does not answer; try again"}` + "\n"
	if got.status != 503 || got.body != want {
		t.Errorf("got %+v, want %s", got, want)
	}
	tail.out.await(t, "rowcast.bye")
}
