package main_test

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"rowcast/sql/dbtest"
)

func TestServeDoesNotStart(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	dsn, empty := dbtest.Database(t), dbtest.Empty(t)
	old := dbtest.Database(t)
	runSQL(t, old, `UPDATE rowcast.migrations SET version_id = 0`)
	restored := dbtest.Database(t)
	runSQL(t, restored, looksRestored...)
	pooled := dbtest.PgBouncer(t, dsn, "transaction", 5)
	missing, says := noDatabase(t)
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"without its database", []string{"--database-url", missing, "--insecure-uid"}, says},
		{
			"without the schema",
			[]string{"--database-url", empty, "--insecure-uid"},
			"schema rowcast is missing, incomplete or too old: there is no table rowcast.migrations: run rowcast migrate",
		},
		{
			"with an old schema",
			[]string{"--database-url", old, "--insecure-uid"},
			"schema rowcast is missing, incomplete or too old: it has version 0, and version " + schemaVersion + " is needed: run rowcast migrate",
		},
		{
			"on a restored dump",
			[]string{"--database-url", restored, "--insecure-uid"},
			"rowcast.notifications was restored from another server: run rowcast migrate",
		},
		{
			"through a pooler",
			[]string{"--database-url", pooled, "--insecure-uid"},
			"the database connection goes through a transaction pooler (PgBouncer): connect directly, or poll (--poll)",
		},
		{
			"on a taken port",
			[]string{"--database-url", dsn, "--insecure-uid", "--listen", taken.Addr().String()},
			"cannot listen: listen tcp " + taken.Addr().String() + ": bind: address already in use: choose another address with --listen",
		},
		{
			"with a taken port for --admin-listen",
			[]string{"--database-url", dsn, "--insecure-uid", "--listen", "127.0.0.1:0", "--admin-listen", taken.Addr().String()},
			"cannot listen: listen tcp " + taken.Addr().String() + ": bind: address already in use: choose another address with --admin-listen",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := run(t, nil, append([]string{"serve", "--listen", "127.0.0.1:0"}, tt.args...)...)
			if want := "rowcast: " + tt.want + "\n"; code != 1 || stdout != "" || stderr != want {
				t.Errorf("got %d, %q, %q, want 1, \"\", %q", code, stdout, stderr, want)
			}
		})
	}
}

// looksRestored is SQL that makes a database of dbtest.Database look as if it was restored from a dump. dbtest.Database
// copies a database, so rowcast.history in the copy names another database. Like a restore, the UPDATE writes the row
// of rowcast.history again. The INSERT adds a row with a transaction number that this server has not assigned.
var looksRestored = []string{
	"UPDATE rowcast.history SET horizon = horizon",
	"INSERT INTO rowcast.notifications (recipient, data, xid) VALUES ('*', '1', '9999999999')",
}

func TestServeDoesNotStartOnAStandby(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Standby(t, dbtest.Cluster(t)).DSN("postgres")
	code, _, stderr := run(t, nil, "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", dsn)
	want := "rowcast: the database is a standby: connect to the primary (target_session_attrs=read-write)\n"
	if code != 1 || stderr != want {
		t.Errorf("got %d, %q, want 1, %q", code, stderr, want)
	}
	code, out, _ := run(t, nil, "doctor", "--database-url", dsn)
	if want := "fail  primary       this is a standby, "; code != 1 || !strings.Contains(out, want) {
		t.Errorf("doctor: got %d, %s, want 1 and %q in the output", code, out, want)
	}
}

