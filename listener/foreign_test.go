package listener_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql"
	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// burn makes a server assign n transaction numbers.
func burn(t *testing.T, conn *pgx.Conn, n int) {
	t.Helper()
	exec(t, conn, fmt.Sprintf("DO $$ BEGIN FOR i IN 1..%d LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$", n))
}

// bring inserts a hundred rows with the numbers of other transactions. %d stands for an offset. The lowest of these
// numbers is n + offset + 1, where n is the xmax of the present snapshot.
const bring = `INSERT INTO rowcast.notifications (recipient, data, xid)
	SELECT 'alice', '"foreign"', (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + %d + i)::text::xid8 FROM generate_series(1, 100) i`

// TestForeignNumbersAreNeverSent shows that a row is not sent, live or on resume, if its number in xid is not the
// number of the transaction that inserted it. Where the trigger does not replace such a number, the test uses only
// numbers that the server has not assigned yet. Such a row is not sent even after the server's counter has passed its
// number. Rows that are inserted later, with their own numbers, are sent.
func TestForeignNumbersAreNeverSent(t *testing.T) {
	t.Parallel()
	const higher, lower = "higher numbers", "lower numbers"
	for name, test := range map[string]struct {
		database func(*testing.T) string
		bring    string // SQL that inserts the rows; %d is as in the constant bring
		numbers  []string
	}{
		"inserted by the owner":                            {alone, bring, []string{higher, lower}},
		"inserted with session_replication_role = replica": {alone, "SET session_replication_role = replica;" + bring, []string{higher, lower}},
		"restored with triggers disabled": {
			alone, "ALTER TABLE rowcast.notifications DISABLE TRIGGER ALL;" + bring + ";ALTER TABLE rowcast.notifications ENABLE TRIGGER ALL",
			[]string{higher},
		},
		"inserted into a copy of the database": {func(t *testing.T) string { return dbtest.Database(t) }, bring, []string{higher}},
	} {
		for _, numbers := range test.numbers {
			t.Run(name+", "+numbers, func(t *testing.T) {
				t.Parallel()
				offset := map[string]int{higher: 200, lower: -150}[numbers]
				checkForeign(t, test.database(t), fmt.Sprintf(test.bring, offset))
			})
		}
	}
}

func checkForeign(t *testing.T, dsn, bring string) {
	t.Helper()
	conn := connect(t, dsn)
	before := one[string](t, conn, "SELECT rowcast.cursor()")
	burn(t, conn, 200)
	r := listen(t, dsn)
	exec(t, connect(t, dsn), bring)
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
	burn(t, conn, 250) // now the server's counter is in the middle of the higher numbers
	insert(t, conn, "2")
	wantData(t, r.rows(t, 1), `"2"`)
	burn(t, conn, 250)
	insert(t, conn, "3")
	wantData(t, r.rows(t, 1), `"3"`)
	wantData(t, r.caughtUp(t))
	now := one[string](t, conn, "SELECT rowcast.cursor()")
	wantData(t, replay(t, newReplayer(t, dsn, 512), before, now, []string{"alice"}), `"1"`, `"2"`, `"3"`)
}

// TestSubscriptionIsNeverSent shows that rows are not sent if logical replication has copied them from another server.
// The transaction numbers of the other server are higher than the numbers of this server. The rows are not sent even
// after this server has assigned such high numbers too.
func TestSubscriptionIsNeverSent(t *testing.T) {
	t.Parallel()
	publisher, subscriber := dbtest.Stranger(t), dbtest.Cluster(t)
	from, to := migrated(t, publisher), migrated(t, subscriber)
	exec(t, from, "ALTER SYSTEM SET wal_level = logical")
	restart(t, publisher)
	from = connect(t, publisher.DSN("postgres"))
	burn(t, from, 1000)
	exec(t, from, "INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', '\"copied\"' FROM generate_series(1, 10)")
	exec(t, from, "CREATE PUBLICATION rows FOR TABLE rowcast.notifications")
	before := one[string](t, to, "SELECT rowcast.cursor()")
	r := listen(t, subscriber.DSN("postgres"))
	exec(t, to, fmt.Sprintf("CREATE SUBSCRIPTION rows CONNECTION '%s' PUBLICATION rows",
		strings.ReplaceAll(publisher.DSN("postgres"), "'", "''")))
	exec(t, from, "INSERT INTO rowcast.notifications (id, recipient, data) OVERRIDING SYSTEM VALUE VALUES (1000, 'alice', '\"streamed\"')")
	eventually(t, to, "SELECT count(*) = 11 FROM rowcast.notifications")
	burn(t, to, 2500)
	exec(t, to, "INSERT INTO rowcast.notifications (id, recipient, data) OVERRIDING SYSTEM VALUE VALUES (2000, 'alice', '\"here\"')")
	wantData(t, r.rows(t, 1), `"here"`)
	wantData(t, r.caughtUp(t))
	now := one[string](t, to, "SELECT rowcast.cursor()")
	wantData(t, replay(t, newReplayer(t, subscriber.DSN("postgres"), 512), before, now, []string{"alice"}), `"here"`)
	exec(t, to, "DROP SUBSCRIPTION rows")
}

