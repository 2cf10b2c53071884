package listener

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener/cursor"
	"rowcast/sql"
	"rowcast/sql/connstring"
)

// settings are the parameters on which the statements depend. With a default_transaction_isolation of serializable,
// fetches would conflict with writers. With row_security, fetches could silently return no rows. With another
// search_path, functions and operators of another role could run with the hub's rights. With quote_all_identifiers, the
// definitions of the schema's objects would differ from what rowcast migrate installs. Without the settings for the
// planner, the planner could choose to read the whole table when its statistics are wrong.
var settings = map[string]string{
	"DateStyle":                           "ISO",
	"default_transaction_isolation":       "read committed",
	"default_transaction_read_only":       "off",
	"idle_in_transaction_session_timeout": "0",
	"lock_timeout":                        "0",
	"quote_all_identifiers":               "off",
	"row_security":                        "off",
	"search_path":                         "pg_catalog, pg_temp",
	"standard_conforming_strings":         "on",

	"enable_bitmapscan":               "off",
	"enable_indexscan":                "on",
	"enable_seqscan":                  "off",
	"jit":                             "off",
	"max_parallel_workers_per_gather": "0",
	"plan_cache_mode":                 "force_generic_plan",
}

// newerSettings are parameters that older servers do not have, with the major version that introduced each. They are
// set to 0.
var newerSettings = map[string]int{
	"idle_session_timeout": 14,
	"transaction_timeout":  17,
}

// settingsFor returns the settings for a server of a major version, as arguments of set_config. The server cancels a
// statement a little before the client gives up the connection, so that the session survives.
func settingsFor(version int, timeout time.Duration) map[string]string {
	all := maps.Clone(settings)
	all["statement_timeout"] = strconv.FormatInt((timeout * 9 / 10).Milliseconds(), 10)
	for name, since := range newerSettings {
		if version >= since {
			all[name] = "0"
		}
	}
	return all
}

// connConfig returns the configuration of the next connection. It sets an application_name, an encoding, a time limit
// for connecting if there is none, and a DialFunc that sets TCP options with which the kernel detects a dead peer. With
// PollOnly, it also turns off prepared statements.
func (l *Listener) connConfig(purpose string) (*pgx.ConnConfig, error) {
	config := l.Config
	if l.Configure != nil {
		var err error
		if config, err = l.Configure(); err != nil {
			return nil, fmt.Errorf("read the connection's configuration: %w", err)
		}
	}
	config = config.Copy()
	config.RuntimeParams["application_name"] = "rowcast " + purpose
	// Server-Sent Events are UTF-8, whatever the encoding of the database is and whatever the role has set.
	config.RuntimeParams["client_encoding"] = "UTF8"
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = l.Timeout
	}
	config.DialFunc = noticingDeath(config.DialFunc, l.Timeout)
	if l.PollOnly {
		// A pooler may run every statement on another connection, so no statement is prepared.
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	return config, nil
}

// noticingDeath returns a function that calls dial and sets options on a TCP connection. With these options, the kernel
// closes the connection if the peer has died without closing it. A connection of another kind gets no options.
func noticingDeath(dial pgconn.DialFunc, timeout time.Duration) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			keepAlive := net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}
			if err := errors.Join(tcp.SetKeepAliveConfig(keepAlive), connstring.SetUserTimeout(tcp, timeout)); err != nil {
				_ = conn.Close()
				return nil, err
			}
		}
		return conn, nil
	}
}

// waitingDirectly returns a function that calls dial and passes the connection to direct, which may replace it.
func waitingDirectly(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return direct(conn)
	}
}

// connect opens a session with the listener's settings, and checks that the server is a primary. With PollOnly, it
// opens a connection without the settings, because each transaction applies them. If there are several hosts, each host
// has its own time limit, because the first may be a primary that has died. receive, if non-nil, is called with each
// notification. On Linux, a connection with receive waits in a system call of its own (see direct).
func (l *Listener) connect(ctx context.Context, purpose string, receive pgconn.NotificationHandler) (*pgx.Conn, error) {
	config, err := l.connConfig(purpose)
	if err != nil {
		return nil, err
	}
	if receive != nil {
		config.OnNotification = receive
		config.DialFunc = waitingDirectly(config.DialFunc)
	}
	conn, err := pgx.ConnectConfig(ctx, config) // config.ConnectTimeout applies to each host
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	if !l.PollOnly {
		err = prepare(ctx, conn, l.Timeout)
	}
	if err == nil {
		err = checkPrimary(ctx, conn)
	}
	if err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// withSettings calls read with a connection that connect has opened. With PollOnly, it calls read in a transaction that
// has the settings.
func (l *Listener) withSettings(ctx context.Context, conn *pgx.Conn, read func(querier) error) error {
	if l.PollOnly {
		return inTransaction(ctx, conn, l.Timeout, read)
	}
	return read(conn)
}

// prepare checks that no transaction pooler shares the session, and applies the settings. Until then, the search_path
// may lead to functions, operators and types of another role. So every name in these statements is qualified, and no
// operator is used. The same applies to checkPrimary and to the first statement of inTransaction.
func prepare(ctx context.Context, conn *pgx.Conn, timeout time.Duration) error {
	if err := checkPooler(ctx, conn); err != nil {
		return err
	}
	var set strings.Builder
	for name, value := range settingsFor(majorVersion(conn), timeout) {
		// SET search_path = 'a, b' would name one schema, with a comma in its name.
		fmt.Fprintf(&set, "SELECT pg_catalog.set_config('%s', '%s', false);", name, value)
	}
	if _, err := conn.PgConn().Exec(ctx, set.String()).ReadAll(); err != nil {
		return fmt.Errorf("apply the session settings: %w", err)
	}
	return nil
}

func checkPrimary(ctx context.Context, conn *pgx.Conn) error {
	var standby bool
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_is_in_recovery()").Scan(&standby); err != nil {
		return err
	}
	if standby {
		return ErrStandby
	}
	return nil
}

