package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// When a hub reconnects, it reads the password file again.
func TestServeOutlivesAPassword(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	role, _ := login(t, dsn, "hub")
	runSQL(t, dsn, `ALTER ROLE "`+role+`" PASSWORD 'first'`)
	if code, _, stderr := run(t, nil, "migrate", "--hub-role", role, "--database-url", dsn); code != 0 {
		t.Fatalf("migrate: got exit code %d, %s, want 0", code, stderr)
	}
	file := filepath.Join(t.TempDir(), "pgpass")
	put := func(password string) {
		if err := os.WriteFile(file, []byte("*:*:*:*:"+password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("first")
	h := serve(t, fmt.Sprintf("host=127.0.0.1 port=%d dbname=%s user='%s' sslmode=disable passfile=%s", config.Port, config.Database, role, file))
	tail := h.tail(t, "alice")
	askUntil(t, h.url+"/metrics", `(?m)^rowcast_park_lock_acquired_total 1$`) // now the hub has both of its connections
	put("second")
	runSQL(t, dsn, `ALTER ROLE "`+role+`" PASSWORD 'second'`,
		`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '`+role+`'`,
		`INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')`)
	tail.out.await(t, `"data":1}`)
	askUntil(t, h.url+"/metrics", `(?m)^rowcast_database_sessions_total 2$`)
	if got := h.err.String(); strings.Contains(got, "cannot connect") {
		t.Errorf("the log contains a failed connection: %s", got)
	}
}
