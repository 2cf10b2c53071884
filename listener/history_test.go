package listener_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/sql/dbtest"
)

// takeBack does to the table what a crash does: rows are gone, the epoch is over, and so are the hub's sessions.
func takeBack(t *testing.T, conn *pgx.Conn, data ...string) {
	t.Helper()
	exec(t, conn, "DELETE FROM rowcast.notifications WHERE data #>> '{}' = ANY ($1)", data)
	exec(t, conn, "TRUNCATE rowcast.epoch")
	exec(t, conn, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE 'rowcast%'`)
}

// recovered waits for a batch that says what is left, and returns the id of the last row that stands.
func (r *reader) recovered(t *testing.T) int64 {
	t.Helper()
	for {
		switch b := r.next(t); {
		case b.Reset != "":
			t.Fatal("reset, though told rows are left")
		case b.Clamp != nil:
			return b.Clamp.ID
		}
	}
}

// Each crash may take back more than the one before, also when nothing has been told in between.
func TestSeveralCrashes(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	r := listen(t, dsn)
	for _, data := range []string{"1", "2", "3", "4"} {
		insert(t, conn, data)
	}
	rows := r.rows(t, 4)
	takeBack(t, conn, "3", "4")
	if got := r.recovered(t); got != rows[1].ID {
		t.Errorf("row %d is left, want %d", got, rows[1].ID)
	}
	takeBack(t, conn, "2")
	if got := r.recovered(t); got != rows[0].ID {
		t.Errorf("row %d is left, want %d", got, rows[0].ID)
	}
	insert(t, conn, "5")
	wantData(t, r.rows(t, 1), `"5"`)
	takeBack(t, conn, "1", "5")
	for {
		if b := r.next(t); b.Clamp != nil {
			t.Fatalf("goes on from row %d, though none is left", b.Clamp.ID)
		} else if b.Reset != "" {
			if b.Reset != listener.ResetHistory {
				t.Errorf("got %s", b.Reset)
			}
			break
		}
	}
}
