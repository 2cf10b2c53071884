package stream_test

import (
	"context"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql"
	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// A disaster is a crash, a failover or a restart of a database, on servers that only one test uses.
type disaster struct {
	dsn string
	// hold makes the disaster lose the transactions that are committed from then on with synchronous_commit = off. It is
	// nil if the disaster loses nothing.
	hold func(t *testing.T)
	// strike causes the disaster, and returns when rows can be inserted again.
	strike func(t *testing.T)
}

// disasters are the disasters that can lose committed rows.
var disasters = map[string]func(*testing.T) *disaster{
	"kill -9 of a backend":      func(t *testing.T) *disaster { return crash(t, killBackend) },
	"kill -9 of the postmaster": func(t *testing.T) *disaster { return crash(t, killAll) },
	"failover":                  failover,
}

// crash returns a disaster in which a server crashes. The part of its write-ahead log that is not on disk is lost.
func crash(t *testing.T, kill func(t *testing.T, server *cluster.Cluster, logWriter int)) *disaster {
	t.Helper()
	server := migrated(t)
	db := connect(t, server.DSN("postgres"))
	// Autovacuum and the background writer could write the write-ahead log to disk at any moment. Then the crash would
	// not lose the transactions after hold.
	exec(t, db, "ALTER SYSTEM SET autovacuum = off")
	exec(t, db, "ALTER SYSTEM SET bgwriter_lru_maxpages = 0")
	exec(t, db, "SELECT pg_reload_conf()")
	logWriter := 0
	return &disaster{
		dsn:  server.DSN("postgres"),
		hold: func(t *testing.T) { logWriter = stopLogWriter(t, server.DSN("postgres")) },
		strike: func(t *testing.T) {
			kill(t, server, logWriter)
			logWriter = 0
		},
	}
}

func migrated(t *testing.T) *cluster.Cluster {
	t.Helper()
	server := dbtest.Cluster(t)
	if _, _, err := sql.Migrate(dbtest.Context(t), server.DSN("postgres")); err != nil {
		t.Fatal(err)
	}
	return server
}

// stopLogWriter pauses the process that writes asynchronous commits to the disk.
func stopLogWriter(t *testing.T, dsn string) (pid int) {
	t.Helper()
	db := connect(t, dsn)
	eventually(t, "the log writer runs", func() bool {
		return db.QueryRow(dbtest.Context(t), "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'").Scan(&pid) == nil
	})
	if err := stopProcess(pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

// killBackend kills the process of one session. The postmaster then ends all other processes and recovers. The
// postmaster itself is not restarted.
func killBackend(t *testing.T, server *cluster.Cluster, logWriter int) {
	t.Helper()
	db := connect(t, server.DSN("postgres"))
	const started = "SELECT pg_postmaster_start_time()::text"
	epoch, since := epochToken(t, server.DSN("postgres")), queryValue[string](t, db, started)
	if err := killProcess(int(db.PgConn().PID())); err != nil {
		t.Fatal(err)
	}
	if logWriter != 0 { // a paused process does not end when the postmaster asks it to
		if err := killProcess(logWriter); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the server has recovered", func() bool {
		now := epochToken(t, server.DSN("postgres"))
		return now != unreachable && now != epoch
	})
	if got := queryValue[string](t, connect(t, server.DSN("postgres")), started); got != since {
		t.Errorf("the postmaster was started at %s, want %s as before", got, since)
	}
}

func killAll(t *testing.T, server *cluster.Cluster, _ int) {
	t.Helper()
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(dbtest.Context(t)); err != nil {
		t.Fatal(err)
	}
}

// cleanRestart returns a disaster in which a server restarts and loses nothing. The token in rowcast.epoch does not
// change. Another epoch begins nevertheless, because the start time of the server changes.
func cleanRestart(t *testing.T) *disaster {
	t.Helper()
	server := migrated(t)
	return &disaster{dsn: server.DSN("postgres"), strike: func(t *testing.T) {
		before := epochToken(t, server.DSN("postgres"))
		if err := server.Restart(dbtest.Context(t), cluster.Fast); err != nil {
			t.Fatal(err)
		}
		if now := epochToken(t, server.DSN("postgres")); now != before {
			t.Errorf("the token in rowcast.epoch is %s, want %s as before", now, before)
		}
	}}
}

// unreachable is returned in place of a token when the server does not answer.
const unreachable = "unreachable"

// epochToken returns the token in rowcast.epoch. It is empty if no hub has connected since the server recovered from a
// crash.
func epochToken(t *testing.T, dsn string) (token string) {
	conn, err := pgx.Connect(dbtest.Context(t), dsn)
	if err != nil {
		return unreachable
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if conn.QueryRow(dbtest.Context(t), "SELECT coalesce(max(token::text), '') FROM rowcast.epoch").Scan(&token) != nil {
		return unreachable
	}
	return token
}

// failover returns a disaster in which a primary is killed and its standby is promoted. The standby has everything that
// was committed before hold, or before strike if hold is not called.
func failover(t *testing.T) *disaster {
	t.Helper()
	primary := migrated(t)
	standby := dbtest.Standby(t, primary)
	held := false
	return &disaster{
		dsn: eitherOf(t, primary, standby),
		hold: func(t *testing.T) {
			awaitReplay(t, primary, standby)
			db := connect(t, standby.DSN("postgres"))
			exec(t, db, "ALTER SYSTEM SET primary_conninfo = ''")
			exec(t, db, "SELECT pg_reload_conf()")
			eventually(t, "the standby is disconnected", func() bool { return queryValue[int](t, db, "SELECT count(*) FROM pg_stat_wal_receiver") == 0 })
			held = true
		},
		strike: func(t *testing.T) {
			if !held {
				awaitReplay(t, primary, standby)
			}
			if err := primary.Kill(); err != nil {
				t.Fatal(err)
			}
			if !queryValue[bool](t, connect(t, standby.DSN("postgres")), "SELECT pg_promote()") {
				t.Fatal("got false from pg_promote, want true")
			}
		},
	}
}

// eitherOf returns a connection string with the addresses of several servers. Connections go to the server that is the
// primary.
func eitherOf(t *testing.T, servers ...*cluster.Cluster) string {
	t.Helper()
	var either *url.URL
	for _, server := range servers {
		dsn, err := url.Parse(dbtest.TCP(t, server, "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		if either == nil {
			either = dsn
			either.RawQuery += "&target_session_attrs=read-write"
		} else {
			either.Host += "," + dsn.Host
		}
	}
	return either.String()
}

// awaitReplay waits until a standby has replayed everything that its primary has written.
func awaitReplay(t *testing.T, primary, standby *cluster.Cluster) {
	t.Helper()
	written := queryValue[string](t, connect(t, primary.DSN("postgres")), "SELECT pg_current_wal_insert_lsn()::text")
	db := connect(t, standby.DSN("postgres"))
	eventually(t, "the standby has replayed everything", func() bool {
		return queryValue[bool](t, db, "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", written)
	})
}

// queryValue returns the only value of a query.
func queryValue[T any](t testing.TB, conn *pgx.Conn, sql string, args ...any) (value T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := conn.QueryRow(ctx, sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}
