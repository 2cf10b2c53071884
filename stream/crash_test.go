package stream_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// numbers are the transaction number and the id that PostgreSQL assigns to a row.
type numbers struct{ xid, id int64 }

// insertNumbered inserts a row for alice and returns its numbers.
func insertNumbered(t *testing.T, db *pgx.Conn, data string) (n numbers) {
	t.Helper()
	err := db.QueryRow(dbtest.Context(t), `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', to_jsonb($1::text))
		RETURNING xid::text::bigint, id`, data).Scan(&n.xid, &n.id)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// useUpIDs uses the ids that the write-ahead log has already reserved. The log reserves 32 ids at a time. The server
// does not assign reserved ids again after a crash, but it may assign later ids again.
func useUpIDs(t *testing.T, db *pgx.Conn) {
	t.Helper()
	exec(t, db, `SELECT nextval('rowcast.notifications_id_seq')
		FROM generate_series(1, (SELECT log_cnt FROM rowcast.notifications_id_seq))`)
}

// wantAssignedAgain checks that a row has the first id of the lost rows, and one of their transaction numbers. This
// need not be their first transaction number, because the first hub that reconnects uses a number to begin the epoch.
func wantAssignedAgain(t *testing.T, got numbers, lost []numbers) {
	t.Helper()
	if got.id != lost[0].id || !slices.ContainsFunc(lost, func(n numbers) bool { return n.xid == got.xid }) {
		t.Errorf("assigned %+v, want the first id and one of the transaction numbers of the lost rows %+v; otherwise the test shows nothing", got, lost)
	}
}

// wantRest resumes from a cursor and checks the data of the next events. A reset before one of these events fails the
// test.
func wantRest(t *testing.T, s *site, id string, want ...string) {
	t.Helper()
	c := resume(t, s, id, "alice")
	c.hello()
	c.wantData(want...)
}

func forEach(t *testing.T, disasters map[string]func(*testing.T) *disaster, test func(t *testing.T, d *disaster)) {
	for name, create := range disasters {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, create(t)) })
	}
}

// A rollback does not wait until the write-ahead log is on disk. So after a crash or a failover, PostgreSQL can assign
// the numbers of rolled-back transactions again. Connected clients receive the rows with these numbers, and so do
// clients that resume on the same hub or on another hub.
func TestNumbersOfAbortedTransactionsAreAssignedAgain(t *testing.T) {
	t.Parallel()
	forEach(t, disasters, func(t *testing.T, d *disaster) {
		hub, db := serve(t, d.dsn), connect(t, d.dsn)
		live := listen(t, hub, "alice")
		nothing := live.hello()
		insertNumbered(t, db, "survives")
		live.wantData(`"survives"`)
		useUpIDs(t, db)
		d.hold(t)
		var aborted []numbers
		for range 10 {
			exec(t, db, "BEGIN")
			aborted = append(aborted, insertNumbered(t, db, "lost"))
			exec(t, db, "ROLLBACK")
		}
		hub.caughtUp(t)
		cursors := []string{live.decoder.LastID, listen(t, hub, "alice").hello(), queryValue[string](t, db, "SELECT rowcast.cursor()")}

		d.strike(t)
		fresh := serve(t, d.dsn)
		wantAssignedAgain(t, insertNumbered(t, connect(t, d.dsn), "again"), aborted)
		live.wantData(`"again"`)
		for _, s := range []*site{hub, fresh} {
			wantRest(t, s, nothing, `"survives"`, `"again"`)
			for _, id := range cursors {
				wantRest(t, s, id, `"again"`)
			}
			wantResets(t, s, 0)
		}
	})
}

func wantResets(t *testing.T, s *site, want int64) {
	t.Helper()
	if got := s.hub.Stats.Resets.Load(); got != want {
		t.Errorf("got %d resets, want %d", got, want)
	}
}

