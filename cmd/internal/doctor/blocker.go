package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/cmd/internal/terminal"
	"rowcast/sql"
)

// blockedAfter is the time after which watch looks for a session that blocks a check. It is half of the time that a
// check may take.
const blockedAfter = 5 * time.Second

// watch looks for a session that blocks a check. It begins when the check has taken blockedAfter, and uses another
// connection. The channel receives one finding, at the latest when ctx ends. The finding has no text if no blocking
// session was found.
func (e *Examination) watch(ctx context.Context) <-chan finding {
	result := make(chan finding, 1)
	if e.conn == nil || e.conn.IsClosed() {
		result <- finding{}
		return result
	}
	pid, config := e.conn.PgConn().PID(), e.Config.Copy()
	go func() {
		var found finding
		defer func() { result <- found }()
		timer := time.NewTimer(blockedAfter)
		defer timer.Stop()
		select {
		case <-timer.C:
			found = blockerOf(ctx, config, pid)
		case <-ctx.Done():
		}
	}()
	return result
}

// blockerOf returns a finding that names a session that blocks the session with the process ID pid.
func blockerOf(ctx context.Context, config *pgx.ConnConfig, pid uint32) finding {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return finding{}
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var blocker int
	var role, application, state string
	const find = `SELECT blocker, coalesce(usename::pg_catalog.text, '(hidden)'), coalesce(application_name, '(hidden)'), coalesce(state, '(hidden)')
		FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) blocker LEFT JOIN pg_catalog.pg_stat_activity ON pid OPERATOR(pg_catalog.=) blocker LIMIT 1`
	if err := conn.QueryRow(ctx, find, int32(pid)).Scan(&blocker, &role, &application, &state); err != nil {
		return finding{}
	}
	if blocker == 0 { // a prepared transaction
		return finding{failure, "no answer within 10 s: a prepared transaction blocks the check", sql.EndPrepared}
	}
	return finding{
		failure, terminal.Printable(fmt.Sprintf("no answer within 10 s: process %d of the role %s (application %q, %s) blocks the check", blocker, role, application, state)),
		fmt.Sprintf("end its transaction; if it is abandoned: SELECT pg_terminate_backend(%d);", blocker),
	}
}
