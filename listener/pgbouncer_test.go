package listener_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	osexec "os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/sql/dbtest"
)

// A hub works through a pooler in session mode, and logs no warning.
func TestSessionPooler(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	pooled := pgbouncer(t, dsn, "session", 10)
	if err := newListener(t, pooled).Preflight(limited(t)); err != nil {
		t.Fatalf("Preflight: %v", err)
	}
	var log lines
	r := listen(t, pooled, func(l *listener.Listener) {
		l.Logger = slog.New(slog.NewTextHandler(&log, nil))
		l.Disconnect = func(recipient string) { t.Errorf("%q is disconnected", recipient) }
	})
	r.waitForLock(t, 1)
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
	r.caughtUp(t)
	if strings.Contains(log.text(), "level=WARN") || len(r.messages) > 0 {
		t.Errorf("got %d messages, want no messages and no warnings; the log is\n%s", len(r.messages), log.text())
	}
}

// A hub refuses a pooler in transaction mode, but with PollOnly it works through the pooler. The session behind the
// pooler does not keep the hub's settings.
func TestTransactionPooler(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	pooled := pgbouncer(t, dsn, "transaction", 1)
	if err := newListener(t, pooled).Preflight(limited(t)); !errors.Is(err, listener.ErrPooled) {
		t.Errorf("Preflight: got %v, want %v", err, listener.ErrPooled)
	}
	begin := one[string](t, conn, "SELECT rowcast.cursor()")
	r := listen(t, pooled, func(l *listener.Listener) { l.PollOnly = true })
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
	replayer, err := r.NewReplayer(limited(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	wantData(t, replay(t, replayer, begin, r.last.Cursor.String(), nil), `"1"`)
	config, err := pgx.ParseConfig(pooled)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	other, err := pgx.ConnectConfig(limited(t), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close(limited(t)) })
	for setting, want := range map[string]string{"search_path": `"$user", public`, "enable_seqscan": "on", "row_security": "on"} {
		if got := one[string](t, other, "SELECT current_setting($1)", setting); got != want {
			t.Errorf("a session behind the pooler has %s = %s, want %s", setting, got, want)
		}
	}
}

// pgbouncer runs PgBouncer in front of a database until the test ends. The parameter mode is the pool mode, and
// sessions is the largest number of sessions of the pool. It returns a connection string for PgBouncer.
func pgbouncer(t *testing.T, dsn, mode string, sessions int) (pooled string) {
	t.Helper()
	program := dbtest.Program(t, "pgbouncer", "pgbouncer", "/usr/sbin/pgbouncer")
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	port := dbtest.Port(t)
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
	cmd := osexec.Command(program, file)
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
		conn, err := pgx.Connect(limited(t), pooled)
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

// unprivileged makes a program run as the user postgres, _postgres or nobody if the test runs as root, because
// PgBouncer does not run as root. It lets the user read dir. If there is no such user, it skips the test.
func unprivileged(t *testing.T, cmd *osexec.Cmd, dir string) {
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
		dbtest.RunAs(cmd, uid, gid)
		for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	t.Skip("PgBouncer refuses to run as root, and this machine has no user postgres, _postgres or nobody")
}
