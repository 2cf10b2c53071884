package sql_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// createRole creates a role for this test, with a name that needs quotes.
func createRole(t *testing.T, conn *pgx.Conn, name string) string {
	t.Helper()
	role := fmt.Sprintf(`The "%s"'s %d`, name, conn.PgConn().PID())
	run(t, conn, "CREATE ROLE "+pgx.Identifier{role}.Sanitize())
	dsn := conn.Config().ConnString()
	t.Cleanup(func() {
		cleanup, err := pgx.Connect(context.Background(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cleanup.Close(context.Background()) }()
		quoted := pgx.Identifier{role}.Sanitize()
		if _, err := cleanup.Exec(context.Background(), "DROP OWNED BY "+quoted+"; DROP ROLE "+quoted); err != nil {
			t.Error(err)
		}
	})
	return role
}

// setRole sets the role of the session.
func setRole(t *testing.T, conn *pgx.Conn, role string) {
	t.Helper()
	run(t, conn, "RESET ROLE; SET ROLE "+pgx.Identifier{role}.Sanitize())
}

// wantForbidden checks that each statement fails because a right is missing.
func wantForbidden(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		_, err := conn.Exec(dbtest.Context(t), statement)
		if failure, ok := errors.AsType[*pgconn.PgError](err); !ok || failure.Code != "42501" {
			t.Errorf("%s: got %v, want insufficient_privilege", statement, err)
		}
	}
}

// granted returns a connection to a new database, and three roles with the rights of an app, a sender and a hub.
func granted(t *testing.T) (conn *pgx.Conn, app, sender, hub string) {
	t.Helper()
	dsn := dbtest.Database(t)
	conn = connect(t, dsn)
	app, sender, hub = createRole(t, conn, "app"), createRole(t, conn, "sender"), createRole(t, conn, "hub")
	revokeFunctions(t, conn)
	for range 2 { // a second Grant must succeed too
		if err := sql.Grant(dbtest.Context(t), dsn, sql.Roles{Apps: []string{app}, Senders: []string{sender}, Hubs: []string{hub}}); err != nil {
			t.Fatal(err)
		}
	}
	return conn, app, sender, hub
}

