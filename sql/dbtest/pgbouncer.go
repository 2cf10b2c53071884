package dbtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PgBouncer runs PgBouncer in front of a database until the test ends. mode is
// the pool mode, session or transaction, and sessions is the largest number of
// sessions of the pool. It returns a connection string for PgBouncer. If
// PgBouncer is not installed, the test ends with [Missing].
func PgBouncer(t testing.TB, dsn, mode string, sessions int) (pooled string) {
	t.Helper()
	program := Program(t, "pgbouncer", "pgbouncer", "/usr/sbin/pgbouncer")
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	port := Port(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "pgbouncer.ini")
	ini := fmt.Sprintf(`[databases]
* = host=%s port=%d user=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = %s
default_pool_size = %d
`, config.Host, config.Port, config.User, port, mode, sessions)
	if err := os.WriteFile(file, []byte(ini), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, file)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	unprivileged(t, cmd, dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	pooled = fmt.Sprintf("postgres://anybody@127.0.0.1:%d/%s?sslmode=disable", port, config.Database)
	for deadline := time.Now().Add(patience); ; {
		conn, err := pgx.Connect(Context(t), pooled)
		if err == nil {
			_ = conn.Close(context.Background())
			return pooled
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for PgBouncer to answer: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// unprivileged makes a program run as the user postgres, _postgres or nobody if
// the test runs as root, because PgBouncer does not run as root. It lets the
// user read dir. If there is no such user, it skips the test.
func unprivileged(t testing.TB, cmd *exec.Cmd, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.Atoi(account.Uid)
		gid, _ := strconv.Atoi(account.Gid)
		RunAs(cmd, uid, gid)
		for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	t.Skip("PgBouncer refuses to run as root, and this machine has no user postgres, _postgres or nobody")
}
