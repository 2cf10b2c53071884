package listener_test

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// The listener delivers rows in UTF-8, even if the encoding of the database and its default client_encoding are LATIN1,
// and standard_conforming_strings is off by default.
func TestOtherEncodings(t *testing.T) {
	t.Parallel()
	server := dbtest.Empty(t)
	admin := connect(t, server)
	for _, poll := range []bool{false, true} {
		t.Run(fmt.Sprintf("poll %v", poll), func(t *testing.T) {
			name := fmt.Sprintf("latin_%d_%v", admin.PgConn().PID(), poll)
			exec(t, admin, "CREATE DATABASE "+name+" ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
			t.Cleanup(func() {
				cleanup, err := pgx.Connect(context.Background(), server)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = cleanup.Close(context.Background()) }()
				if _, err := cleanup.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
					t.Error(err)
				}
			})
			exec(t, admin, "ALTER DATABASE "+name+" SET standard_conforming_strings = off")
			exec(t, admin, "ALTER DATABASE "+name+" SET client_encoding = 'LATIN1'")
			config, err := pgx.ParseConfig(server)
			if err != nil {
				t.Fatal(err)
			}
			dsn := fmt.Sprintf("host=%s port=%d user=%s dbname=%s", config.Host, config.Port, config.User, name)
			if _, _, err := sql.Migrate(limited(t), dsn); err != nil {
				t.Fatal(err)
			}
			r := listen(t, dsn, func(l *listener.Listener) { l.PollOnly = poll })
			exec(t, connect(t, dsn+" client_encoding=UTF8"), "INSERT INTO rowcast.notifications (recipient, data) VALUES ($1, to_jsonb($2::text))", "ünï", "é")
			if got := r.rows(t, 1)[0]; got.Recipient != "ünï" || string(got.Data) != `"é"` {
				t.Errorf("got data %q for recipient %q, want %q for %q", got.Data, got.Recipient, `"é"`, "ünï")
			}
		})
	}
}

// A user or topic whose name has no form in the encoding of the database has no rows. The rows for the other recipients
// of the stream are replayed.
func TestReplayForARecipientThatTheDatabaseCannotStore(t *testing.T) {
	t.Parallel()
	dsn := odd(t, "LATIN1")
	conn := connect(t, dsn+" client_encoding=UTF8")
	before := one[string](t, conn, "SELECT rowcast.cursor()")
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('ünï', '"1"'), ('*', '"2"'), ('x', '"3"')`)
	for _, poll := range []bool{false, true} {
		l := newListener(t, dsn)
		l.PollOnly = poll
		replayer, err := l.NewReplayer(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(replayer.Close)
		wantData(t, replay(t, replayer, before, one[string](t, conn, "SELECT rowcast.cursor()"), []string{"€", "ünï"}), `"1"`, `"2"`)
	}
}

// A request to disconnect a user or topic reaches the other listeners, even if the name has no form in the encoding of the
// database.
func TestDisconnectARecipientThatTheDatabaseCannotStore(t *testing.T) {
	t.Parallel()
	dsn := odd(t, "LATIN1")
	heard := make(chan string, 10)
	hub := listen(t, dsn, func(l *listener.Listener) { l.Disconnect = func(recipient string) { heard <- recipient } })
	hub.waitForLock(t, 1)
	replayer, err := newListener(t, dsn).NewReplayer(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	for _, want := range []string{"日本 €", "ünï", `"😀`} {
		if err := replayer.Disconnect(limited(t), want); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-heard:
			if got != want {
				t.Errorf("received %q, want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("waited %v for %q", patience, want)
		}
	}
}

