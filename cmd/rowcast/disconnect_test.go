package main_test

import (
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
		askUntil(t, h+"/metrics", `(?m)^rowcast_streams_disconnected_total [1-9]`)
	}
}

// It takes a user or a group's key, said in one way, and says what is wrong with all else; then nobody's stream has ended.
func TestDisconnectRequests(t *testing.T) {
	t.Parallel()
	h := serveWithAdmin(t, dbtest.Database(t))
	alice := h.tail(t, "alice")
	const (
		form, inJSON = "application/x-www-form-urlencoded", "application/json"
		noForm       = "the form cannot be read: it should be recipient=alice, percent-encoded\n"
		noJSON       = `the body should be {"recipient": "alice"}, and nothing else` + "\n"
		noKind       = `the body should be a form, recipient=alice, or application/json, {"recipient": "alice"}` + "\n"
		nobody       = "say whose streams to end: recipient=alice, a user or a group's key\n"
		once         = "give recipient once, in the query or in the body\n"
		onlyThat     = "recipient is all that can be said: leave the rest out\n"
		tooLong      = "the body is longer than 4 KiB: it should say recipient=alice, and nothing else\n"
	)
	many := strings.Repeat("x", 1<<20)
	for _, tt := range []struct {
		name, query, kind, body string
		status                  int
		want                    string
	}{
		{"in the query", "?recipient=bob", "", "", 200, `{"recipient":"bob","disconnected":0}` + "\n"},
		{"in the query, with an empty form", "?recipient=bob", form, "", 200, `{"recipient":"bob","disconnected":0}` + "\n"},
		{"in a form", "", form + ";charset=UTF-8", "recipient=team%3A7", 200, `{"recipient":"team:7","disconnected":0}` + "\n"},
		{"in JSON", "", inJSON + "; charset=utf-8", ` { "recipient" : "\u00e9 \"\ud83d\ude00" } `, 200, `{"recipient":"é \"😀","disconnected":0}` + "\n"},

		{"nobody", "", "", "", 400, nobody},
		{"another key", "?uid=alice", "", "", 400, onlyThat},
		{"another key besides", "?recipient=alice&dry_run=1", "", "", 400, onlyThat},
		{"in other letters", "?Recipient=alice", "", "", 400, onlyThat},
		{"twice", "?recipient=alice&recipient=bob", "", "", 400, once},
		{"twice the same", "?recipient=alice&recipient=alice", "", "", 400, once},
		{"in the query and a form", "?recipient=alice", form, "recipient=alice", 400, once},
		{"in the query and JSON", "?recipient=alice", inJSON, `{"recipient": "bob"}`, 400, once},
		{"empty", "?recipient=", "", "", 400, "the recipient is empty\n"},
		{"too long", "?recipient=" + many[:257], "", "", 400, "the recipient is longer than 256 bytes\n"},
		{"with NUL", "?recipient=alice%00", "", "", 400, "the recipient contains a control character\n"},
		{"with a line's end, as echo makes it", "", form, "recipient=alice%0A", 400, "the recipient contains a control character\n"},
		{"not UTF-8", "?recipient=alice%ff", "", "", 400, "the recipient is not valid UTF-8\n"},
		{"not percent-encoded", "?recipient=alice%zz", "", "", 400, "the query cannot be read: it should be recipient=alice, percent-encoded\n"},
		{"with a semicolon", "?recipient=alice;a=b", "", "", 400, "the query cannot be read: it should be recipient=alice, percent-encoded\n"},

		{"a form twice", "", form, "recipient=alice&recipient=bob", 400, once},
		{"a form of JSON", "", form, `{"recipient": "alice"}`, 400, onlyThat},
		{"a form that cannot be read", "", form, "recipient=alice&%", 400, noForm},
		{"a form of a million bytes", "", form, "recipient=" + many, 413, tooLong},
		{"JSON of a million bytes", "", inJSON, `{"recipient": "` + many + `"}`, 413, tooLong},
		{"JSON with a million blanks", "", inJSON, `{"recipient": "alice"}` + strings.Repeat(" ", 1<<20), 413, tooLong},
		{"no JSON", "", inJSON, "recipient=alice", 400, noJSON},
		{"JSON without an end", "", inJSON, `{"recipient": "alice"`, 400, noJSON},
		{"JSON without an end, and more", "", inJSON, `{"recipient": "alice", "recipient"`, 400, noJSON},
		{"JSON and more", "", inJSON, `{"recipient": "alice"} {"recipient": "bob"}`, 400, noJSON},
		{"JSON and garbage", "", inJSON, `{"recipient": "alice"}]`, 400, noJSON},
		{"JSON twice", "", inJSON, `{"recipient": "alice", "recipient": "alice"}`, 400, noJSON},
		{"JSON with another key", "", inJSON, `{"recipient": "alice", "dry_run": true}`, 400, noJSON},
		{"JSON in other letters", "", inJSON, `{"RECIPIENT": "alice"}`, 400, noJSON},
		{"JSON of several", "", inJSON, `{"recipient": ["alice"]}`, 400, noJSON},
		{"JSON of nobody", "", inJSON, `{"recipient": null}`, 400, noJSON},
		{"JSON in a list", "", inJSON, `["recipient", "alice"]`, 400, noJSON},
		{"JSON with half a letter", "", inJSON, `{"recipient": "alice\ud800"}`, 400, "the recipient is not valid UTF-8\n"},
		{"without a type", "", "", "recipient=alice", 415, noKind},
		{"as text", "", "text/plain", "recipient=alice", 415, noKind},
		{"as parts", "", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"recipient\"\r\n\r\nalice\r\n--x--\r\n", 415, noKind},
		{"of two types", "", "application/json, text/plain", `{"recipient": "alice"}`, 415, noKind},
	} {
		got := send(t, "POST", h.admin+"/disconnect"+tt.query, tt.body, "Content-Type", tt.kind)
		if got.status != tt.status || got.body != tt.want {
			t.Errorf("%s: got %d, %q, want %d, %q", tt.name, got.status, got.body, tt.status, tt.want)
		}
	}
	if got := ask(t, "GET", h.admin+"/disconnect?recipient=alice"); got.status != 405 || got.header.Get("Allow") != "POST" {
		t.Errorf("GET: got %+v", got)
	}
	h.wantUndisturbed(t, alice)
}

