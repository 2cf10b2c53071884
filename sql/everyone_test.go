package sql_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// rows is a query for all rows of the table, each with its id, recipient and data.
const rows = "SELECT string_agg(concat_ws(' ', id, recipient, data), ', ' ORDER BY id) FROM rowcast.notifications"

// beforeEveryone returns a database whose schema has version 3, in which a recipient NULL means everyone.
func beforeEveryone(t *testing.T) (dsn string, conn *pgx.Conn) {
	t.Helper()
	dsn = dbtest.Empty(t)
	conn = connect(t, dsn)
	installUpTo(t, conn, 3)
	return dsn, conn
}

// migrateEveryone upgrades a schema of version 3.
func migrateEveryone(t *testing.T, dsn string) {
	t.Helper()
	if from, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil || from != 3 {
		t.Fatalf("Migrate: found version %d, %v, want 3", from, err)
	}
}

// Migration 4 turns the recipient NULL into '*'. Rows of a user with the id '*' are not sent to everyone. The table
// then refuses rows without a recipient.
func TestMigrateNamesEveryone(t *testing.T) {
	t.Parallel()
	dsn, conn := beforeEveryone(t)
	run(t, conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES (NULL, '1'), ('*', '2'), ('alice', '3'), ('**', '4')`)
	run(t, conn, `INSERT INTO rowcast.notifications (data) VALUES ('5')`)
	migrateEveryone(t, dsn)
	if got, want := text(t, conn, rows), "1 * 1, 2 * (a user) 2, 3 alice 3, 4 ** 4, 5 * 5"; got != want {
		t.Errorf("got the rows %s, want %s", got, want)
	}
	for _, refused := range []string{"(data) VALUES ('6')", "(recipient, data) VALUES (NULL, '6')"} {
		_, err := conn.Exec(dbtest.Context(t), "INSERT INTO rowcast.notifications "+refused)
		if failure, ok := errors.AsType[*pgconn.PgError](err); !ok || failure.Code != "23502" || failure.ColumnName != "recipient" {
			t.Errorf("%s: got %v, want not_null_violation for recipient", refused, err)
		}
	}
}

// After migration 4, the primary key is id, (xid, id) is unique, and recipients are compared by their bytes. The
// migration keeps the constraints that are NOT VALID.
func TestKeysOfTheTable(t *testing.T) {
	t.Parallel()
	dsn, conn := beforeEveryone(t)
	const constraints = `SELECT string_agg(concat_ws(' ', conname, convalidated, pg_get_constraintdef(oid)), E'\n' ORDER BY conname)
		FROM pg_constraint WHERE conrelid = 'rowcast.notifications'::regclass AND contype = 'c'`
	before := text(t, conn, constraints)
	migrateEveryone(t, dsn)
	if after := text(t, conn, constraints); after != before {
		t.Errorf("got the constraints\n%s\nwant the same as before the migration:\n%s", after, before)
	}
	for query, want := range map[string]string{
		`SELECT string_agg(pg_get_indexdef(indexrelid), E'\n' ORDER BY indexrelid::regclass::text) FROM pg_index
			WHERE indrelid = 'rowcast.notifications'::regclass`: `CREATE UNIQUE INDEX notifications_pkey ON rowcast.notifications USING btree (id)
CREATE INDEX notifications_recipient_idx ON rowcast.notifications USING btree (recipient, xid, id)
CREATE UNIQUE INDEX notifications_xid_id_idx ON rowcast.notifications USING btree (xid, id)`,
		`SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'rowcast.notifications'::regclass AND contype = 'p'`: "PRIMARY KEY (id)",
		`SELECT string_agg(collation_name || ' ' || is_nullable, ' ') FROM information_schema.columns
			WHERE table_schema = 'rowcast' AND table_name = 'notifications' AND column_name = 'recipient'`: "C NO",
		`SELECT string_agg(collname, ' ') FROM pg_index i, unnest(i.indcollation) c JOIN pg_collation ON pg_collation.oid = c
			WHERE indexrelid = 'rowcast.notifications_recipient_idx'::regclass`: "C",
	} {
		if got := text(t, conn, query); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", query, got, want)
		}
	}
}

// Restored rows can have the ids of other rows. The row of the newest transaction keeps its id. Migration 4 gives the
// other rows new ids above the highest id below MaxID. Later INSERTs get ids that no row has.
func TestMigrateNumbersRepeatedIDs(t *testing.T) {
	t.Parallel()
	dsn, conn := beforeEveryone(t)
	run(t, conn, `INSERT INTO rowcast.notifications (id, recipient, data, xid) OVERRIDING SYSTEM VALUE VALUES
		(1, 'alice', '"restored"', '1'), (2, 'alice', '"restored, too"', '1'), (40, NULL, '"the highest id"', '1'),
		(9223372036854775807, 'alice', '"the highest bigint"', '1')`)
	run(t, conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"new"')`)
	run(t, conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"newer"')`)
	migrateEveryone(t, dsn)
	run(t, conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"the newest"')`)
	for id, want := range map[string]string{
		"= 1": `"new"`, "= 2": `"newer"`, "= 40": `"the highest id"`, "IN (41, 42)": `"restored" "restored, too"`, "= 43": `"the newest"`,
	} {
		if got := text(t, conn, "SELECT coalesce(string_agg(data::text, ' ' ORDER BY data::text), '') FROM rowcast.notifications WHERE id "+id); got != want {
			t.Errorf("id %s: got %s, want %s", id, got, want)
		}
	}
}

// Ids that were used before are not used again, even if the rows were deleted.
func TestMigrateKeepsTheSequence(t *testing.T) {
	t.Parallel()
	dsn, conn := beforeEveryone(t)
	run(t, conn, `INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', '1' FROM generate_series(1, 9)`)
	run(t, conn, `DELETE FROM rowcast.notifications WHERE id > 3`)
	migrateEveryone(t, dsn)
	run(t, conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')`)
	if got := text(t, conn, "SELECT max(id)::text FROM rowcast.notifications"); got != "10" {
		t.Errorf("got the id %s, want 10", got)
	}
}

// In a copy of the schema, for example by logical replication, the sequence has not reached the ids of the rows.
// Migrate sets the sequence to the highest id below MaxID, so INSERTs get ids that no row has.
func TestMigrateAdvancesTheSequenceOfACopy(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	run(t, conn, `INSERT INTO rowcast.notifications (id, recipient, data) OVERRIDING SYSTEM VALUE VALUES (1, 'alice', '1'), (7, 'alice', '2'), (9223372036854775807, 'alice', '2')`)
	run(t, conn, "UPDATE rowcast.history SET system_identifier = 7")
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
		t.Fatal(err)
	}
	run(t, conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '3')`)
	if got := text(t, conn, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM rowcast.notifications"); got != "1 7 8 9223372036854775807" {
		t.Errorf("got the ids %s, want 1 7 8 and the highest bigint", got)
	}
}

// Rows that violate a constraint that is NOT VALID survive migration 4, even if the migration changes them.
func TestMigrateKeepsInvalidRowsForEveryone(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Empty(t)
	conn := connect(t, dsn)
	installUpTo(t, conn, 2)
	run(t, conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES (E'alice\n', '1')`)
	run(t, conn, `INSERT INTO rowcast.notifications (data) VALUES (to_jsonb(1e9000::numeric))`)
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
		t.Fatal(err)
	}
	const want = "alice\n 1, * 9001"
	if got := text(t, conn, "SELECT string_agg(recipient || ' ' || length(data::text) , ', ' ORDER BY id) FROM rowcast.notifications"); got != want {
		t.Errorf("got the rows %q, want %q", got, want)
	}
	_, err := conn.Exec(dbtest.Context(t), `INSERT INTO rowcast.notifications (recipient, data) VALUES (E'bob\n', '1')`)
	if got := constraintOf(err); got != "recipient_has_no_control_characters" {
		t.Errorf("a new row with a line break: got %v, want a violation of recipient_has_no_control_characters", err)
	}
}

