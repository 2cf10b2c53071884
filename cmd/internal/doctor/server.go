package doctor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/cmd/internal/terminal"
	"rowcast/sql"
)

func (e *Examination) connection(ctx context.Context) (finding, error) {
	var database, role string
	err := e.ask(ctx, "SELECT current_database(), current_user, pg_has_role('pg_read_all_stats', 'USAGE')", &database, &role, &e.seesAllSessions)
	return ok("%s, database %q, as role %q", e.conn.PgConn().Conn().RemoteAddr(), database, role), err
}

func (e *Examination) version(ctx context.Context) (finding, error) {
	var version string
	var number int
	if err := e.ask(ctx, "SELECT current_setting('server_version'), current_setting('server_version_num')::int", &version, &number); err != nil {
		return finding{}, err
	}
	return release(version, number/10000, number%10000), nil
}

// release checks a release of PostgreSQL, which is given by its text and by its major and minor number.
func release(version string, major, minor int) finding {
	const oldest = 13
	const faults = "PostgreSQL %s has a fault in LISTEN and NOTIFY: VACUUM can remove the state of transactions whose notifications were not read yet, and then LISTEN fails"
	fixed, fixable := faultless[major]
	switch {
	case major < oldest:
		return finding{failure, "PostgreSQL " + version, fmt.Sprintf("upgrade PostgreSQL to %d or later", oldest)}
	case fixable && minor < fixed:
		return finding{warning, fmt.Sprintf(faults, version), fmt.Sprintf("upgrade PostgreSQL to %d.%d or later, which keeps the data directory", major, fixed)}
	case major == oldest:
		return finding{warning, fmt.Sprintf(faults, version), "upgrade PostgreSQL to a newer major version: no release of this one corrects the fault"}
	}
	return ok("PostgreSQL %s", version)
}

// faultless has the first minor release of each major version in which VACUUM keeps the transaction states that
// unread notifications need.
var faultless = map[int]int{14: 21, 15: 16, 16: 12, 17: 8, 18: 2}

// encoding checks that text in the database can be converted to UTF-8, which Server-Sent Events use.
func (e *Examination) encoding(ctx context.Context) (finding, error) {
	var name string
	if err := e.ask(ctx, "SELECT current_setting('server_encoding')", &name); err != nil {
		return finding{}, err
	}
	if name == "SQL_ASCII" || name == "MULE_INTERNAL" {
		return finding{
			failure, fmt.Sprintf("text in the encoding of this database (%s) cannot be converted to UTF-8", name),
			"create a database with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and copy the data with pg_dump",
		}, nil
	}
	return ok("the encoding is %s", name), nil
}

// collation checks whether the rules for comparing text have changed since PostgreSQL recorded their version, for
// example in an upgrade of the operating system.
func (e *Examination) collation(ctx context.Context) (finding, error) {
	var number int
	if err := e.ask(ctx, "SELECT current_setting('server_version_num')::int", &number); err != nil {
		return finding{}, err
	}
	if number < 150000 {
		return ok("not checked: PostgreSQL records the version of a database's collation only from version 15 on"), nil
	}
	var changed bool
	var database, recorded, actual string
	const query = `SELECT coalesce(datcollversion <> coalesce(pg_database_collation_actual_version(oid), ''), false), quote_ident(datname),
		coalesce(datcollversion, ''), coalesce(pg_database_collation_actual_version(oid), 'none') FROM pg_database WHERE datname = current_database()`
	if err := e.ask(ctx, query, &changed, &database, &recorded, &actual); err != nil {
		return finding{}, err
	}
	if changed {
		return finding{
			warning, fmt.Sprintf("the collation of the database had version %s and has version %s now, so indexes of the app on text may be wrong; the indexes of rowcast do not depend on it", recorded, actual),
			fmt.Sprintf("REINDEX DATABASE %s;\nALTER DATABASE %s REFRESH COLLATION VERSION;", database, database),
		}, nil
	}
	return ok("the collation of the database has not changed"), nil
}

// durability checks that the settings fsync and full_page_writes are on, without which a crash of the machine can
// damage the database. It does not check synchronous_commit, which each session can set.
func (e *Examination) durability(ctx context.Context) (finding, error) {
	var off string
	const query = `SELECT coalesce(string_agg(name, ', ' ORDER BY name), '') FROM pg_settings
		WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'`
	if err := e.ask(ctx, query, &off); err != nil {
		return finding{}, err
	}
	if off == "" {
		return ok("fsync and full_page_writes are on"), nil
	}
	var fixes []string
	for name := range strings.SplitSeq(off, ", ") {
		fixes = append(fixes, fmt.Sprintf("ALTER SYSTEM SET %s = on;", name))
	}
	fixes = append(fixes, "SELECT pg_reload_conf();")
	return finding{warning, off + ": off, so a crash of the machine can damage the database", strings.Join(fixes, "\n")}, nil
}