// revokeFunctions revokes the rights on functions that every role has by default, as some administrators do.
func revokeFunctions(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	run(t, conn, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
	run(t, conn, "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA rowcast FROM PUBLIC")
}

// forbidden are statements that must fail for an app, a sender and a hub.
var forbidden = []string{
	"UPDATE rowcast.notifications SET data = '{}'",
	"INSERT INTO rowcast.notifications (recipient, data, xid) VALUES ('*', '{}', '3')",
	"SELECT setval('rowcast.notifications_id_seq', 1000)",
	"TRUNCATE rowcast.notifications",
	"DROP TABLE rowcast.notifications",
	"DROP SCHEMA rowcast CASCADE",
	"DROP FUNCTION rowcast.cursor()",
	"ALTER TABLE rowcast.notifications ALTER COLUMN xid SET DEFAULT '3'",
	"ALTER TABLE rowcast.notifications DROP CONSTRAINT event_is_not_reserved",
	"CREATE INDEX ON rowcast.notifications (id)",
	"CREATE RULE lost AS ON INSERT TO rowcast.notifications DO INSTEAD NOTHING",
	"ALTER TABLE rowcast.notifications DISABLE TRIGGER ring",
	"DROP TRIGGER ring ON rowcast.notifications",
	"CREATE TRIGGER own AFTER INSERT ON rowcast.notifications FOR EACH STATEMENT EXECUTE FUNCTION rowcast.ring()",
	"CREATE OR REPLACE FUNCTION rowcast.ring() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
	"CREATE TABLE rowcast.own ()",
	"SET session_replication_role = replica",
	"DELETE FROM rowcast.epoch",
	"UPDATE rowcast.epoch SET token = gen_random_uuid()",
	"TRUNCATE rowcast.epoch",
	"UPDATE rowcast.history SET system_identifier = 7",
	"INSERT INTO rowcast.history (system_identifier, database) VALUES (7, 7)",
	"DELETE FROM rowcast.history",
	"INSERT INTO rowcast.migrations (version_id, is_applied) VALUES (9, true)",
	"SELECT rowcast.encode_xip(7, '{5}')",
}

// forbiddenToApps are further statements that must fail for an app and for a sender.
var forbiddenToApps = []string{
	"INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '1') ON CONFLICT (id) DO UPDATE SET data = '2'",
	"DELETE FROM rowcast.notifications",
	"DO $$ BEGIN LOCK rowcast.notifications IN SHARE MODE; END $$",
	"SELECT token FROM rowcast.epoch",
	"INSERT INTO rowcast.epoch DEFAULT VALUES",
	"SELECT horizon FROM rowcast.history",
	"UPDATE rowcast.history SET horizon = '9'",
	"SELECT FROM rowcast.migrations",
	"SELECT rowcast.epoch_tag()",
}

// A role cannot run its own code with the rights of the owner of the schema by making rowcast.disown() the trigger of a
// table of its own: the function does nothing for this table.
func TestDisownIsOnlyForNotifications(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	app := createRole(t, conn, "app")
	run(t, conn, "GRANT USAGE ON SCHEMA rowcast TO "+pgx.Identifier{app}.Sanitize())
	run(t, conn, "UPDATE rowcast.history SET database = (SELECT oid FROM pg_database WHERE datname = current_database())")
	run(t, conn, "CREATE SCHEMA own AUTHORIZATION "+pgx.Identifier{app}.Sanitize())
	setRole(t, conn, app)
	run(t, conn, `CREATE FUNCTION own.spy(xid8) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
			IF current_user <> (SELECT tableowner FROM pg_tables WHERE schemaname = 'own') THEN
				RAISE EXCEPTION 'the code of the app runs with the rights of %', current_user;
			END IF;
			RETURN true;
		END $$;
		CREATE DOMAIN own.number AS xid8 CHECK (own.spy(VALUE)); CREATE TABLE own.t (xid own.number)`)
	run(t, conn, "CREATE TRIGGER attack BEFORE INSERT ON own.t FOR EACH ROW EXECUTE FUNCTION rowcast.disown(); INSERT INTO own.t VALUES ('7')")
	if got := text(t, conn, "SELECT xid::text FROM own.t"); got != "7" {
		t.Errorf("the row has the number %s, want 7", got)
	}
}

// The role of an app can use the statements that frameworks send by default, and read all rows. It cannot set xid,
// change or delete rows, or write to other tables of the schema.
func TestRightsOfAnApp(t *testing.T) {
	t.Parallel()
	conn, app, _, _ := granted(t)
	setRole(t, conn, app)
	for _, statement := range []string{
		"INSERT INTO rowcast.notifications (id, recipient, event, data, created_at) VALUES (DEFAULT, 'alice', 'x', '{}', DEFAULT)",
		"INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1') RETURNING id, event, created_at",
		"INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1') RETURNING *",
		"SELECT lastval()",
		"SELECT currval('rowcast.notifications_id_seq')",
		"SELECT * FROM rowcast.notifications WHERE id = 1",
		"SELECT rowcast.cursor()",
	} {
		run(t, conn, statement)
	}
	wantForbidden(t, conn, forbidden...)
	wantForbidden(t, conn, forbiddenToApps...)
}

// The role of a sender can insert rows with RETURNING id and call rowcast.cursor(). It cannot read other columns, set
// id or xid, change or delete rows, or write to other tables of the schema.
func TestRightsOfASender(t *testing.T) {
	t.Parallel()
	conn, _, sender, _ := granted(t)
	run(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('bob', '\"secret\"')")
	setRole(t, conn, sender)
	var id int64
	if err := conn.QueryRow(dbtest.Context(t), "INSERT INTO rowcast.notifications (recipient, event, data, created_at) VALUES ('alice', 'x', '{}', now()) RETURNING id").Scan(&id); err != nil || id != 2 {
		t.Errorf("INSERT as a sender: got id %d, %v, want 2", id, err)
	}
	var cursor string
	if err := conn.QueryRow(dbtest.Context(t), "SELECT rowcast.cursor()").Scan(&cursor); err != nil {
		t.Error(err)
	}
	wantForbidden(t, conn, forbidden...)
	wantForbidden(t, conn, forbiddenToApps...)
	wantForbidden(t, conn,
		"INSERT INTO rowcast.notifications (id, recipient, data) VALUES (DEFAULT, '*', '1')",
		"INSERT INTO rowcast.notifications (id, recipient, data) OVERRIDING SYSTEM VALUE VALUES (1000, '*', '1')",
		"SELECT nextval('rowcast.notifications_id_seq')",
		"SELECT lastval()",
		"SELECT data FROM rowcast.notifications",
		"SELECT recipient FROM rowcast.notifications",
		"SELECT xid FROM rowcast.notifications",
		"SELECT ctid, xmin FROM rowcast.notifications",
		"SELECT n FROM rowcast.notifications n",
		"SELECT id FROM rowcast.notifications WHERE recipient = 'bob'",
		"SELECT id FROM rowcast.notifications ORDER BY xid",
		"INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '1') RETURNING data",
		"COPY rowcast.notifications TO STDOUT",
	)
}

// The role of a hub can read rows, begin an epoch and delete old rows. It cannot insert or change rows.
func TestRightsOfAHub(t *testing.T) {
	t.Parallel()
	conn, _, _, hub := granted(t)
	run(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '1')")
	setRole(t, conn, hub)
	for _, statement := range []string{
		"SELECT * FROM rowcast.notifications",
		"INSERT INTO rowcast.epoch (one) SELECT true WHERE NOT EXISTS (SELECT FROM rowcast.epoch) ON CONFLICT DO NOTHING",
		"SELECT rowcast.cursor(), rowcast.epoch_tag(), rowcast.database_tag(), rowcast.anchor_tag(1, now())",
		"SELECT horizon FROM rowcast.history WHERE singleton FOR UPDATE SKIP LOCKED",
		"DELETE FROM rowcast.notifications",
		"UPDATE rowcast.history SET horizon = '9' WHERE singleton",
	} {
		run(t, conn, statement)
	}
	wantForbidden(t, conn, forbidden...)
	wantForbidden(t, conn,
		"INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '1')",
		"INSERT INTO rowcast.notifications DEFAULT VALUES",
		"UPDATE rowcast.history SET database = 7",
	)
}

// An administrator may revoke pg_control_system() from PUBLIC. Then only the owner of the schema needs the right to
// call it. The error of Migrate contains the GRANT.
func TestWithoutTheRightToReadTheControlFile(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Cluster(t).DSN("postgres") // a server of its own, because the test creates roles with common names
	conn := connect(t, dsn)
	for _, statement := range []string{
		"REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC",
		"CREATE ROLE owner LOGIN; GRANT CREATE ON DATABASE postgres TO owner", "CREATE ROLE hub LOGIN", "CREATE ROLE app LOGIN",
	} {
		run(t, conn, statement)
	}
	owner := dsn + "&role=owner"
	_, _, err := sql.Migrate(dbtest.Context(t), owner)
	const grant = "GRANT EXECUTE ON FUNCTION pg_control_system() TO owner"
	if err == nil || !strings.Contains(err.Error(), grant) {
		t.Fatalf("Migrate: got %v, want an error with %s", err, grant)
	}
	run(t, conn, grant)
	if _, _, err := sql.Migrate(dbtest.Context(t), owner); err != nil {
		t.Fatal(err)
	}
	if err := sql.Grant(dbtest.Context(t), owner, sql.Roles{Apps: []string{"app"}, Hubs: []string{"hub"}}); err != nil {
		t.Fatal(err)
	}
	run(t, conn, "SET ROLE app; INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1'); SELECT rowcast.cursor(); RESET ROLE")
	run(t, conn, "SET ROLE hub; SELECT rowcast.epoch_tag(); SELECT * FROM rowcast.notifications")
	if err := sql.Check(dbtest.Context(t), conn); err != nil {
		t.Errorf("Check as a hub: got %v, want no error", err)
	}
}

// A role can have the rights of an app and of a hub. The forbidden statements still fail.
func TestOneRoleForAppAndHub(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	role := createRole(t, conn, `weird Role\$1; --é`)
	revokeFunctions(t, conn)
	if err := sql.Grant(dbtest.Context(t), dsn, sql.Roles{Apps: []string{role, role}, Hubs: []string{role}}); err != nil {
		t.Fatal(err)
	}
	setRole(t, conn, role)
	run(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1') RETURNING *")
	run(t, conn, "SELECT rowcast.cursor(), rowcast.epoch_tag()")
	run(t, conn, "DELETE FROM rowcast.notifications")
	wantForbidden(t, conn, forbidden...)
}

// If one of two roles does not exist, the error names that role, and the other role gets no right. PUBLIC is not a
// role.
func TestGrantToAMissingRole(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	app := createRole(t, conn, "app")
	for _, name := range []string{"public", "no such role", `x" ; DROP SCHEMA rowcast CASCADE; --`, app + strings.Repeat("x", 63)} {
		err := sql.Grant(dbtest.Context(t), dsn, sql.Roles{Apps: []string{app}, Hubs: []string{name}})
		if want := fmt.Sprintf("the role %q does not exist: create it with CREATE ROLE %s LOGIN", name, pgx.Identifier{name}.Sanitize()); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	missing, err := sql.Missing(dbtest.Context(t), conn, app, sql.AppRights()...)
	if err != nil || len(missing) != 4 { // every role may execute functions by default
		t.Errorf("missing rights: got %v, %v, want the four that PostgreSQL does not grant by default", missing, err)
	}
}

// If a role may grant only some of the rights, Grant fails, although GRANT itself only warns.
func TestGrantWithoutTheRightToGrant(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	app, other := createRole(t, conn, "app"), createRole(t, conn, "other")
	quoted := pgx.Identifier{other}.Sanitize()
	run(t, conn, "GRANT USAGE ON SCHEMA rowcast TO "+quoted+" WITH GRANT OPTION; GRANT SELECT ON rowcast.notifications TO "+quoted)
	err := sql.Grant(dbtest.Context(t), dsn+"&role="+strings.NewReplacer(" ", "%20", `"`, "%22").Replace(other), sql.Roles{Senders: []string{app}})
	if err == nil || !strings.Contains(err.Error(), "GRANT INSERT (recipient, event, data, created_at) ON rowcast.notifications TO ") {
		t.Errorf("got %v, want an error that names the GRANT INSERT", err)
	}
}