// A crash or a failover loses rows that were sent, and later rows get the same numbers. The hub that sent the lost rows
// can convert the cursors of all clients, so they miss no later row. Another hub cannot convert the cursor of a client
// that has seen lost rows. It resets such a client, and no others.
func TestSentRowsAreLost(t *testing.T) {
	t.Parallel()
	forEach(t, disasters, func(t *testing.T, d *disaster) {
		hub, db := serve(t, d.dsn), connect(t, d.dsn)
		live := listen(t, hub, "alice")
		nothing := live.hello()
		insertNumbered(t, db, "survives")
		live.wantData(`"survives"`)
		afterFirst := live.decoder.LastID
		useUpIDs(t, db)
		d.hold(t)
		exec(t, db, "SET synchronous_commit = off")
		var lost []numbers
		var seen []string
		for range 10 {
			lost = append(lost, insertNumbered(t, db, "lost"))
			live.wantData(`"lost"`)
			seen = append(seen, live.decoder.LastID)
		}
		seen = append(seen, queryValue[string](t, db, "SELECT rowcast.cursor()"))

		d.strike(t)
		fresh := serve(t, d.dsn)
		db = connect(t, d.dsn)
		wantAssignedAgain(t, insertNumbered(t, db, "again"), lost)
		live.wantData(`"again"`)
		for _, id := range seen {
			wantRest(t, hub, id, `"again"`)
		}
		for _, s := range []*site{hub, fresh} {
			wantRest(t, s, afterFirst, `"again"`)
			wantRest(t, s, nothing, `"survives"`, `"again"`)
			wantResets(t, s, 0)
		}
		now := listen(t, fresh, "alice").hello()
		for _, id := range seen {
			wantReset(resume(t, fresh, id, "alice"), "a cursor that has seen lost rows", "history", now)
		}
	})
}

// Several crashes lose rows that were sent. The first crash loses all rows of the table. A client that resumes after
// the last crash receives the rows that it has missed, and is not reset.
func TestSeveralCrashesInARow(t *testing.T) {
	t.Parallel()
	d := crash(t, killBackend)
	hub := serve(t, d.dsn)
	live := listen(t, hub, "alice")
	rest := map[string][]string{live.hello(): nil}
	insert := func(db *pgx.Conn, data string) numbers {
		assigned := insertNumbered(t, db, data)
		live.wantData(`"` + data + `"`)
		return assigned
	}
	insertForGood := func(db *pgx.Conn, data string) numbers {
		assigned := insert(db, data)
		for id := range rest {
			rest[id] = append(rest[id], `"`+data+`"`)
		}
		rest[live.decoder.LastID] = nil
		return assigned
	}
	db := connect(t, d.dsn)
	for range 3 {
		useUpIDs(t, db)
		d.hold(t)
		exec(t, db, "SET synchronous_commit = off")
		var lost []numbers
		for range 3 {
			lost = append(lost, insert(db, "lost"))
			rest[live.decoder.LastID] = nil
		}
		d.strike(t)
		// Wait until the hub has begun the new epoch. The commit of the next row then also writes the hub's transaction,
		// which began the epoch, to disk. Otherwise the next crash could lose that transaction, and PostgreSQL could
		// assign its number again.
		hub.caughtUp(t)
		db = connect(t, d.dsn)
		wantAssignedAgain(t, insertForGood(db, "again"), lost)
	}
	insertForGood(db, "last")
	for id, want := range rest {
		wantRest(t, hub, id, want...)
	}
	wantResets(t, hub, 0)
}

// If a crash, a failover or a restart loses no row that was sent, all clients continue without a reset, on the same hub
// or on another hub.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	all := maps.Clone(disasters)
	all["restart"] = cleanRestart
	forEach(t, all, func(t *testing.T, d *disaster) {
		hub, db, open := serve(t, d.dsn), connect(t, d.dsn), connect(t, d.dsn)
		live := listen(t, hub, "alice")
		cursors := []string{live.hello()}
		exec(t, open, "BEGIN")
		insertNumbered(t, open, "of a transaction that never commits")
		rows := []string{`"0"`, `"1"`, `"2"`, `"after"`}
		for i := range 3 {
			insertNumbered(t, db, fmt.Sprint(i))
			live.wantData(rows[i])
			cursors = append(cursors, live.decoder.LastID)
		}
		d.strike(t)
		fresh := serve(t, d.dsn)
		insertNumbered(t, connect(t, d.dsn), "after")
		live.wantData(rows[3])
		for _, s := range []*site{hub, fresh} {
			for sent, id := range cursors {
				wantRest(t, s, id, rows[sent:]...)
			}
			wantResets(t, s, 0)
		}
	})
}