// odd creates a database in an encoding, with the schema, and returns a connection string. It drops the constraints for
// the size of data, and the constraint that refuses text without a UTF-8 form.
func odd(t testing.TB, encoding string) string {
	t.Helper()
	server := dbtest.Empty(t)
	admin := connect(t, server)
	name := fmt.Sprintf("%s_%d", strings.ToLower(encoding), admin.PgConn().PID())
	exec(t, admin, fmt.Sprintf("CREATE DATABASE %s ENCODING '%s' LOCALE 'C' TEMPLATE template0", name, encoding))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cleanup, err := pgx.Connect(ctx, server)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cleanup.Close(ctx) }()
		if _, err := cleanup.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	dsn := fmt.Sprintf("host=%s port=%d user=%s dbname=%s", admin.Config().Host, admin.Config().Port, admin.Config().User, name)
	conn := connect(t, dsn)
	exec(t, conn, "CREATE SCHEMA rowcast")
	files, err := fs.Glob(sql.Migrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := fs.ReadFile(sql.Migrations, file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.PgConn().Exec(limited(t), "BEGIN;"+string(text)+"COMMIT;").ReadAll(); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	for _, constraint := range []string{"data_expands_at_most_32_fold", "data_is_at_most_64_mib", "has_utf8_form"} {
		exec(t, conn, "ALTER TABLE rowcast.notifications DROP CONSTRAINT IF EXISTS "+constraint)
	}
	return dsn
}

// If the event or data of a row has no form in UTF-8, the row is delivered as unreadable. If the recipient has no such
// form, the row is skipped.
func TestTextWithoutAFormInUTF8(t *testing.T) {
	t.Parallel()
	for encoding, bad := range map[string]string{"SQL_ASCII": `\xe9`, "EUC_JIS_2004": `\x8ffefe`, "EUC_TW": `\xa9a9`} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			dsn := odd(t, encoding)
			conn := connect(t, dsn)
			readInEveryWay(t, dsn, func() {
				exec(t, conn, fmt.Sprintf(`WITH bad AS (SELECT convert_from('%s', getdatabaseencoding()) AS text)
					INSERT INTO rowcast.notifications (recipient, event, data)
					SELECT 'alice', 'e', '1'::jsonb UNION ALL
					SELECT 'alice', 'e', jsonb_build_object('msg', 'caf' || text) FROM bad UNION ALL
					SELECT 'alice', 'e' || text, '2'  FROM bad UNION ALL
					SELECT 'bob' || text, 'e', '3' FROM bad UNION ALL
					SELECT 'alice', 'e', '4'`, bad))
				exec(t, conn, fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, data) VALUES
					('bob' || convert_from('%s', getdatabaseencoding()), '5')`, bad))
				exec(t, conn, "INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'e', '6')")
			}, []string{
				"alice e 1", "alice  unreadable: encoding", "alice  unreadable: encoding", "alice e 4", "alice e 6",
			}, 4)
		})
	}
}

// PostgreSQL breaks the connection of each session that receives a notification whose payload has no form in UTF-8. A
// role that sends such notifications all the time does not stop the delivery of rows.
func TestAttackNotificationsWithoutAFormInUTF8(t *testing.T) {
	t.Parallel()
	dsn := odd(t, "EUC_TW")
	r := listen(t, dsn)
	attacker, conn := connect(t, dsn), connect(t, dsn)
	ctx, stop := context.WithCancel(limited(t))
	var attack sync.WaitGroup
	attack.Go(func() {
		for ctx.Err() == nil {
			_, _ = attacker.Exec(ctx, `SELECT pg_notify('rowcast', clock_timestamp()::text || convert_from('\xa9a9', 'EUC_TW'))`)
		}
	})
	defer attack.Wait()
	defer stop()
	for i := range 5 {
		exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', to_jsonb($1::int))", i)
		if got := r.rows(t, 1)[0]; string(got.Data) != fmt.Sprint(i) {
			t.Errorf("got the data %s, want %d", got.Data, i)
		}
	}
}

// After such a notification, the listener polls for a while without LISTEN. Then it listens again, and receives the
// notification of a row.
func TestListensAgainAfterThePause(t *testing.T) {
	t.Parallel()
	dsn := odd(t, "EUC_TW")
	var log lines
	r := listen(t, dsn, func(l *listener.Listener) {
		listener.SetListenPause(l, time.Second)
		l.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	holdsSoon(t, "the park lock of the first session", func() bool { return r.Stats.ParkLocks.Load() >= 1 })
	conn := connect(t, dsn)
	holdsSoon(t, "the pause", func() bool {
		exec(t, conn, `SELECT pg_notify('rowcast', clock_timestamp()::text || convert_from('\xa9a9', 'EUC_TW'))`)
		return strings.Contains(log.text(), "polling without LISTEN")
	})
	holdsSoon(t, "the park lock of another session", func() bool { return r.Stats.ParkLocks.Load() >= 2 })
	insert(t, conn, "next")
	wantData(t, r.rows(t, 1), `"next"`)
	if n := r.Stats.Unnotified.Load(); n > 0 {
		t.Errorf("%d rows were found without a notification, want none", n)
	}
}
