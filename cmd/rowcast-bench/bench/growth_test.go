package bench_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/cmd/rowcast-bench/bench"
	"rowcast/sql/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// If the statement of the open transaction fails, its connection is closed. Otherwise the transaction would stay open
// until the benchmark ends.
func TestFailedTransactionLeavesNoSession(t *testing.T) {
	t.Parallel()
	ctx, dsn := dbtest.Context(t), dbtest.Database(t)
	admin, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(ctx)
	const failing = `CREATE SCHEMA failing; CREATE FUNCTION failing.pg_current_xact_id() RETURNS xid8 LANGUAGE plpgsql AS $$ BEGIN RAISE 'no number'; END $$;
		DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = failing, pg_catalog', current_database()); END $$`
	if _, err := admin.Exec(ctx, failing); err != nil {
		t.Fatal(err)
	}
	if _, err := bench.OpenTransaction(ctx, dsn); err == nil || !strings.Contains(err.Error(), "no number") {
		t.Fatalf("got the error %v, want the error of the statement", err)
	}
	const count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
	open := -1
	for deadline := time.Now().Add(time.Minute); open != 0; time.Sleep(10 * time.Millisecond) {
		if err := admin.QueryRow(ctx, count).Scan(&open); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d transactions are open after a minute, want none", open)
		}
	}
}