func (e *Examination) primary(ctx context.Context) (finding, error) {
	var standby bool
	if err := e.ask(ctx, "SELECT pg_is_in_recovery()", &standby); err != nil {
		return finding{}, err
	}
	if standby {
		return finding{
			failure, "this is a standby, whose snapshots omit transactions that are still running on the primary",
			"connect to the primary: name all hosts in the database URL and add target_session_attrs=read-write",
		}, nil
	}
	return ok("this is not a standby"), nil
}

// listen checks whether a NOTIFY from another connection arrives. Through a transaction pooler it does not.
func (e *Examination) listen(ctx context.Context) (finding, error) {
	pooled := finding{
		failure, "a NOTIFY does not arrive: the connection probably goes through a transaction pooler such as PgBouncer",
		"connect the hub directly to PostgreSQL, or start it with --poll",
	}
	channel := fmt.Sprintf("rowcast_doctor_%d", rand.Int64())
	if _, err := e.conn.PgConn().Exec(ctx, "LISTEN "+channel).ReadAll(); err != nil {
		pooled.text += fmt.Sprintf(" (%s)", terminal.OneLine(err))
		return pooled, nil
	}
	other, err := pgx.ConnectConfig(ctx, e.Config)
	if err != nil {
		return finding{}, err
	}
	defer func() { _ = other.Close(context.Background()) }()
	began := time.Now()
	if _, err := other.PgConn().Exec(ctx, "NOTIFY "+channel).ReadAll(); err != nil {
		return finding{}, err
	}
	waiting, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := e.conn.PgConn().WaitForNotification(waiting); err != nil {
		if e.conn.IsClosed() {
			return finding{}, err
		}
		return pooled, nil
	}
	took := time.Since(began)
	if _, err := e.conn.PgConn().Exec(ctx, "UNLISTEN "+channel).ReadAll(); err != nil {
		return finding{}, err
	}
	var pid uint32
	if err := e.conn.QueryRow(ctx, "SELECT pg_catalog.pg_backend_pid()").Scan(&pid); err != nil {
		return finding{}, err
	}
	if pid != e.conn.PgConn().PID() {
		return ok("a NOTIFY arrives after %v, through a pooler in session mode", took.Round(100*time.Microsecond)), nil
	}
	return ok("a NOTIFY arrives after %v", took.Round(100*time.Microsecond)), nil
}

// connections compares the free connections with the needs of a hub. The server has a limit, and the database and the
// role may have one.
func (e *Examination) connections(ctx context.Context) (finding, error) {
	// A hub uses two connections, by default up to four for replays, and at times one for retention and one for
	// /disconnect. serve --inbox uses up to four more.
	const reserve = 4
	needs, hub := 8, "a hub"
	inbox, err := sql.InstalledInbox(ctx, e.tx)
	if err != nil {
		return finding{}, err
	}
	if inbox > 0 {
		needs, hub = needs+4, "a hub with --inbox"
	}
	const query = `SELECT
		current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
			- coalesce(current_setting('reserved_connections', true), '0')::int - (SELECT sum(numbackends) FROM pg_stat_database)::int,
		(SELECT CASE WHEN datconnlimit >= 0 THEN datconnlimit - numbackends END
			FROM pg_database JOIN pg_stat_database USING (datname) WHERE datname = current_database()),
		(SELECT CASE WHEN rolconnlimit >= 0 THEN rolconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE usename = rolname) END::int
			FROM pg_roles WHERE rolname = current_user)`
	var server int
	var database, role *int
	if err := e.ask(ctx, query, &server, &database, &role); err != nil {
		return finding{}, err
	}
	free, owner, setting := server, "the server", "raise max_connections"
	if database != nil && *database < free {
		free, owner, setting = *database, "this database", "raise the database's CONNECTION LIMIT"
	}
	if role != nil && *role < free {
		free, owner, setting = *role, "this role", "raise the role's CONNECTION LIMIT"
	}
	if free < needs+reserve {
		return finding{
			warning, fmt.Sprintf("%s has %d free connections; %s needs up to %d, and a reserve of %d", owner, free, hub, needs, reserve),
			setting + ", or connect the apps through a pooler",
		}, nil
	}
	return ok("%s has %d free connections; %s needs up to %d", owner, free, hub, needs), nil
}