// wantUndisturbed wants nobody to have been disconnected, and a stream of alice's to be the same as at first.
func (h hubWithAdmin) wantUndisturbed(t *testing.T, alice *process) {
	t.Helper()
	if got := metric(t, h.admin, "rowcast_streams_disconnected_total"); got != 0 {
		t.Errorf("%v streams were ended, want none", got)
	}
	if got := send(t, "POST", h.admin+"/disconnect?recipient=alice", ""); got.body != `{"recipient":"alice","disconnected":1}`+"\n" {
		t.Errorf("got %+v, want alice's stream to have been there", got)
	}
	alice.out.await(t, "rowcast.bye")
}

// No page can make the browser of somebody who reaches the administrators' address ask for that: neither from its own origin, nor
// under a name that it lets resolve to this machine. Programs can, as Node's fetch, which sends a part of what browsers do.
func TestAttackDisconnectFromAPage(t *testing.T) {
	t.Parallel()
	h := serveWithAdmin(t, dbtest.Database(t))
	alice := h.tail(t, "alice")
	const page = "no page may ask for this: it is for your app's server\n"
	const rebound = "this address answers only as localhost or 127.0.0.1\n"
	for _, tt := range []struct {
		name    string
		headers []string
		want    string
	}{
		{"a form of another site", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, page},
		{"a form of another site, in an old browser", []string{"Origin", "https://evil.example"}, page},
		{"a form from a frame without an origin", []string{"Origin", "null"}, page},
		{"a page of another port", []string{"Origin", "http://127.0.0.1:1", "Sec-Fetch-Site", "same-site"}, page},
		{"a page that claims to be from here", []string{"Origin", h.admin, "Sec-Fetch-Site", "same-origin"}, page},
		{"an extension", []string{"Sec-Fetch-Site", "none"}, page},
		{"DNS rebinding", []string{"Host", "evil.example", "Origin", "http://evil.example"}, rebound},
		{"DNS rebinding, without an origin", []string{"Host", "evil.example:9090"}, rebound},
		{"DNS rebinding, with a name like ours", []string{"Host", "127.0.0.1.evil.example"}, rebound},
	} {
		if got := ask(t, "POST", h.admin+"/disconnect?recipient=alice", tt.headers...); got.status != 403 || got.body != tt.want {
			t.Errorf("%s: got %d, %q, want 403, %q", tt.name, got.status, got.body, tt.want)
		}
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/nothing"} {
		if got := ask(t, "GET", h.admin+path, "Host", "evil.example"); got.status != 403 || got.body != rebound {
			t.Errorf("%s by DNS rebinding: got %d, %q", path, got.status, got.body)
		}
	}
	for _, host := range []string{"localhost", "LOCALHOST:9090", "[::1]:9090", "127.0.0.1"} {
		if got := ask(t, "POST", h.admin+"/disconnect?recipient=bob", "Host", host, "Sec-Fetch-Mode", "cors"); got.status != 200 {
			t.Errorf("as %s: got %+v, want 200", host, got)
		}
	}
	if got := statuses(t, h.admin, "GET /healthz HTTP/1.0\r\n\r\n"); got != "200" {
		t.Errorf("a health check of HTTP/1.0, which names no host: got %s, want 200", got)
	}
	h.wantUndisturbed(t, alice)
}

// Where it is meant to be reached from other machines, they call it by any name: a service's, in a cluster. No page can even then.
func TestAdminAddressByName(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn, "--admin-listen", "0.0.0.0:0")
	_, port, _ := strings.Cut(h.err.await(t, `admin_addr="?([0-9.\[\]:]+)`)[1], "]:")
	admin := "http://127.0.0.1:" + port
	for method, path := range map[string]string{"GET": "/metrics", "POST": "/disconnect?recipient=alice"} {
		if got := ask(t, method, admin+path, "Host", "rowcast-admin.prod.svc:9090"); got.status != 200 {
			t.Errorf("%s: got %+v, want 200", path, got)
		}
	}
	if got := ask(t, "POST", admin+"/disconnect?recipient=alice", "Host", "evil.example", "Origin", "http://evil.example"); got.status != 403 {
		t.Errorf("by DNS rebinding: got %+v, want 403", got)
	}
}

// Without an address for administrators nobody can, and at the public one never.
func TestDisconnectIsNotPublic(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	for _, public := range []string{serveWithAdmin(t, dsn).url, serve(t, dsn).url} {
		if got := ask(t, "POST", public+"/disconnect?recipient=alice"); got.status != 404 {
			t.Errorf("got %d, want 404", got.status)
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
