package main_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql"
	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// benchDatabase starts a PostgreSQL server with the schema rowcast, and a hub process. Unlike the servers of the tests,
// this server has fsync on. settings are additional settings of the server, and args are additional arguments of the
// hub.
func benchDatabase(b *testing.B, settings map[string]string, args ...string) (dsn, url string) {
	b.Helper()
	home := dbtest.Home(b)
	c := &cluster.Cluster{Dir: filepath.Join(home, "postgres"), Settings: map[string]string{"max_connections": "200", "shared_buffers": "512MB", "max_wal_size": "4GB"}}
	maps.Copy(c.Settings, settings)
	if err := c.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Kill() })
	dsn = c.DSN("postgres")
	if _, _, err := sql.Migrate(b.Context(), dsn); err != nil {
		b.Fatal(err)
	}
	serve := command(b, home, append([]string{"serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", dsn, "--retain", "0"}, args...)...)
	said := newOutput()
	serve.Stderr = said
	if err := serve.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = serve.Process.Kill(); _ = serve.Wait() })
	return dsn, "http://" + said.await(b, `msg=listening addr=([0-9.:]+)`)[1]
}

// runPgbench inserts single rows with 64 clients for the given number of seconds, and returns the number of rows per
// second. more are additional arguments of pgbench.
func runPgbench(b *testing.B, pgbench, dsn, schema string, seconds int, more ...string) float64 {
	b.Helper()
	script := filepath.Join(b.TempDir(), schema+".sql")
	insert := fmt.Sprintf(`INSERT INTO %s.notifications (recipient, event, data) VALUES ('user' || (random() * 1000)::int, 'notify', '{"msg": "Bob liked your post"}');`, schema)
	if err := os.WriteFile(script, []byte(insert), 0o644); err != nil {
		b.Fatal(err)
	}
	args := append([]string{"-n", "-c", "64", "-j", "2", "-T", strconv.Itoa(seconds), "-f", script}, more...)
	out, err := exec.Command(pgbench, append(args, dsn)...).CombinedOutput()
	found := regexp.MustCompile(`tps = ([0-9.]+)`).FindSubmatch(out)
	if err != nil || found == nil {
		b.Fatalf("pgbench: %v\n%s", err, out)
	}
	rate, _ := strconv.ParseFloat(string(found[1]), 64)
	return rate
}

func benchConnect(b testing.TB, dsn string) *pgx.Conn {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), dsn)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec1(b *testing.B, conn *pgx.Conn, statement string, args ...any) {
	b.Helper()
	if _, err := conn.Exec(b.Context(), statement, args...); err != nil {
		b.Fatal(err)
	}
}
