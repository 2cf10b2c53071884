package listener_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener"
	"rowcast/sql/dbtest"
)

// trapFunctions makes a function of the same name and arguments for every function and operator of pg_catalog for which that is
// possible, and operators that fit pairs of types better than those of pg_catalog do. Each raises an error.
const trapFunctions = `DO $do$
DECLARE
	f record;
	body CONSTANT text := 'LANGUAGE plpgsql AS $f$ BEGIN RAISE EXCEPTION ''a trap of a stranger was called''; END $f$';
	n int := 0;
BEGIN
	FOR f IN SELECT proname AS name, oidvectortypes(proargtypes) AS args,
			CASE WHEN proretset THEN 'SETOF ' ELSE '' END || format_type(prorettype, NULL) AS result
			FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f'
		UNION ALL VALUES ('concat_ws', 'text, bigint, oid', 'text'), ('concat_ws', 'text, text, bigint', 'text'),
			('concat_ws', 'text, bigint, bigint', 'text'), ('set_config', 'text, text, bool', 'text'),
			('pg_notify', 'text, varchar', 'void'), ('unnest', 'text[]', 'SETOF text'), ('format', 'text, text', 'text'),
			('format', 'text, bigint', 'text'), ('concat', 'text, text', 'text'), ('concat', 'bigint, oid', 'text')
	LOOP
		BEGIN
			EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s %s', f.name, f.args, f.result, body);
			n := n + 1;
		EXCEPTION WHEN OTHERS THEN NULL; -- it takes or returns what plpgsql cannot
		END;
	END LOOP;
	FOR f IN SELECT oprname AS name, format_type(oprleft, NULL) AS lhs, format_type(oprright, NULL) AS rhs, format_type(oprresult, NULL) AS result
			FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprkind = 'b'
		UNION SELECT op, l, r, 'boolean' FROM pg_catalog.unnest(ARRAY['=', '<', '>', '<=', '>=', '<>']) op,
			pg_catalog.unnest(ARRAY['smallint', 'integer', 'bigint', 'oid', 'text', 'name', 'xid8', 'regclass']) l,
			pg_catalog.unnest(ARRAY['smallint', 'integer', 'bigint', 'oid', 'text', 'name', 'xid8', 'regclass']) r
	LOOP
		BEGIN
			EXECUTE format('CREATE FUNCTION public.trap_%s(%s, %s) RETURNS %s %s', n, f.lhs, f.rhs, f.result, body);
			EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.trap_%s)', f.name, f.lhs, f.rhs, n);
			n := n + 1;
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
	END LOOP;
	IF n < 2500 THEN
		RAISE EXCEPTION 'only % traps', n;
	END IF;
END $do$`

// temporaryTraps are types and tables in a session's pg_temp, which is searched before pg_catalog. Behind a pooler, a stranger with
// the same role can leave them in a session that the hub uses after it.
const temporaryTraps = `CREATE TYPE pg_temp.text AS ENUM ('trap'); CREATE TYPE pg_temp.xid8 AS ENUM ('trap');
	CREATE TYPE pg_temp.pg_snapshot AS ENUM ('trap'); CREATE TYPE pg_temp.regclass AS ENUM ('trap');
	CREATE TYPE pg_temp.jsonb AS ENUM ('trap'); CREATE TYPE pg_temp.name AS ENUM ('trap'); CREATE TYPE pg_temp.oid AS ENUM ('trap');
	CREATE TEMP TABLE pg_locks (trap int); CREATE TEMP TABLE pg_database (trap int); CREATE TEMP TABLE pg_class (trap int);`

