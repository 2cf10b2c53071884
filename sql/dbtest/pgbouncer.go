package dbtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PgBouncer runs PgBouncer in front of a database until the test ends. mode is the pool mode, session or transaction,
// and sessions is the largest number of sessions of the pool. pooled is a connection string for PgBouncer. If PgBouncer
// is not installed, the test ends with [Missing].
func PgBouncer(t testing.TB, dsn, mode string, sessions int) (pooled string) {
	t.Helper()
	program := Program(t, "pgbouncer", "pgbouncer", "/usr/sbin/pgbouncer")
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	port, file := Port(t), filepath.Join(Home(t), "pgbouncer.ini")
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
	if os.Geteuid() == 0 { // PgBouncer refuses to run as root, and only root and the owner can enter the socket's directory
		info, err := os.Stat(config.Host)
		if err != nil {
			t.Fatal(err)
		}
		uid, gid := Owner(info)
		RunAs(cmd, uid, gid)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	pooled = fmt.Sprintf("postgres://anybody@127.0.0.1:%d/%s?sslmode=disable", port, config.Database)
	for ctx := Context(t); ; time.Sleep(10 * time.Millisecond) {
		conn, err := pgx.Connect(ctx, pooled)
		if err == nil {
			_ = conn.Close(ctx)
			return pooled
		}
		if ctx.Err() != nil {
			t.Fatalf("PgBouncer did not answer in time: %v", err)
		}
	}
}
