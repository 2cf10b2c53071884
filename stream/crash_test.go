package stream_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// numbers are what an insertion draws.
type numbers struct{ xid, id int64 }

// draw inserts a row for alice and tells its numbers.
func draw(t *testing.T, db *pgx.Conn, data string) (n numbers) {
	t.Helper()
	err := db.QueryRow(dbtest.Context(t), `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', to_jsonb($1::text))
		RETURNING xid::text::bigint, id`, data).Scan(&n.xid, &n.id)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// exhaust draws the ids that the log already counts as drawn: it does so 32 at a time, and a crash would jump over them.
func exhaust(t *testing.T, db *pgx.Conn) {
	t.Helper()
	exec(t, db, `SELECT nextval('rowcast.notifications_id_seq')
		FROM generate_series(1, (SELECT log_cnt FROM rowcast.notifications_id_seq))`)
}

// wantDrawnAgain is that a row has the numbers of those that were taken back: the first id, and one of the transactions. The
// first hub to come back takes one for its epoch.
func wantDrawnAgain(t *testing.T, got numbers, lost []numbers) {
	t.Helper()
	if got.id != lost[0].id || !slices.ContainsFunc(lost, func(n numbers) bool { return n.xid == got.xid }) {
		t.Errorf("drew %v, want the id and a transaction of %v: this shows nothing", got, lost)
	}
}

// wantRest resumes from a cursor and is told what is still to come, without a reset.
func wantRest(t *testing.T, s *site, id string, want ...string) {
	t.Helper()
	c := resume(t, s, id, "alice")
	c.hello()
	c.wantTold(want...)
}

func forEach(t *testing.T, disasters map[string]func(*testing.T) *disaster, test func(t *testing.T, d *disaster)) {
	for name, make := range disasters {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, make(t)) })
	}
}

// Transactions that failed leave no trace in the log, and a crash gives their numbers to others. Who was there, and who comes
// back with any cursor to any hub, is told the rows that have them.
func TestNumbersOfAbortedTransactionsAreDrawnAgain(t *testing.T) {
	t.Parallel()
	forEach(t, disasters, func(t *testing.T, d *disaster) {
		hub, db := serve(t, d.dsn), connect(t, d.dsn)
		live := listen(t, hub, "alice")
		nothing := live.hello()
		draw(t, db, "stands")
		live.wantTold(`"stands"`)
		exhaust(t, db)
		d.hold(t)
		var aborted []numbers
		for range 10 {
			exec(t, db, "BEGIN")
			aborted = append(aborted, draw(t, db, "taken back"))
			exec(t, db, "ROLLBACK")
		}
		hub.caughtUp(t)
		cursors := []string{live.decoder.LastID, listen(t, hub, "alice").hello(), one[string](t, db, "SELECT rowcast.cursor()")}

		d.strike(t)
		fresh := serve(t, d.dsn)
		wantDrawnAgain(t, draw(t, connect(t, d.dsn), "again"), aborted)
		live.wantTold(`"again"`)
		for _, s := range []*site{hub, fresh} {
			wantRest(t, s, nothing, `"stands"`, `"again"`)
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
		t.Errorf("%d resets, want %d", got, want)
	}
}

// Rows that were told and are taken back are gone, but nobody misses what draws their numbers: the hub that told them knows what
// each cursor is still worth; one that does not know says so to those who have seen them, and to nobody else.
func TestToldRowsAreTakenBack(t *testing.T) {
	t.Parallel()
	forEach(t, disasters, func(t *testing.T, d *disaster) {
		hub, db := serve(t, d.dsn), connect(t, d.dsn)
		live := listen(t, hub, "alice")
		nothing := live.hello()
		draw(t, db, "stands")
		live.wantTold(`"stands"`)
		stands := live.decoder.LastID
		exhaust(t, db)
		d.hold(t)
		exec(t, db, "SET synchronous_commit = off")
		var lost []numbers
		var seen []string
		for range 10 {
			lost = append(lost, draw(t, db, "taken back"))
			live.wantTold(`"taken back"`)
			seen = append(seen, live.decoder.LastID)
		}
		seen = append(seen, one[string](t, db, "SELECT rowcast.cursor()"))

		d.strike(t)
		fresh := serve(t, d.dsn)
		db = connect(t, d.dsn)
		wantDrawnAgain(t, draw(t, db, "again"), lost)
		live.wantTold(`"again"`)
		for _, id := range seen {
			wantRest(t, hub, id, `"again"`)
		}
		for _, s := range []*site{hub, fresh} {
			wantRest(t, s, stands, `"again"`)
			wantRest(t, s, nothing, `"stands"`, `"again"`)
			wantResets(t, s, 0)
		}
		now := listen(t, fresh, "alice").hello()
		for _, id := range seen {
			wantReset(resume(t, fresh, id, "alice"), "who has seen what is gone", "history", now)
		}
	})
}

// What is taken back may be taken back again and again, and the first time it may be all that there was, until a client returns to
// the hub.
func TestSeveralCrashesInARow(t *testing.T) {
	t.Parallel()
	d := crash(t, killBackend)
	hub := serve(t, d.dsn)
	live := listen(t, hub, "alice")
	rest := map[string][]string{live.hello(): nil}
	tell := func(db *pgx.Conn, data string) numbers {
		drawn := draw(t, db, data)
		live.wantTold(`"` + data + `"`)
		return drawn
	}
	stand := func(db *pgx.Conn, data string) numbers {
		drawn := tell(db, data)
		for id := range rest {
			rest[id] = append(rest[id], `"`+data+`"`)
		}
		rest[live.decoder.LastID] = nil
		return drawn
	}
	db := connect(t, d.dsn)
	for range 3 {
		exhaust(t, db)
		d.hold(t)
		exec(t, db, "SET synchronous_commit = off")
		var lost []numbers
		for range 3 {
			lost = append(lost, tell(db, "taken back"))
			rest[live.decoder.LastID] = nil
		}
		d.strike(t)
		hub.caughtUp(t) // the epoch's transaction comes first, else the next crash would take it back, too
		db = connect(t, d.dsn)
		wantDrawnAgain(t, stand(db, "again"), lost)
	}
	stand(db, "last")
	for id, want := range rest {
		wantRest(t, hub, id, want...)
	}
	wantResets(t, hub, 0)
}

// Where nothing is taken back that was told, everybody goes on at every hub as if nothing had been.
func TestNothingIsTakenBack(t *testing.T) {
	t.Parallel()
	all := maps.Clone(disasters)
	all["restart"] = cleanRestart
	forEach(t, all, func(t *testing.T, d *disaster) {
		hub, db, open := serve(t, d.dsn), connect(t, d.dsn), connect(t, d.dsn)
		live := listen(t, hub, "alice")
		cursors := []string{live.hello()}
		exec(t, open, "BEGIN")
		draw(t, open, "in flight, and never committed")
		rows := []string{`"0"`, `"1"`, `"2"`, `"after"`}
		for i := range 3 {
			draw(t, db, fmt.Sprint(i))
			live.wantTold(rows[i])
			cursors = append(cursors, live.decoder.LastID)
		}
		d.strike(t)
		fresh := serve(t, d.dsn)
		draw(t, connect(t, d.dsn), "after")
		live.wantTold(rows[3])
		for _, s := range []*site{hub, fresh} {
			for told, id := range cursors {
				wantRest(t, s, id, rows[told:]...)
			}
			wantResets(t, s, 0)
		}
	})
}