// layTraps makes the traps and puts them before pg_catalog in every new session.
func layTraps(t *testing.T, conn *pgx.Conn, dsn string) {
	t.Helper()
	exec(t, conn, trapFunctions)
	exec(t, conn, "ALTER DATABASE "+pgx.Identifier{conn.Config().Database}.Sanitize()+" SET search_path = public, pg_catalog")
	exec(t, conn, "SET search_path = pg_catalog, pg_temp")
	for _, trapped := range []string{"SELECT concat_ws('-', 1::bigint, 2::oid)", "SELECT 1 WHERE 1::oid = 1::int", "SELECT pg_backend_pid()"} {
		if _, err := connect(t, dsn).Exec(t.Context(), trapped); err == nil || !strings.Contains(err.Error(), "a trap of a stranger") {
			t.Fatalf("%s: got %v, want that it goes into a trap", trapped, err)
		}
	}
}

// No function, operator, type or table of a stranger is used, whatever the search_path is where a connection begins.
func TestStrangersTrapsAreNotUsed(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	layTraps(t, conn, dsn)
	for _, pollOnly := range []bool{false, true} {
		t.Run(fmt.Sprintf("PollOnly=%t", pollOnly), func(t *testing.T) { walkPastTraps(t, conn, dsn, pollOnly) })
	}
}

// walkPastTraps does all that a hub does with its database.
func walkPastTraps(t *testing.T, conn *pgx.Conn, dsn string, pollOnly bool) {
	begin := one[string](t, conn, "SELECT rowcast.cursor()")
	var log lines
	configure := func(l *listener.Listener) {
		l.PollOnly, l.Look, l.Disconnect = pollOnly, 50*time.Millisecond, func(string) {}
		l.Logger = slog.New(slog.NewTextHandler(&log, nil))
		l.Config.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
			return conn.Exec(ctx, temporaryTraps).Close()
		}
	}
	l := newListener(t, dsn)
	configure(l)
	if err := l.Preflight(limited(t)); err != nil {
		t.Errorf("Preflight: %v", err)
	}
	r := listen(t, dsn, configure)
	if !pollOnly {
		r.parked(t, 1)
	}
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
	fetches := r.Stats.Fetches.Load()
	r.until(t, func() bool { return r.Stats.Fetches.Load() > fetches+3 }) // safety polls among them
	replayer, err := r.NewReplayer(limited(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	wantData(t, replay(t, replayer, begin, r.last.Cursor.String(), nil), `"1"`)
	if stands, err := replayer.Stands(limited(t), r.last.Cursor, r.last.Cursor); err != nil || !stands {
		t.Errorf("Stands: %t, %v", stands, err)
	}
	if err := replayer.Disconnect(limited(t), "alice"); err != nil {
		t.Errorf("Disconnect: %v", err)
	}
	retention := &listener.Retention{Listener: l, Logger: l.Logger, Keep: time.Nanosecond}
	if _, err := retention.Round(limited(t)); err != nil {
		t.Errorf("a round of retention: %v", err)
	}
	if strings.Contains(log.text(), "level=WARN") {
		t.Errorf("the log is\n%s", log.text())
	}
}

// A role that is read-only by default can poll, too.
func TestReadOnlyRoleCanPoll(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	role := createRole(t, dsn, "hub", hubGrants...)
	exec(t, conn, "ALTER ROLE "+role+" LOGIN")
	exec(t, conn, "ALTER ROLE "+role+" SET default_transaction_read_only = on")
	configure := func(l *listener.Listener) { l.Config.User, l.PollOnly = role, true }
	l := newListener(t, dsn)
	configure(l)
	if err := l.Preflight(limited(t)); err != nil {
		t.Fatalf("Preflight: %v", err)
	}
	begin := one[string](t, conn, "SELECT rowcast.cursor()")
	r := listen(t, dsn, configure)
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
	r.caughtUp(t)
	replayer, err := r.NewReplayer(limited(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	wantData(t, replay(t, replayer, begin, r.last.Cursor.String(), nil), `"1"`)
	if err := replayer.Disconnect(limited(t), "alice"); err != nil {
		t.Errorf("Disconnect: %v", err)
	}
}