// inTransaction calls read in a transaction that has the settings. After the transaction, the connection may serve
// other clients of a pooler.
func inTransaction(ctx context.Context, conn *pgx.Conn, timeout time.Duration, read func(querier) error) error {
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
		var names, values []string
		for name, value := range settingsFor(majorVersion(conn), timeout) {
			names, values = append(names, name), append(values, value)
		}
		const set = `SELECT pg_catalog.set_config(name, value, true) FROM ROWS FROM
			(pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) setting (name, value)`
		if _, err := tx.Exec(ctx, set, names, values); err != nil {
			return fmt.Errorf("apply the settings: %w", err)
		}
		return read(tx)
	})
	if refusesTransactions(err) {
		return fmt.Errorf("%w (%w)", ErrStatementPooled, err)
	}
	return err
}

// refusesTransactions reports whether an error is PgBouncer's answer to a BEGIN in the pool mode statement. Other errors
// with the same code can be temporary. PgBouncer's messages are always in English, and its errors name no routine.
func refusesTransactions(err error) bool {
	failed, ok := errors.AsType[*pgconn.PgError](err)
	return ok && failed.Code == "08P01" && failed.Routine == "" && strings.Contains(failed.Message, "statement pooling mode")
}

// majorVersion returns the major version of the server, for example 15.
func majorVersion(conn *pgx.Conn) int {
	var major int
	_, _ = fmt.Sscanf(conn.PgConn().ParameterStatus("server_version"), "%d", &major)
	return major
}

// checkPooler returns ErrPooled if the connection does not receive notifications because of a pooler. A pooler reports
// a process ID of its own at the beginning of a connection. Therefore checkPooler sends a NOTIFY only if this process
// ID is not the ID of the server process. A pooler that pools by session passes this test and does no harm.
func checkPooler(ctx context.Context, conn *pgx.Conn) error {
	var pid uint32
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_backend_pid()", pgx.QueryExecModeExec).Scan(&pid); err != nil {
		return err
	}
	if pid == conn.PgConn().PID() {
		return nil
	}
	channel := fmt.Sprintf("rowcast_probe_%d", rand.Int64())
	if _, err := conn.PgConn().Exec(ctx, "LISTEN "+channel).ReadAll(); err != nil {
		return fmt.Errorf("%w (LISTEN: %w)", ErrPooled, err)
	}
	sender, err := pgx.ConnectConfig(ctx, conn.Config())
	if err != nil {
		return err
	}
	defer func() { _ = sender.Close(ctx) }()
	if _, err := sender.PgConn().Exec(ctx, "NOTIFY "+channel).ReadAll(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := conn.PgConn().WaitForNotification(ctx); err != nil {
		return ErrPooled
	}
	_, err = conn.PgConn().Exec(ctx, "UNLISTEN "+channel).ReadAll()
	return err
}

// ErrIncomplete reports that a table of rowcast has no index. It disappears when a restore of the database ends.
var ErrIncomplete = errors.New("rowcast.notifications or rowcast.epoch has no index: wait until the restore of the database has ended, or else run rowcast doctor")

// beginEpoch returns the tag of the present epoch. It begins a new epoch if rowcast.epoch is empty, as it is after a
// crash recovery (rule 19).
//
// It returns ErrIncomplete while pg_restore is at work. If beginEpoch inserted a token, rowcast.epoch would have two rows
// after the restore. If a listener began before the rows are there, it would deliver them as new.
func beginEpoch(ctx context.Context, db querier) (cursor.Tag, error) {
	if err := checkIndexes(ctx, db); err != nil {
		return 0, err
	}
	const begin = `INSERT INTO rowcast.epoch (one) SELECT true WHERE NOT EXISTS (SELECT FROM rowcast.epoch) ON CONFLICT DO NOTHING`
	if _, err := db.Exec(ctx, begin); err != nil {
		return 0, fmt.Errorf("begin epoch: %w", err)
	}
	return readEpoch(ctx, db)
}

