package main_test

import (
	"strings"
	"testing"

	"rowcast/sql/dbtest"
)

// A hubWithAdmin is a hub with --admin-listen.
type hubWithAdmin struct {
	*hub
	admin string
}

func serveWithAdmin(t *testing.T, dsn string, args ...string) hubWithAdmin {
	t.Helper()
	h := serve(t, dsn, append([]string{"--admin-listen", "127.0.0.1:0"}, args...)...)
	return hubWithAdmin{h, "http://" + h.err.await(t, `admin_addr=([0-9.:]+)`)[1]}
}

// POST /disconnect at one hub ends the user's streams at all hubs, and no other streams. So does a NOTIFY on
// rowcast.disconnect, even with --no-notify-messages. A client whose credentials are still valid opens a new stream.
func TestDisconnectOnAllHubs(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	first := serveWithAdmin(t, dsn, "--no-notify-messages", "--retry", "100ms")
	second := serve(t, dsn, "--retry", "100ms")
	alices := []*process{first.tail(t, "alice"), first.tail(t, "alice"), second.tail(t, "alice")}
	bobs := []*process{first.tail(t, "bob"), second.tail(t, "bob")}
	const bye = `"event":"rowcast.bye","data":{"reason": ?"disconnected", ?"expires_in": ?0}`
	got := ask(t, "POST", first.admin+"/disconnect?recipient=alice")
	if want := "{\"recipient\":\"alice\",\"disconnected\":2}\n"; got.status != 200 || got.body != want || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("got %+v, want 200, application/json and the body %s", got, want)
	}
	for _, tail := range alices {
		tail.out.await(t, `(?s)rowcast.hello.*`+bye+`.*rowcast.hello`)
	}
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '1')`, `SELECT pg_notify('rowcast.disconnect', 'bob')`)
	for _, tail := range alices {
		tail.out.await(t, `"data":1}`)
	}
	for _, tail := range bobs {
		tail.out.await(t, `(?s)"data":1}.*`+bye)
		if got := strings.Count(tail.out.String(), "rowcast.bye"); got != 1 {
			t.Errorf("bob was disconnected %d times, want 1: %s", got, tail.out)
		}
	}
	for _, h := range []string{first.admin, second.url} {
		askUntil(t, h+"/metrics", `(?m)^rowcast_streams_disconnected_total [1-9]`)
	}
}

// /disconnect accepts a user or a group in the query, in a form or in JSON. Other requests get an error and end no
// stream.
func TestDisconnectRequests(t *testing.T) {
	t.Parallel()
	h := serveWithAdmin(t, dbtest.Database(t))
	alice := h.tail(t, "alice")
	const (
		form, inJSON = "application/x-www-form-urlencoded", "application/json"
		badQuery     = "cannot read the query: send recipient=alice, percent-encoded\n"
		badForm      = "cannot read the form: send recipient=alice, percent-encoded\n"
		badJSON      = `cannot read the body: send {"recipient": "alice"} and nothing else` + "\n"
		badType      = `unknown Content-Type: send the form recipient=alice, or {"recipient": "alice"} as application/json` + "\n"
		missing      = "recipient is missing: send a user or a group, such as recipient=alice\n"
		repeated     = "send recipient only once, in the query or in the body\n"
		unknown      = "unknown parameter: recipient is the only one\n"
		tooLong      = "the body is longer than 4 KiB: send recipient=alice and nothing else\n"
	)
	// This is so short that the hub reads the rest of the body before it closes the connection. Otherwise the connection
	// would be reset, and the answer could be lost.
	many := strings.Repeat("x", 8<<10)
	for _, tt := range []struct {
		name, query, contentType, body string
		status                         int
		want                           string
	}{
		{"in the query", "?recipient=bob", "", "", 200, `{"recipient":"bob","disconnected":0}` + "\n"},
		{"in the query, with an empty form", "?recipient=bob", form, "", 200, `{"recipient":"bob","disconnected":0}` + "\n"},
		{"in a form", "", form + ";charset=UTF-8", "recipient=team%3A7", 200, `{"recipient":"team:7","disconnected":0}` + "\n"},
		{"in JSON", "", inJSON + "; charset=utf-8", ` { "recipient" : "\u00e9 \"\ud83d\ude00" } `, 200, `{"recipient":"é \"😀","disconnected":0}` + "\n"},

		{"nothing", "", "", "", 400, missing},
		{"another key", "?uid=alice", "", "", 400, unknown},
		{"a second key", "?recipient=alice&dry_run=1", "", "", 400, unknown},
		{"a key in another case", "?Recipient=alice", "", "", 400, unknown},
		{"two recipients", "?recipient=alice&recipient=bob", "", "", 400, repeated},
		{"the same recipient twice", "?recipient=alice&recipient=alice", "", "", 400, repeated},
		{"in the query and a form", "?recipient=alice", form, "recipient=alice", 400, repeated},
		{"in the query and JSON", "?recipient=alice", inJSON, `{"recipient": "bob"}`, 400, repeated},
		{"an empty recipient", "?recipient=", "", "", 400, "the recipient is empty\n"},
		{"everyone", "?recipient=*", "", "", 400, "the recipient is \"*\", which means everyone\n"},
		{"a recipient that is too long", "?recipient=" + many[:257], "", "", 400, "the recipient is longer than 256 bytes\n"},
		{"with NUL", "?recipient=alice%00", "", "", 400, "the recipient contains a control character\n"},
		{"with a line break", "", form, "recipient=alice%0A", 400, "the recipient contains a control character\n"},
		{"not UTF-8", "?recipient=alice%ff", "", "", 400, "the recipient is not valid UTF-8\n"},
		{"with an incorrect percent-encoding", "?recipient=alice%zz", "", "", 400, badQuery},
		{"with a semicolon", "?recipient=alice;a=b", "", "", 400, badQuery},

		{"a form with two recipients", "", form, "recipient=alice&recipient=bob", 400, repeated},
		{"JSON sent as a form", "", form, `{"recipient": "alice"}`, 400, unknown},
		{"a form that cannot be read", "", form, "recipient=alice&%", 400, badForm},
		{"a form that is too long", "", form, "recipient=" + many, 413, tooLong},
		{"JSON that is too long", "", inJSON, `{"recipient": "` + many + `"}`, 413, tooLong},
		{"JSON and too many blanks", "", inJSON, `{"recipient": "alice"}` + strings.Repeat(" ", 8<<10), 413, tooLong},
		{"a form sent as JSON", "", inJSON, "recipient=alice", 400, badJSON},
		{"JSON without an end", "", inJSON, `{"recipient": "alice"`, 400, badJSON},
		{"JSON that ends after a key", "", inJSON, `{"recipient": "alice", "recipient"`, 400, badJSON},
		{"two JSON objects", "", inJSON, `{"recipient": "alice"} {"recipient": "bob"}`, 400, badJSON},
		{"JSON and garbage", "", inJSON, `{"recipient": "alice"}]`, 400, badJSON},
		{"JSON with a repeated key", "", inJSON, `{"recipient": "alice", "recipient": "alice"}`, 400, badJSON},
		{"JSON with another key", "", inJSON, `{"recipient": "alice", "dry_run": true}`, 400, badJSON},
		{"JSON with a key in another case", "", inJSON, `{"RECIPIENT": "alice"}`, 400, badJSON},
		{"JSON with an array of recipients", "", inJSON, `{"recipient": ["alice"]}`, 400, badJSON},
		{"JSON with null", "", inJSON, `{"recipient": null}`, 400, badJSON},
		{"a JSON array", "", inJSON, `["recipient", "alice"]`, 400, badJSON},
		{"JSON with a single surrogate", "", inJSON, `{"recipient": "alice\ud800"}`, 400, "the recipient is not valid UTF-8\n"},
		{"without a Content-Type", "", "", "recipient=alice", 415, badType},
		{"as text", "", "text/plain", "recipient=alice", 415, badType},
		{"as multipart/form-data", "", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"recipient\"\r\n\r\nalice\r\n--x--\r\n", 415, badType},
		{"with two media types", "", "application/json, text/plain", `{"recipient": "alice"}`, 415, badType},
	} {
		got := send(t, "POST", h.admin+"/disconnect"+tt.query, tt.body, "Content-Type", tt.contentType)
		if got.status != tt.status || got.body != tt.want {
			t.Errorf("%s: got %d, %q, want %d, %q", tt.name, got.status, got.body, tt.status, tt.want)
		}
	}
	if got := ask(t, "GET", h.admin+"/disconnect?recipient=alice"); got.status != 405 || got.header.Get("Allow") != "POST" {
		t.Errorf("GET: got %+v, want 405 and Allow: POST", got)
	}
	h.wantNoDisconnect(t, alice)
}

// wantNoDisconnect checks that no stream was ended. It then ends the only stream of alice, which must still be open.
func (h hubWithAdmin) wantNoDisconnect(t *testing.T, alice *process) {
	t.Helper()
	if got := metric(t, h.admin, "rowcast_streams_disconnected_total"); got != 0 {
		t.Errorf("%v streams were ended, want none", got)
	}
	if got := send(t, "POST", h.admin+"/disconnect?recipient=alice", ""); got.body != `{"recipient":"alice","disconnected":1}`+"\n" {
		t.Errorf("POST /disconnect for alice: got %+v, want 1 disconnected stream", got)
	}
	alice.out.await(t, "rowcast.bye")
}

// A web page in an operator's browser cannot disconnect users, from its own origin or by DNS rebinding. At a loopback
// address, DNS rebinding reaches no other path either. Programs can disconnect users. That includes Node's fetch, which
// sends Sec-Fetch-Mode as browsers do.
func TestAttackDisconnectFromAPage(t *testing.T) {
	t.Parallel()
	h := serveWithAdmin(t, dbtest.Database(t))
	alice := h.tail(t, "alice")
	const page = "web pages may not disconnect users: send the request from your app's server\n"
	const rebound = "the Host header must be localhost, a subdomain of localhost, or a loopback address such as 127.0.0.1\n"
	for _, tt := range []struct {
		name    string
		headers []string
		want    string
	}{
		{"a form of another site", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, page},
		{"a form of another site, in an old browser", []string{"Origin", "https://evil.example"}, page},
		{"a form in a sandboxed frame", []string{"Origin", "null"}, page},
		{"a page at another port", []string{"Origin", "http://127.0.0.1:1", "Sec-Fetch-Site", "same-site"}, page},
		{"a page at the admin address itself", []string{"Origin", h.admin, "Sec-Fetch-Site", "same-origin"}, page},
		{"a browser extension", []string{"Sec-Fetch-Site", "none"}, page},
		{"DNS rebinding", []string{"Host", "evil.example", "Origin", "http://evil.example"}, rebound},
		{"DNS rebinding, without an origin", []string{"Host", "evil.example:9090"}, rebound},
		{"DNS rebinding, with a name that begins like a loopback address", []string{"Host", "127.0.0.1.evil.example"}, rebound},
	} {
		if got := ask(t, "POST", h.admin+"/disconnect?recipient=alice", tt.headers...); got.status != 403 || got.body != tt.want {
			t.Errorf("%s: got %d, %q, want 403, %q", tt.name, got.status, got.body, tt.want)
		}
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/nothing"} {
		if got := ask(t, "GET", h.admin+path, "Host", "evil.example"); got.status != 403 || got.body != rebound {
			t.Errorf("%s by DNS rebinding: got %d, %q, want 403, %q", path, got.status, got.body, rebound)
		}
	}
	for _, host := range []string{"localhost", "LOCALHOST:9090", "[::1]:9090", "127.0.0.1"} {
		if got := ask(t, "POST", h.admin+"/disconnect?recipient=bob", "Host", host, "Sec-Fetch-Mode", "cors"); got.status != 200 {
			t.Errorf("with the Host header %s: got %+v, want 200", host, got)
		}
	}
	if got := statuses(t, h.admin, "GET /healthz HTTP/1.0\r\n\r\n"); got != "200" {
		t.Errorf("a health check by HTTP/1.0 without a Host header: got %s, want 200", got)
	}
	h.wantNoDisconnect(t, alice)
}

// An --admin-listen address that is not loopback accepts every Host header, such as a service name in a cluster. Its
// /disconnect still refuses web pages.
func TestAdminAddressAcceptsEveryHost(t *testing.T) {
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

// /disconnect does not exist at the public address, with or without --admin-listen.
func TestDisconnectIsNotPublic(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	for _, public := range []string{serveWithAdmin(t, dsn).url, serve(t, dsn).url} {
		if got := ask(t, "POST", public+"/disconnect?recipient=alice"); got.status != 404 {
			t.Errorf("got %d, want 404", got.status)
		}
	}
}

// A hub that polls through a pooler cannot receive notifications. Its /disconnect still ends its own streams and
// notifies the other hubs.
func TestDisconnectThroughAPooler(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	polling := serveWithAdmin(t, dbtest.PgBouncer(t, dsn, "transaction", 5), "--poll")
	listening := serve(t, dsn)
	here, there := polling.tail(t, "alice"), listening.tail(t, "alice")
	if got := ask(t, "POST", polling.admin+"/disconnect?recipient=alice"); got.status != 200 || !strings.Contains(got.body, `"disconnected":1}`) {
		t.Errorf("got %+v, want 200 and one ended stream", got)
	}
	here.out.await(t, "rowcast.bye")
	there.out.await(t, "rowcast.bye")
}

// While PostgreSQL is unreachable, /disconnect ends the user's streams at its own hub, and answers 503 because it
// cannot notify other hubs.
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
	want := `{"recipient":"alice","disconnected":1,"error":"the other hubs could not be notified through PostgreSQL: try again"}` + "\n"
	if got.status != 503 || got.body != want {
		t.Errorf("got %+v, want 503 and the body %s", got, want)
	}
	tail.out.await(t, "rowcast.bye")
}