// A row is never sent if this server had not yet assigned its transaction number when the row was written. Migration 4
// changes rows, and must not make such a row look as if this server had assigned the number.
func TestMigrateDoesNotSendForgedRows(t *testing.T) {
	t.Parallel()
	dsn, conn := beforeEveryone(t)
	run(t, conn, "ALTER TABLE rowcast.notifications DISABLE TRIGGER disown")
	run(t, conn, `INSERT INTO rowcast.notifications (data, xid) VALUES ('1', (pg_current_xact_id()::text::bigint + 2)::text::xid8)`)
	run(t, conn, "ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER disown")
	run(t, conn, `INSERT INTO rowcast.notifications (data) VALUES ('2')`)
	for range 5 {
		run(t, conn, "SELECT pg_current_xact_id()")
	}
	migrateEveryone(t, dsn)
	const own = "SELECT string_agg(data::text, ' ' ORDER BY id) FROM rowcast.notifications WHERE xid <> '1'"
	if got := text(t, conn, own); got != "2" {
		t.Errorf("the rows with a number of this server have the data %s, want only 2", got)
	}
}

// In a table that was restored from another server, all restored rows get the transaction number 1 if one of them has a
// number that this server had not assigned. Rows that were written on this server keep their numbers.
func TestMigrateEveryoneInARestoredTable(t *testing.T) {
	t.Parallel()
	dsn, conn := beforeEveryone(t)
	run(t, conn, "ALTER TABLE rowcast.notifications DISABLE TRIGGER disown")
	run(t, conn, "UPDATE rowcast.history SET system_identifier = 7") // the restore
	run(t, conn, `INSERT INTO rowcast.notifications (data, xid) VALUES ('1', '5'), ('2', (pg_current_xact_id()::text::bigint + 2)::text::xid8)`)
	run(t, conn, "ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER disown")
	for range 5 {
		run(t, conn, "SELECT pg_current_xact_id()")
	}
	run(t, conn, `INSERT INTO rowcast.notifications (data) VALUES ('3')`)
	migrateEveryone(t, dsn)
	const numbers = "SELECT string_agg((xid = '1')::text, ' ' ORDER BY id) FROM rowcast.notifications"
	if got := text(t, conn, numbers); got != "true true false" {
		t.Errorf("whether each row has the number 1: got %s, want true true false", got)
	}
	if err := sql.Check(dbtest.Context(t), conn); err != nil {
		t.Error(err)
	}
}

