package main_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// Several hubs can share a database: a row reaches clients of every hub. Each hub uses two sessions, and more at
// times, for example when it deletes or replays rows.
func TestSeveralHubs(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	hubs := []*hub{serve(t, dsn, "--retain", "0"), serve(t, dsn, "--retain", "0"), serve(t, dsn, "--retain", "0")}
	var tails []*process
	for _, h := range hubs {
		tails = append(tails, h.tail(t, "alice"))
	}
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')`)
	for _, tail := range tails {
		tail.out.await(t, `"data":1}`)
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	const count = `SELECT count(*) FILTER (WHERE application_name = 'rowcast listener'), count(*) FILTER (WHERE application_name = 'rowcast park lock'),
		count(*) FILTER (WHERE application_name = 'rowcast replay'), count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name <> ''`
	var listeners, locks, replays, all int
	if err := conn.QueryRow(t.Context(), count).Scan(&listeners, &locks, &replays, &all); err != nil {
		t.Fatal(err)
	}
	if listeners != len(hubs) || locks != len(hubs) || replays > len(hubs) || all != listeners+locks+replays {
		t.Errorf("got %d connections of listeners, want %d; %d for the park lock, want %d; %d for replays, want at most %d; %d in total, want %d",
			listeners, len(hubs), locks, len(hubs), replays, len(hubs), all, listeners+locks+replays)
	}
}
