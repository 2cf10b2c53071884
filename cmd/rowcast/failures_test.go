package main_test

import (
	"fmt"
	"strings"
	"testing"

	"rowcast/sql/dbtest"
)

// failingHub starts a hub whose role may have two connections. The listener uses both, so that none is left for
// replays, retention and /disconnect.
func failingHub(t *testing.T, args ...string) (h *hub, dsn, role string) {
	t.Helper()
	dsn = dbtest.Database(t)
	role, limited := login(t, dsn, "Few")
	if code, _, stderr := run(t, nil, "migrate", "--hub-role", role, "--database-url", dsn); code != 0 {
		t.Fatalf("migrate: got exit code %d, %s, want 0", code, stderr)
	}
	h = serve(t, limited, append([]string{"--memory", "1B"}, args...)...)
	waitFor(t, "the park lock of the hub", func() bool {
		return valueOf(t, dsn, `SELECT (count(*) = 1)::text FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock'
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == "true"
	})
	runSQL(t, dsn, fmt.Sprintf("ALTER ROLE %q CONNECTION LIMIT 2", role))
	return h, dsn, role
}

// The failure of a replay that gets no connection is reported in the log and in /metrics, and in /readyz until
// shortly after the replay has succeeded.
func TestReplayIsReportedAsFailing(t *testing.T) {
	t.Parallel()
	h, dsn, role := failingHub(t, "--retain", "0")
	cursor := valueOf(t, dsn, "SELECT rowcast.cursor()")
	for range 3 {
		runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"missed"')`)
	}
	askUntil(t, h.url+"/metrics", `(?m)^rowcast_rows_total 3$`) // the hub has read the rows, and --memory 1B keeps none of them
	client := h.tail(t, "alice", "--last-event-id", cursor)
	wantFailing(t, h.url, "replay", "53300")
	h.err.await(t, `level=WARN msg="cannot resume a stream; retrying" operation=replay error=`)
	runSQL(t, dsn, fmt.Sprintf("ALTER ROLE %q CONNECTION LIMIT 10", role))
	client.out.await(t, `"data":"missed"`)
	askUntil(t, h.url+"/readyz", `"failing":{}`)
}

// A failure to notify the other hubs of a disconnect is reported.
func TestDisconnectIsReportedAsFailing(t *testing.T) {
	t.Parallel()
	h, dsn, role := failingHub(t, "--retain", "0", "--admin-listen", "127.0.0.1:0")
	admin := "http://" + h.err.await(t, `admin_addr=([0-9.:]+)`)[1]
	if got := send(t, "POST", admin+"/disconnect?recipient=alice", ""); got.status != 503 {
		t.Errorf("got %+v, want 503", got)
	}
	wantFailing(t, admin, "disconnect", "53300")
	h.err.await(t, `level=ERROR msg="cannot notify other hubs to disconnect a recipient" error=`)
	runSQL(t, dsn, fmt.Sprintf("ALTER ROLE %q CONNECTION LIMIT 10", role))
	if got := send(t, "POST", admin+"/disconnect?recipient=alice", ""); got.status != 200 {
		t.Errorf("got %+v, want 200", got)
	}
	askUntil(t, admin+"/readyz", `"failing":{}`)
}

// Retention is reported as failing if the role may not delete. Its first round then fails, even in an empty table.
func TestRetentionIsReportedAsFailing(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	role, limited := login(t, dsn, "Few")
	if code, _, stderr := run(t, nil, "migrate", "--hub-role", role, "--database-url", dsn); code != 0 {
		t.Fatalf("migrate: got exit code %d, %s, want 0", code, stderr)
	}
	runSQL(t, dsn, fmt.Sprintf("REVOKE DELETE ON rowcast.notifications FROM %q", role))
	h := serve(t, limited, "--retain", "1m")
	wantFailing(t, h.url, "retention", "42501")
	h.err.await(t, `level=WARN msg="cannot delete old rows" error=.*SQLSTATE 42501`)
}

// A failure to check a cursor of another epoch is reported.
func TestCheckOfACursorIsReportedAsFailing(t *testing.T) {
	t.Parallel()
	h, dsn, role := failingHub(t, "--retain", "0")
	cursor := valueOf(t, dsn, "SELECT rowcast.cursor()")
	runSQL(t, dsn, "TRUNCATE rowcast.epoch")
	h.err.await(t, `msg="another epoch has begun`)
	insertAndAwait(t, dsn, h.tail(t, "alice"), "0") // now the hub's cursor is of the new epoch, so the hub must check the client's cursor, which is older
	client := start(t, nil, "tail", "--json", "--url", h.url+"/events", "--uid", "alice", "--last-event-id", cursor)
	wantFailing(t, h.url, "check_cursor", "53300")
	runSQL(t, dsn, fmt.Sprintf("ALTER ROLE %q CONNECTION LIMIT 10", role))
	client.out.await(t, `"data":0}`)
	askUntil(t, h.url+"/readyz", `"failing":{}`)
}

// A failure to open the connection for the park lock is reported.
func TestParkLockIsReportedAsFailing(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	role, limited := login(t, dsn, "Few")
	if code, _, stderr := run(t, nil, "migrate", "--hub-role", role, "--database-url", dsn); code != 0 {
		t.Fatalf("migrate: got exit code %d, %s, want 0", code, stderr)
	}
	runSQL(t, dsn, fmt.Sprintf("ALTER ROLE %q CONNECTION LIMIT 1", role))
	h := serve(t, limited, "--retain", "0")
	wantFailing(t, h.url, "park_lock", "53300")
	h.err.await(t, `level=WARN msg="cannot connect to PostgreSQL" error="second connection, for the park lock`)
	runSQL(t, dsn, fmt.Sprintf("ALTER ROLE %q CONNECTION LIMIT 2", role))
	askUntil(t, h.url+"/readyz", `"failing":{}`)
}

// A failure to read new rows is reported.
func TestFetchIsReportedAsFailing(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	migrate(t, dsn)
	h := serve(t, dsn, "--retain", "0")
	runSQL(t, dsn, "ALTER TABLE rowcast.notifications RENAME TO renamed")
	wantFailing(t, h.url, "fetch", "42P01")
	h.err.await(t, `level=WARN msg="cannot read from PostgreSQL" error=`)
	runSQL(t, dsn, "ALTER TABLE rowcast.renamed RENAME TO notifications")
	askUntil(t, h.url+"/readyz", `"failing":{}`)
}

// A lost connection to PostgreSQL is reported. The hub stays ready.
func TestConnectionIsReportedAsFailing(t *testing.T) {
	t.Parallel()
	server := dbtest.Cluster(t)
	dsn := server.DSN("postgres")
	migrate(t, dsn)
	h := serve(t, dsn, "--retain", "0")
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := askUntil(t, h.url+"/readyz", `"failing":{"connect":{`); got.status != 200 {
		t.Errorf("got %+v, want 200", got)
	}
	askUntil(t, h.url+"/metrics", `(?m)^rowcast_failures_total{operation="connect"} [1-9]`)
	h.err.await(t, `level=WARN msg="cannot connect to PostgreSQL" error=`)
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	askUntil(t, h.url+"/readyz", `"failing":{}`)
}

// Failures to ask the app's endpoint and to read a JSON Web Key Set are reported. /readyz does not contain the URL.
func TestAuthenticationIsReportedAsFailing(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	nobody := "http://" + silentAddress(t)
	for operation, tt := range map[string]struct {
		flags []string
		line  string
	}{
		"auth_url": {[]string{"--auth-url", nobody}, "authentication endpoint failed"},
		"jwks":     {[]string{"--jwks-url", nobody, "--jwt-audience", "a"}, "cannot read the JSON Web Key Set: the keys that were read before stay valid"},
	} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			h := startHub(t, dsn, append(tt.flags, "--retain", "0")...)
			_ = ask(t, "GET", h.url+"/events", "Cookie", "a=b")
			got := askUntil(t, h.url+"/readyz", `"failing":{"`+operation+`":{`)
			if got.status != 200 || strings.Contains(got.body, nobody) {
				t.Errorf("got %+v, want 200 and no URL", got)
			}
			askUntil(t, h.url+"/metrics", `(?m)^rowcast_failures_total{operation="`+operation+`"} [1-9]`)
			h.err.await(t, `level=WARN msg="`+tt.line+`" host=127.0.0.1:\d+ .*error=.*refused`)
		})
	}
}

// silentAddress returns an address at which no server listens.
func silentAddress(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", dbtest.Port(t))
}

// wantFailing waits until /readyz reports that an operation fails with an SQLSTATE, and until the metric counts a
// failure. /readyz must not contain the name of the role.
func wantFailing(t *testing.T, url, operation, code string) {
	t.Helper()
	got := askUntil(t, url+"/readyz", `"failing":{"`+operation+`":{"since":[^,]+,"last":[^,]+,"failures":\d+,`+
		`"error":"PostgreSQL answered with SQLSTATE `+code+`; see the log"}}`)
	if got.status != 200 || strings.Contains(got.body, "Few") {
		t.Errorf("got %+v, want 200 and no name of a role", got)
	}
	askUntil(t, url+"/metrics", `(?m)^rowcast_failures_total{operation="`+operation+`"} [1-9]`)
}
