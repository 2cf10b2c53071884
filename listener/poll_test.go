package listener_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/sql/dbtest"
)

func pollOnly(l *listener.Listener) { l.PollOnly, l.PollInterval = true, 10*time.Millisecond }

func TestPollOnly(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	testPollOnly(t, dsn, dsn)
}

// A transaction pooler gives every transaction any connection.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	direct := dbtest.Database(t)
	pooled := pgbouncer(t, direct)

	err := newListener(t, pooled).Preflight(limited(t))
	if !errors.Is(err, listener.ErrPooled) {
		t.Errorf("got %v, want %v", err, listener.ErrPooled)
	}
	if err := newListener(t, direct).Preflight(limited(t)); err != nil {
		t.Errorf("without the pooler: %v", err)
	}
	poller := newListener(t, pooled)
	pollOnly(poller)
	if err := poller.Preflight(limited(t)); err != nil {
		t.Errorf("polling through the pooler: %v", err)
	}
	testPollOnly(t, direct, pooled)
}

// testPollOnly writes by one connection string and listens and replays by another.
func testPollOnly(t *testing.T, write, read string) {
	conn, locker := connect(t, write), connect(t, write)
	r := listen(t, read, pollOnly)
	begin := r.next(t).Cursor
	exec(t, locker, "BEGIN")
	insert(t, locker, "held open")
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'notify', '{"msg": "hi"}')`)
	exec(t, conn, `INSERT INTO rowcast.notifications (data) SELECT to_jsonb(repeat('x', i)) FROM generate_series(1, 1000) i`)
	if row := r.rows(t, 1001)[0]; row.Recipient != "alice" || row.Event != "notify" || string(row.Data) != `{"msg": "hi"}` {
		t.Errorf("got %+v", row)
	}
	exec(t, locker, "COMMIT")
	wantData(t, r.rows(t, 1), `"held open"`)
	if one[bool](t, conn, heldExclusively) {
		t.Error("it has taken the park lock")
	}

	replayer, err := r.NewReplayer(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	r.caughtUp(t)
	end := r.last.Cursor
	rows := replay(t, replayer, begin.String(), end.String(), []string{"alice"})
	if len(rows) != len(r.told) {
		t.Errorf("replayed %d rows, want %d", len(rows), len(r.told))
	}
	for name, c := range map[string]cursor.Cursor{"its own": end, "the first": begin} {
		if stands, err := replayer.Stands(limited(t), c, end); err != nil || !stands {
			t.Errorf("%s cursor stands: got %t, %v", name, stands, err)
		}
	}
}

// pgbouncer runs a PgBouncer in transaction pooling before a database, until the test ends.
func pgbouncer(t *testing.T, dsn string) (pooled string) {
	t.Helper()
	program, err := osexec.LookPath("pgbouncer")
	if err != nil {
		t.Skip("PgBouncer is not installed (apt-get install pgbouncer)")
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "pgbouncer.ini")
	ini := fmt.Sprintf(`[databases]
* = host=%s port=%d user=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 5
`, config.Host, config.Port, config.User, port)
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
			t.Fatalf("PgBouncer does not answer: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// unprivileged makes a program run as the user whom PostgreSQL runs as: PgBouncer refuses root, and the server's socket refuses
// others.
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
		uid, _ := strconv.ParseUint(account.Uid, 10, 32)
		gid, _ := strconv.ParseUint(account.Gid, 10, 32)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	t.Skip("there is no user postgres or nobody, and PgBouncer refuses root")
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}