func (e *Examination) timeouts(ctx context.Context) (finding, error) {
	const query = `SELECT coalesce(string_agg(name || ' = ' || current_setting(name), ', ' ORDER BY name), '') FROM pg_settings
		WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_session_timeout',
		'idle_in_transaction_session_timeout') AND setting <> '0'`
	var set string
	if err := e.ask(ctx, query, &set); err != nil {
		return finding{}, err
	}
	if set == "" {
		return ok("no timeout is set"), nil
	}
	return ok("%s; the sessions of a hub override them", set), nil
}

// standbys checks that enough standbys are connected and up to date, if commits wait for standbys. Only a standby that
// has caught up has the sync_state sync or quorum.
func (e *Examination) standbys(ctx context.Context) (finding, error) {
	var names, commit string
	var current int
	const query = `SELECT current_setting('synchronous_standby_names'), current_setting('synchronous_commit'),
		(SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))`
	if err := e.ask(ctx, query, &names, &commit, &current); err != nil {
		return finding{}, err
	}
	setting, required := terminal.Printable("synchronous_standby_names = "+names), requiredStandbys(names)
	switch {
	case names == "" || commit == "local" || commit == "off":
		return ok("commits do not wait for a standby"), nil
	case !e.seesAllSessions:
		return ok("commits wait for standbys (%s); only a member of pg_read_all_stats can see whether they are connected", setting), nil
	case current < required:
		return finding{
			warning, fmt.Sprintf("commits do not end, and their rows are not sent: the number of standbys that are connected and up to date is %d, and %s requires %d", current, setting, required),
			"start the missing standbys, and wait until they have caught up; SELECT application_name, state, sync_state FROM pg_stat_replication; shows those that are connected\n" +
				"if the missing standbys no longer exist, remove them from synchronous_standby_names and lower its number",
		}, nil
	}
	return ok("commits wait for standbys (%s), and rows are sent after that", setting), nil
}

// requiredStandbys returns the number of standbys that each commit waits for, from the value of
// synchronous_standby_names. It is n in "FIRST n (a, b)", "ANY n (a, b)" and "n (a, b)". It is 1 in "a, b".
func requiredStandbys(names string) int {
	number := standbyNumber.FindStringSubmatch(names)
	if number == nil {
		return 1
	}
	n, _ := strconv.Atoi(number[1]) // if n is too large for an int, Atoi returns the largest int
	return n
}

var standbyNumber = regexp.MustCompile(`(?i)^\s*(?:(?:FIRST|ANY)\s+)?(\d+)\s*\(`)

// queue checks the queue of notifications. When it is full, the COMMIT of a transaction with a NOTIFY fails, even if
// the NOTIFY comes only from the trigger of an INSERT.
func (e *Examination) queue(ctx context.Context) (finding, error) {
	var usage float64
	if err := e.ask(ctx, "SELECT pg_notification_queue_usage()", &usage); err != nil {
		return finding{}, err
	}
	f := ok("%.0f %% full", 100*usage)
	if usage < 0.1 {
		return f, nil
	}
	f.verdict, f.fix = warning, "end the session that has called LISTEN and then left a transaction open; until then "+
		"ALTER DATABASE … SET rowcast.ring = off keeps INSERTs from using the queue"
	if usage > 0.5 {
		f.verdict = failure
		f.text += "; when it is full, transactions that notify fail"
	}
	return f, nil
}

// transactions looks for transactions, prepared ones included, that have written and have been open for over a minute.
// While a transaction that inserted rows without a notification is open, the hubs must poll.
func (e *Examination) transactions(ctx context.Context) (finding, error) {
	const query = `SELECT count(*), coalesce(extract(epoch FROM max(age)), 0)::float8, coalesce(string_agg(what, ', ' ORDER BY age DESC), '') FROM (
		SELECT now() - xact_start AS age, 'pid ' || pid AS what FROM pg_stat_activity
			WHERE datname = current_database() AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()
		UNION ALL SELECT now() - prepared, 'prepared ' || quote_literal(gid) FROM pg_prepared_xacts WHERE database = current_database()
		ORDER BY age DESC LIMIT 5) old WHERE age > interval '1 minute'`
	var count int
	var seconds float64
	var which string
	if err := e.ask(ctx, query, &count, &seconds, &which); err != nil {
		return finding{}, err
	}
	if count > 0 {
		return finding{
			warning, fmt.Sprintf("transactions that write have been open for up to %v: %s; if they have inserted notifications, the hubs must poll",
				time.Duration(seconds*float64(time.Second)).Round(time.Second), which),
			"end these transactions (pg_terminate_backend, ROLLBACK PREPARED), and consider idle_in_transaction_session_timeout",
		}, nil
	}
	if !e.seesAllSessions {
		return ok("no transaction of this role that writes has been open for more than a minute; only a member of pg_read_all_stats can see other roles' transactions"), nil
	}
	return ok("no transaction that writes has been open for more than a minute"), nil
}
