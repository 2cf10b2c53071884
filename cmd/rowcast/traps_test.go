package main_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// trapped creates traps in the schema public: functions and operators with names that pg_catalog has, too. It puts
// public first in the search_path of new sessions. At the end of the test, it fails the test if a trap was called.
func trapped(t *testing.T, dsn string) {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	runSQL(t, dsn, dbtest.Traps, "ALTER DATABASE "+pgx.Identifier{config.Database}.Sanitize()+" SET search_path = public, pg_catalog")
	t.Cleanup(func() {
		var caught bool
		conn, err := pgx.Connect(context.Background(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		const query = "SET search_path = pg_catalog; SELECT is_called FROM public.caught"
		results, err := conn.PgConn().Exec(context.Background(), query).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if caught = string(results[1].Rows[0][0]) == "t"; caught {
			t.Error("a trap was called")
		}
	})
}

// migrate, serve and doctor call no functions that another user has created in the schema public, even if that schema
// comes first in the search_path.
func TestFunctionsOfOtherUsersAreNotCalled(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	role, hubDSN := login(t, dsn, "Hub")
	_, nobody := login(t, dsn, "Nobody")
	trapped(t, dsn)

	code, stdout, stderr := run(t, nil, "migrate", "--database-url", dsn, "--hub-role", role)
	if code != 0 || stderr != "" {
		t.Fatalf("migrate: got exit code %d, %q, %q, want 0 and no error", code, stdout, stderr)
	}
	for name, url := range map[string]string{"a superuser": dsn, "a hub": hubDSN} {
		h := serve(t, url)
		polls := serve(t, url, "--poll")
		askUntil(t, h.url+"/metrics", `(?m)^rowcast_park_lock_acquired_total [1-9]`)
		for _, tail := range []*process{h.tail(t, "alice"), polls.tail(t, "alice")} {
			runSQL(t, dsn, "SET search_path = pg_catalog", `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"`+name+`"')`)
			tail.out.await(t, `"data":"`+name+`"}`)
		}
		if code, _, out := examine(t, url); code != 0 {
			t.Errorf("doctor as %s: got exit code %d, want 0: %s", name, code, out)
		}
		for _, h := range []*hub{h, polls} {
			h.stop()
			if said := h.err.String(); strings.Contains(said, "trap of another role") {
				t.Errorf("serve as %s called a function of another user: %s", name, said)
			}
		}
	}
	if _, _, out := examine(t, nobody); strings.Contains(out, "trap of another role") || !strings.Contains(out, "lacks rights that a hub needs") {
		t.Errorf("doctor as a role without rights: got %s, want that rights are missing and that no function of another user was called", out)
	}
}

// The demo, which also installs the schema, calls no functions that another user has created in the schema public.
func TestFunctionsOfOtherUsersInANewDatabase(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Empty(t)
	trapped(t, dsn)
	demo := start(t, nil, "demo", "--listen", "127.0.0.1:0", "--database-url", dsn)
	url := demo.out.await(t, `(http://127\.0\.0\.1:\d+)`)[1]
	for _, path := range []string{"/", "/demo/orders", "/inbox?uid=alice"} {
		if got := ask(t, "GET", url+path); got.status != 200 || strings.Contains(got.body, "trap") {
			t.Errorf("GET %s of the demo: got %d, %.300s, want 200 and no error of a trap", path, got.status, got.body)
		}
	}
	if code := demo.stop(); code != 0 {
		t.Errorf("the demo: got exit code %d, want 0: %s", code, demo.err)
	}
}

// Behind a pooler, migrate does not change the search_path of a session, because other clients will use the session.
func TestFunctionsOfOtherUsersBehindAPooler(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Empty(t)
	trapped(t, dsn)
	pooled := dbtest.PgBouncer(t, dsn, "transaction", 1)
	code, stdout, stderr := run(t, nil, "migrate", "--database-url", pooled)
	if code != 0 || stderr != "" {
		t.Errorf("got %d, %s, %s, want 0 and no error of a trap", code, stdout, stderr)
	}
	if got := valueOf(t, pooled+"&default_query_exec_mode=exec", "SELECT pg_catalog.current_setting('search_path')"); got != "public, pg_catalog" {
		t.Errorf("the session behind the pooler has search_path = %s, want public, pg_catalog", got)
	}
}