func migrated(t *testing.T, c *cluster.Cluster) *pgx.Conn {
	t.Helper()
	if _, _, err := sql.Migrate(limited(t), c.DSN("postgres")); err != nil {
		t.Fatal(err)
	}
	return connect(t, c.DSN("postgres"))
}

func restart(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	if err := c.Stop(limited(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(limited(t)); err != nil {
		t.Fatal(err)
	}
}

// TestOwnNumbersAreSent shows that rows are sent even if PostgreSQL stores them under a number (xmin) that is higher
// than the number in xid. That happens in savepoints and exception blocks, and after an update or a rewrite of the
// table.
func TestOwnNumbersAreSent(t *testing.T) {
	t.Parallel()
	dsn := alone(t)
	conn := connect(t, dsn)
	before := one[string](t, conn, "SELECT rowcast.cursor()")
	r := listen(t, dsn)
	const row = `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"%d"')`
	exec(t, conn, fmt.Sprintf("BEGIN; SAVEPOINT a; SAVEPOINT b; "+row+"; RELEASE b; "+row+"; COMMIT", 1, 2))
	exec(t, conn, "DO $$ BEGIN "+fmt.Sprintf(row, 3)+"; EXCEPTION WHEN others THEN END $$")
	exec(t, conn, fmt.Sprintf(row, 4))
	want := []string{`"1"`, `"2"`, `"3"`, `"4"`}
	wantData(t, r.rows(t, 4), want...)
	replayer := newReplayer(t, dsn, 512)
	for _, change := range []string{
		"SELECT",
		`UPDATE rowcast.notifications SET event = 'changed' WHERE data = '"2"'`,
		"ALTER TABLE rowcast.notifications SET UNLOGGED", "VACUUM FULL rowcast.notifications", "VACUUM FREEZE rowcast.notifications",
	} {
		exec(t, conn, change)
		wantData(t, replay(t, replayer, before, one[string](t, conn, "SELECT rowcast.cursor()"), []string{"alice"}), want...)
	}
}

// TestCopyKeepsNumbersUntilItIsAdopted shows that rows keep their numbers in a copy of the whole schema, while
// rowcast.history still names the old server. An upgrade by logical replication makes such a copy. After
// rowcast.history names the new server, the trigger replaces foreign numbers by 1.
func TestCopyKeepsNumbersUntilItIsAdopted(t *testing.T) {
	t.Parallel()
	conn := connect(t, alone(t))
	burn(t, conn, 100)
	exec(t, conn, "SET session_replication_role = replica")
	const row = "INSERT INTO rowcast.notifications (recipient, data, xid) VALUES ('*', '1', '700') RETURNING xid::text"
	exec(t, conn, "UPDATE rowcast.history SET system_identifier = 7")
	if got := one[string](t, conn, row); got != "700" {
		t.Errorf("in a copy the row has number %s, want 700", got)
	}
	exec(t, conn, "UPDATE rowcast.history SET system_identifier = (SELECT system_identifier FROM pg_control_system())")
	if got := one[string](t, conn, row); got != "1" {
		t.Errorf("in the server's own table the row has number %s, want 1", got)
	}
}