// A hub of an earlier version must not read the table after migration 4, because it would send rows for '*' to nobody.
// Its query fails, even if it was prepared before.
func TestEarlierHubsCannotReadAfterwards(t *testing.T) {
	t.Parallel()
	dsn, conn := beforeEveryone(t)
	const query = "SELECT (SELECT max(horizon::text::bigint) FROM rowcast.history WHERE one)"
	if _, err := conn.Prepare(dbtest.Context(t), "fetch", query); err != nil {
		t.Fatal(err)
	}
	run(t, conn, "fetch")
	migrateEveryone(t, dsn)
	for _, statement := range []string{"fetch", query} {
		_, err := conn.Exec(dbtest.Context(t), statement)
		if failure, ok := errors.AsType[*pgconn.PgError](err); !ok || failure.Code != "42703" {
			t.Errorf("%s: got %v, want undefined_column", statement, err)
		}
	}
}

// Migration 4 changes two tables. A hub may lock them in the opposite order, which can cause a deadlock. The migration
// then waits until the hub has finished, and succeeds.
func TestMigrateRetriesAfterADeadlock(t *testing.T) {
	t.Parallel()
	dsn, conn := beforeEveryone(t)
	run(t, conn, "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || quote_ident(current_database()) || ' SET deadlock_timeout = ''3s'''; END $$")
	hub := connect(t, dsn)
	run(t, hub, "SET deadlock_timeout = '10min'")
	run(t, hub, "BEGIN")
	run(t, hub, "SELECT FROM rowcast.notifications")
	migrated := make(chan error, 1)
	go func() {
		_, _, err := sql.Migrate(dbtest.Context(t), dsn)
		migrated <- err
	}()
	const waiting = "SELECT (count(*) > 0)::text FROM pg_locks WHERE NOT granted AND relation = 'rowcast.notifications'::regclass"
	for text(t, conn, waiting) != "true" {
		run(t, conn, "SELECT pg_sleep(0.01)")
	}
	run(t, hub, "SELECT FROM rowcast.history")
	run(t, hub, "COMMIT")
	if err := dbtest.Receive(t, migrated, "the end of the migration"); err != nil {
		t.Error(err)
	}
}