// checkIndexes returns ErrIncomplete if rowcast.notifications or rowcast.epoch exists without an index. pg_restore
// creates the tables, then restores the rows, and then creates the indexes.
func checkIndexes(ctx context.Context, db querier) error {
	const find = `SELECT EXISTS (SELECT FROM pg_class c WHERE oid IN (to_regclass('rowcast.notifications'), to_regclass('rowcast.epoch'))
		AND relkind = 'r' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid))`
	var incomplete bool
	if err := db.QueryRow(ctx, find).Scan(&incomplete); err != nil {
		return fmt.Errorf("find the schema: %w", err)
	}
	if incomplete {
		return ErrIncomplete
	}
	return nil
}

func readEpoch(ctx context.Context, db querier) (cursor.Tag, error) {
	var tag string
	if err := db.QueryRow(ctx, "SELECT rowcast.epoch_tag()").Scan(&tag); err != nil {
		return 0, fmt.Errorf("read epoch: %w", err)
	}
	return cursor.ParseTag(tag)
}

// isAnchorValid reports whether the anchor of a cursor still exists (rule 18). The anchor of a cursor that has seen no
// row is the database, see ownDatabase.
//
// If the xmax of such a cursor is a horizon above [cursor.First], isAnchorValid returns false, even if the server has
// lost nothing. rowcast.cursor() returns such a cursor if somebody has emptied the table. The tag of the database does
// not show whether the transactions below the horizon are still the same: after a restore of a backup or a failover, a
// server can assign their numbers again, and retention can then reach the same horizon. A client that kept the cursor
// would miss rows, so the client is reset.
func isAnchorValid(ctx context.Context, db querier, c cursor.Cursor) (bool, error) {
	find := `SELECT rowcast.anchor_tag(id, created_at) FROM rowcast.notifications n WHERE xid = $1::text::xid8 AND id = $2
		AND (` + assigned + `) UNION ALL SELECT rowcast.database_tag() WHERE $1::text::bigint < $3 AND ` + ownDatabase
	rows, err := db.Query(ctx, find, fmt.Sprint(c.AnchorXid()), c.Anchor.ID, int64(cursor.First))
	if err != nil {
		return false, fmt.Errorf("find the anchor: %w", err)
	}
	tags, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return false, fmt.Errorf("find the anchor: %w", err)
	}
	return len(tags) == 1 && tags[0] == c.Anchor.Tag.String(), nil
}

// ownDatabase is a condition in SQL. If it is false, the database is not valid as an anchor: a reader that has seen no row
// would receive the rows that were restored since then as new.
var ownDatabase = "NOT " + sql.HasRestored

// Preflight connects as Run does, checks the schema, and begins an epoch if rowcast.epoch is empty. The error may be
// [ErrPooled], [ErrStatementPooled], [ErrStandby], [ErrIncomplete], [sql.ErrNoSchema], [sql.ErrRestored], or another
// error of one of these steps. While pg_restore is at work, it is ErrIncomplete, even if the contents of
// rowcast.migrations are not restored yet: the schema then needs no migration, and [sql.Migrate] would disturb the
// restore. Preflight also logs the first differences between the schema and what [sql.Migrate] installs. Such
// differences are no error, and a failure to find them is only logged.
func (l *Listener) Preflight(ctx context.Context) error {
	defaults(l)
	conn, err := l.connect(ctx, "preflight", nil)
	if err != nil {
		return err
	}
	defer closeNow(conn)
	bounded := func(read func(context.Context, querier) error) error {
		ctx, cancel := context.WithTimeout(ctx, l.Timeout)
		defer cancel()
		return l.withSettings(ctx, conn, func(db querier) error { return read(ctx, db) })
	}
	err = bounded(func(ctx context.Context, db querier) error {
		if err := checkIndexes(ctx, db); err != nil {
			return err
		}
		if err := sql.Check(ctx, db); err != nil {
			return err
		}
		_, err := beginEpoch(ctx, db)
		return err
	})
	if err != nil {
		return err
	}
	if err := bounded(l.logDifferences); err != nil && ctx.Err() == nil {
		l.Logger.Warn("cannot compare the schema with what rowcast migrate installs: run rowcast doctor", "error", err)
	}
	return nil
}

// logDifferences logs the first differences between the schema and what [sql.Migrate] installs. It compares nothing if
// the schema or the inbox has a later version than this program installs.
func (l *Listener) logDifferences(ctx context.Context, db querier) error {
	if version, err := sql.CheckVersion(ctx, db); err != nil || version > sql.Version() {
		return err
	}
	if inbox, err := sql.InstalledInbox(ctx, db); err != nil || inbox > sql.InboxVersion() {
		return err
	}
	const most = 10
	differences, err := sql.Differences(ctx, db)
	for _, d := range differences[:min(len(differences), most)] {
		l.Logger.Warn("the schema is not as rowcast migrate installs it: run rowcast doctor for details", "difference", d.String())
	}
	return err
}