// If a flag is missing or invalid, or names a file that cannot be read, the exit code of serve is 2, even if the log is
// JSON.
func TestServeWithAWrongConfiguration(t *testing.T) {
	t.Parallel()
	const reachable = "could read everything; if this is intended, give --insecure-uid=anywhere"
	for want, args := range map[string][]string{
		"no authentication is configured, so anybody could read everything: give --jwt-secret, --jwt-key or --jwks-url for tokens, " +
			"or --auth-url; for testing on this machine, give --insecure-uid; for public streams only, give --public": nil,
		"--insecure-uid: anybody who can reach :0 " + reachable:                         {"--insecure-uid", "--listen", ":0"},
		"--insecure-uid: anybody who can reach 192.0.2.1:80 " + reachable:               {"--insecure-uid", "--listen", "192.0.2.1:80"},
		`--listen: "8080" is not HOST:PORT, such as 127.0.0.1:8080 or :8080`:            {"--insecure-uid", "--listen", "8080"},
		`--admin-listen: "here" is not HOST:PORT, such as 127.0.0.1:8080 or :8080`:      {"--insecure-uid", "--admin-listen", "here"},
		`--listen: "127.0.0.1:65536" is not HOST:PORT, such as 127.0.0.1:8080 or :8080`: {"--insecure-uid", "--listen", "127.0.0.1:65536"},
		`--admin-listen: ":-1" is not HOST:PORT, such as 127.0.0.1:8080 or :8080`:       {"--insecure-uid", "--admin-listen", ":-1"},
		"--jwt-secret-file: open /nowhere: no such file or directory":                   {"--jwt-secret-file", "/nowhere"},
		unreadable: {"--insecure-uid", "--database-url", "postgres://me:secret%zz@db/app"},
	} {
		code, stdout, stderr := run(t, nil, append([]string{"serve"}, args...)...)
		if code != 2 || stdout != "" || !strings.HasSuffix(stderr, ": "+want+"\n") {
			t.Errorf("%v: got %d, %q, %q, want 2, \"\", and %q at the end", args, code, stdout, stderr, want)
		}
	}
	for _, args := range [][]string{nil, {"--insecure-uid", "--auth-url=http://app.example/auth"}, {"--insecure-uid", "--listen=8080"}} {
		code, _, stderr := run(t, nil, append([]string{"serve", "--log-format=json"}, args...)...)
		if code != 2 || !strings.HasPrefix(stderr, "{") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v with a log in JSON: got %d, %q, want 2 and one line of JSON", args, code, stderr)
		}
	}
}

func TestServeStartErrorInJSON(t *testing.T) {
	t.Parallel()
	dsn, says := noDatabase(t)
	code, _, stderr := run(t, nil, "serve", "--insecure-uid", "--log-format=json", "--listen", "127.0.0.1:0", "--database-url", dsn)
	var line struct{ Level, Msg, Error string }
	if err := json.Unmarshal([]byte(stderr), &line); err != nil {
		t.Fatalf("the error is not a line of JSON: %v: %s", err, stderr)
	}
	if code != 1 || line.Level != "ERROR" || line.Msg != "cannot serve" || line.Error != says {
		t.Errorf("got %d, %+v, want 1, the level ERROR, the message \"cannot serve\" and the error %q", code, line, says)
	}
}

// Flags can be set by environment variables. The command line has priority over a variable, and ROWCAST_DATABASE_URL
// has priority over DATABASE_URL. An empty variable is ignored.
func TestServeIsConfiguredByTheEnvironment(t *testing.T) {
	t.Parallel()
	env := environment{
		"DATABASE_URL":         nobodyThere,
		"ROWCAST_DATABASE_URL": dbtest.Database(t),
		"ROWCAST_INSECURE_UID": "anywhere",
		"ROWCAST_LISTEN":       "0.0.0.0:0",
		"ROWCAST_ADMIN_LISTEN": "127.0.0.1:0",
		"ROWCAST_CORS_ORIGIN":  "https://a.example, https://b.example",
		"ROWCAST_HEARTBEAT":    "1h",
		"ROWCAST_LOG_FORMAT":   "json",
		"ROWCAST_POLL":         "",
	}
	p := start(t, env, "serve", "--heartbeat", "7s", "--drain", "10ms")
	port := p.err.await(t, `"msg":"listening","addr":"[^"]*:([0-9]+)","admin_addr":"127.0.0.1:[0-9]+"`)[1]
	h := &hub{p, "http://127.0.0.1:" + port}
	got := ask(t, "GET", h.url+"/rowcast.js", "Origin", "https://b.example").header.Get("Access-Control-Allow-Origin")
	if want := "https://b.example"; got != want {
		t.Errorf("got the Access-Control-Allow-Origin %q, want %q", got, want)
	}
	h.tail(t, "alice").out.await(t, `"event":"rowcast.hello","data":{"recipients":\["alice"\],"heartbeat":7}`)
}
