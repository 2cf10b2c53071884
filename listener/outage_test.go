package listener_test

import (
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/failures"
	"rowcast/sql/dbtest"
)

// If only one of the hub's two connections can be opened, the pauses between the attempts to begin a session grow, and
// few lines are logged. Once both can be opened, a session begins.
func TestRefusedSecondConnectionIsRetriedWithPauses(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	role := createRole(t, dsn, "hub", hubGrants...)
	exec(t, conn, "ALTER ROLE "+role+" LOGIN CONNECTION LIMIT 1")
	var log lines
	r := listen(t, dsn, func(l *listener.Listener) {
		l.Config.User = role
		l.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	pauses := func() [][]string { return regexp.MustCompile(`retry_in=(\S+)`).FindAllStringSubmatch(log.text(), -1) }
	holdsSoon(t, "five failed attempts", func() bool { return len(pauses()) >= 5 })
	fifth := pauses()[4][1]
	if pause, err := time.ParseDuration(fifth); err != nil || pause < 800*time.Millisecond {
		t.Errorf("the fifth pause is %s, want at least 800 ms, half of the 1.6 s that the pause has without jitter", fifth)
	}
	if r.Connected() || r.Stats.Sessions.Load() != 0 {
		t.Errorf("got connected %t and %d complete sessions, want false and 0", r.Connected(), r.Stats.Sessions.Load())
	}
	if got := log.text(); !strings.Contains(got, `msg="cannot connect to PostgreSQL" error="second connection, for the park lock: `) {
		t.Errorf("want a line about the missing second connection, the log is\n%s", got)
	}
	exec(t, conn, "ALTER ROLE "+role+" CONNECTION LIMIT 2")
	r.waitForLock(t, 1)
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
	got := log.text()
	if strings.Count(got, "connected to PostgreSQL") != 1 || strings.Contains(got, "lost") || strings.Count(got, "\n") > 10 {
		t.Errorf("want one line about the connection, none about a loss, and at most 10 lines; the log is\n%s", got)
	}
}

// An outage is logged as one line about the loss, some lines about the attempts, and one line about the new connection.
func TestOutageIsLoggedOnce(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	admin := connect(t, dbtest.Empty(t)) // a session in another database, which the outage does not affect
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	var log lines
	r := listen(t, dsn, func(l *listener.Listener) { l.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	r.waitForLock(t, 1)
	database := pgx.Identifier{config.Database}.Sanitize()
	exec(t, admin, "ALTER DATABASE "+database+" ALLOW_CONNECTIONS false")
	exec(t, admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", config.Database)
	holdsSoon(t, "four failed attempts", func() bool { return r.Failures.Of(failures.Connect).Total >= 4 })
	if r.Connected() {
		t.Error("Connected: got true during the outage, want false")
	}
	exec(t, admin, "ALTER DATABASE "+database+" ALLOW_CONNECTIONS true")
	holdsSoon(t, "the second session", func() bool { return r.Stats.Sessions.Load() == 2 })
	insert(t, connect(t, dsn), "1")
	wantData(t, r.rows(t, 1), `"1"`)
	var written []string
	for line := range strings.Lines(log.text()) {
		_, message, _ := strings.Cut(line, `msg="`)
		message, _, _ = strings.Cut(message, `"`)
		if len(written) == 0 || written[len(written)-1] != message {
			written = append(written, message)
		}
	}
	const want = "connected to PostgreSQL, lost connection to PostgreSQL, cannot connect to PostgreSQL, connected to PostgreSQL"
	if got := strings.Join(written, ", "); got != want || strings.Count(log.text(), "lost connection") != 1 {
		t.Errorf("the log has the messages (without repetitions) %s, want %s, with one line \"lost connection\"; the log is\n%s",
			got, want, log.text())
	}
}

// holdsSoon waits until holds returns true. The parameter what describes the condition.
func holdsSoon(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}
