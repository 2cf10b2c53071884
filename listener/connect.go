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
)

// settings are what our statements need. None is optional. A default_transaction_isolation of serializable would make the
// fetch conflict with its writers. row_security could make it silently empty. With another search_path, functions and
// operators of a stranger could run with the hub's rights. Without the plan settings, the planner reads the whole table
// whenever its statistics are wrong.
var settings = map[string]string{
	"DateStyle":                           "ISO",
	"default_transaction_isolation":       "read committed",
	"default_transaction_read_only":       "off",
	"idle_in_transaction_session_timeout": "0",
	"lock_timeout":                        "0",
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

// newerSettings are those that older servers do not know, with the major version that brought them.
var newerSettings = map[string]int{
	"idle_session_timeout": 14,
	"transaction_timeout":  17,
}

// settingsFor are the settings for a server of a major version, as arguments of set_config. The server cancels a statement a
// little before the client gives up its connection, so that the session survives.
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

// connConfig returns the configuration of the next connection: named, and noticing a dead peer by itself.
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
	// Server-Sent Events are UTF-8 whatever the database is, and whatever the role has set.
	config.RuntimeParams["client_encoding"] = "UTF8"
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = l.Timeout
	}
	config.DialFunc = noticingDeath(config.DialFunc, l.Timeout)
	if l.PollOnly {
		// A pooler may give every statement another connection, so none is prepared.
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	return config, nil
}

// noticingDeath returns dial, which may be the caller's own, with options on its TCP connections by which the kernel gives up a
// peer that has died without a word.
func noticingDeath(dial pgconn.DialFunc, timeout time.Duration) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			keepAlive := net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}
			if err := errors.Join(tcp.SetKeepAliveConfig(keepAlive), setUserTimeout(tcp, timeout)); err != nil {
				_ = conn.Close()
				return nil, err
			}
		}
		return conn, nil
	}
}

// connect opens a session with our settings that is ours alone; with PollOnly a mere connection. Of several hosts each has its own
// time to answer: the first may be a primary that died without a word. heard, if not nil, is given the notifications.
func (l *Listener) connect(ctx context.Context, purpose string, heard pgconn.NotificationHandler) (*pgx.Conn, error) {
	config, err := l.connConfig(purpose)
	if err != nil {
		return nil, err
	}
	if heard != nil {
		config.OnNotification = heard
	}
	conn, err := pgx.ConnectConfig(ctx, config) // config.ConnectTimeout is a host's
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

// with runs read with our settings on a connection that connect has opened.
func (l *Listener) with(ctx context.Context, conn *pgx.Conn, read func(querier) error) error {
	if l.PollOnly {
		return inTransaction(ctx, conn, l.Timeout, read)
	}
	return read(conn)
}

// prepare checks that the session is ours alone and makes our settings. Until they are made, nothing may be looked up in the
// search_path, which can lead to a stranger's functions, operators and types: every name is qualified, and no operator is used.
// The same holds for checkPrimary and for the first statement of inTransaction.
func prepare(ctx context.Context, conn *pgx.Conn, timeout time.Duration) error {
	if err := checkPooler(ctx, conn); err != nil {
		return err
	}
	var set strings.Builder
	for name, value := range settingsFor(majorVersion(conn), timeout) {
		fmt.Fprintf(&set, "SELECT pg_catalog.set_config('%s', '%s', false);", name, value) // SET would take a list for one name
	}
	if _, err := conn.PgConn().Exec(ctx, set.String()).ReadAll(); err != nil {
		return fmt.Errorf("make session settings: %w", err)
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

// inTransaction runs read with our settings on a connection that is ours for one transaction only.
func inTransaction(ctx context.Context, conn *pgx.Conn, timeout time.Duration, read func(querier) error) error {
	return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
		var names, values []string
		for name, value := range settingsFor(majorVersion(conn), timeout) {
			names, values = append(names, name), append(values, value)
		}
		const set = `SELECT pg_catalog.set_config(name, value, true) FROM ROWS FROM
			(pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) setting (name, value)`
		if _, err := tx.Exec(ctx, set, names, values); err != nil {
			return fmt.Errorf("make settings: %w", err)
		}
		return read(tx)
	})
}

// majorVersion is what the server said when the connection was made, 15 for example.
func majorVersion(conn *pgx.Conn) int {
	var major int
	_, _ = fmt.Sscanf(conn.PgConn().ParameterStatus("server_version"), "%d", &major)
	return major
}

// checkPooler returns ErrPooled if what is listened for on this connection is not heard. A pooler gives process ids of its
// own; one that pools by session does no harm, so where they differ it is tried.
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
	ring, err := pgx.ConnectConfig(ctx, conn.Config())
	if err != nil {
		return err
	}
	defer func() { _ = ring.Close(ctx) }()
	if _, err := ring.PgConn().Exec(ctx, "NOTIFY "+channel).ReadAll(); err != nil {
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

// beginEpoch returns the tag of the present epoch. It begins one if PostgreSQL has recovered since the last.
func beginEpoch(ctx context.Context, db querier) (cursor.Tag, error) {
	const begin = `INSERT INTO rowcast.epoch (one) SELECT true WHERE NOT EXISTS (SELECT FROM rowcast.epoch) ON CONFLICT DO NOTHING`
	if _, err := db.Exec(ctx, begin); err != nil {
		return 0, fmt.Errorf("begin epoch: %w", err)
	}
	return readEpoch(ctx, db)
}

// readEpoch returns the tag of the present epoch.
func readEpoch(ctx context.Context, db querier) (cursor.Tag, error) {
	var tag string
	if err := db.QueryRow(ctx, "SELECT rowcast.epoch_tag()").Scan(&tag); err != nil {
		return 0, fmt.Errorf("read epoch: %w", err)
	}
	return cursor.ParseTag(tag)
}

// isAnchorValid tells whether the row by which the cursor is checked is still there.
func isAnchorValid(ctx context.Context, db querier, c cursor.Cursor) (bool, error) {
	find := `SELECT rowcast.anchor_tag(id, created_at) FROM rowcast.notifications n WHERE xid = $1::text::xid8 AND id = $2
		AND (` + assigned + `) UNION ALL SELECT rowcast.database_tag() WHERE $1::text::bigint < $3`
	rows, err := db.Query(ctx, find, fmt.Sprint(c.AnchorXid()), c.Anchor.ID, int64(cursor.First))
	if err != nil {
		return false, fmt.Errorf("look for the anchor: %w", err)
	}
	tags, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return false, fmt.Errorf("look for the anchor: %w", err)
	}
	return len(tags) == 1 && tags[0] == c.Anchor.Tag.String(), nil
}

// Preflight connects once, as Run would, and says what is wrong: [ErrPooled], [ErrStandby], [sql.ErrNoSchema], or whatever
// kept it from connecting.
func (l *Listener) Preflight(ctx context.Context) error {
	defaults(l)
	conn, err := l.connect(ctx, "preflight", nil)
	if err != nil {
		return err
	}
	defer closeNow(conn)
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	return l.with(ctx, conn, func(db querier) error {
		if err := sql.Check(ctx, db); err != nil {
			return err
		}
		_, err := beginEpoch(ctx, db)
		return err
	})
}
