package listener

import (
	"strconv"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/cursor"
	"rowcast/sql"
)

// A pageQuery reads a page of rows, in the order of delivery.
type pageQuery struct {
	// full reads rows with their data. Its last two parameters are the stored size up to which data is read, and the
	// length up to which the text of data is returned.
	full string
	// list reads no column whose value can make the query fail.
	list string
	// near says that the query is nearQuery, which has other parameters.
	near bool
}

// newPageQuery returns a query for a first row and for the rows of arms. stored and text are the placeholders of the
// last two parameters of full.
func newPageQuery(first func(more string) string, arms func(columns) string, stored, text string) pageQuery {
	return pageQuery{
		full: first(", NULL::text, NULL::text, NULL::text") + arms(columns{
			table:  "xid, id, recipient, event, data, created_at",
			result: ", " + boundRecipient + ", " + boundEvent + ", " + inlineData(stored, text),
		}),
		list: first("") + arms(columns{table: "xid, id, created_at"}),
	}
}

// fetchQuery reads the rows that a cursor has not seen and a snapshot shows. The cursor is $1 (its half-delivered
// transaction), $2 (the id of the last delivered row of that transaction), $3 (the transactions in flight) and $4 (the
// transaction from which on nothing was seen). The snapshot is $5, or the present one if $5 is NULL. Each arm returns
// at most $6 rows. The rows come in the order of delivery: the half-delivered transaction first (rule 7).
//
// Each arm is one ordered index scan, because for a single condition with OR the planner could read the whole table.
// The arms order by n.xid: xid alone would be the column of the result, a text. Without the upper bound in the last
// arm, every fetch would read the rows with transaction numbers that this server has not assigned yet (restored or
// forged rows).
var fetchQuery = newPageQuery(snapshotRow(noState), fetchArms, "$7", "$8")

func fetchArms(c columns) string {
	return `
UNION ALL (SELECT ` + c.of(1) + ` FROM rowcast.notifications n
	WHERE xid = $1::text::xid8 AND id > $2 AND pg_visible_in_snapshot(xid, ` + shown + `) AND (` + assigned + `)
	ORDER BY n.xid, n.id LIMIT $6)
UNION ALL (SELECT ` + c.of(2) + ` FROM rowcast.notifications n
	WHERE xid = ANY (ARRAY(SELECT x FROM unnest($3::text::xid8[]) x WHERE pg_visible_in_snapshot(x, ` + shown + `)))
	AND (` + assigned + `)
	ORDER BY n.xid, n.id LIMIT $6)
UNION ALL (SELECT ` + c.of(3) + ` FROM rowcast.notifications n
	WHERE xid >= $4::text::xid8 AND xid < pg_snapshot_xmax(` + shown + `)
	AND pg_visible_in_snapshot(xid, ` + shown + `) AND (` + assigned + `)
	ORDER BY n.xid, n.id LIMIT $6)`
}

// nearQuery reads the same rows as fetchQuery with less CPU, because it has a single arm. This arm begins at $1,
// the oldest transaction that the cursor has not seen. So it also reads the rows of later transactions that the cursor
// has seen, and leaves them out: the query is for cursors with few such rows, and without a half-delivered transaction.
// $2 has the transactions in flight, $3 is the transaction from which on nothing was seen, and $4 is the largest number
// of rows. nearQuery reads the present snapshot. Without a row in rowcast.history, the horizon is NULL.
//
// $1 and $2 can leave out the oldest transactions in flight, as if the cursor had seen them (see span). If the snapshot
// shows that one of these transactions has ended, the page must not be used, because rows may be missing.
var nearQuery = func() pageQuery {
	const present = `(SELECT pg_current_snapshot())`
	q := newPageQuery(func(more string) string {
		return firstRow(`(`+horizon+`)::text`, noState, more) + `pg_current_snapshot() snapshot`
	}, func(c columns) string {
		return `
UNION ALL (SELECT ` + c.of(1) + ` FROM rowcast.notifications n
	WHERE xid >= $1::text::xid8 AND xid < pg_snapshot_xmax(` + present + `) AND (xid >= $3::text::xid8 OR xid = ANY ($2::text::xid8[]))
	AND pg_visible_in_snapshot(xid, ` + present + `) AND (` + assigned + `)
	ORDER BY n.xid, n.id LIMIT $4)`
	}, "$5", "$6")
	q.near = true
	return q
}()

// assigned leaves out the rows whose transaction number this server had not assigned when they were written (rule
// 25).
var assigned = sql.Assigned("n")

// shown is the snapshot that is read. It is a subquery, so that it is not computed again for each row.
const shown = `(SELECT coalesce($5::text::pg_snapshot, pg_current_snapshot()))`

// replayQuery reads rows that a cursor ($1 to $4, as in fetchQuery) has not seen and a snapshot ($5) shows. It reads
// only the rows for the recipients in $7, at most $6 rows, in the order of delivery. It scans the index
// separately for each recipient, and for each transaction that was in flight. So each scan is short and ordered,
// whatever the statistics of the table are.
//
// wanted.name and finished.x have their tables, because a name without a table would mean a column that somebody has
// added to rowcast.notifications.
var replayQuery = newPageQuery(snapshotRow(noState), func(c columns) string {
	replayed := c.table + ` FROM rowcast.notifications n`
	return `
UNION ALL (SELECT ` + c.of(1) + ` FROM (
	(SELECT 1 AS part, n.* FROM unnest($7::text[]) wanted (name), LATERAL (SELECT ` + replayed + ` WHERE recipient = wanted.name AND ` + restOf + `) n)
	UNION ALL
	(SELECT 2, n.* FROM unnest($7::text[]) wanted (name), ` + finished + `, LATERAL (SELECT ` + replayed + ` WHERE recipient = wanted.name AND ` + ofX + `) n)
	UNION ALL
	(SELECT 2, n.* FROM unnest($7::text[]) wanted (name), LATERAL (SELECT ` + replayed + ` WHERE recipient = wanted.name AND ` + later + `) n)
	ORDER BY part, xid, id LIMIT $6) merged)`
}, "$8", "$9")

// The parts of replayQuery: three conditions for rows, and the transactions that were in flight at the cursor and have
// ended.
var (
	restOf = `xid = $1::text::xid8 AND id > $2 AND pg_visible_in_snapshot(xid, ` + shown + `) AND (` + assigned + `)
		ORDER BY recipient, xid, id LIMIT $6`
	ofX      = `xid = finished.x AND (` + assigned + `) ORDER BY recipient, xid, id LIMIT $6`
	finished = `(SELECT x FROM unnest($3::text::xid8[]) x WHERE pg_visible_in_snapshot(x, ` + shown + `)) finished`
	later    = `xid >= $4::text::xid8 AND xid < pg_snapshot_xmax(` + shown + `)
		AND pg_visible_in_snapshot(xid, ` + shown + `) AND (` + assigned + `) ORDER BY recipient, xid, id LIMIT $6`
)

// args returns the first parameters of a query: the cursor, the snapshot (not for nearQuery) and the largest number of
// rows.
func (q request) args(rows int) []any {
	if q.query.near {
		c := q.from
		c.Xip = c.Xip[q.skipped:]
		return []any{strconv.FormatUint(c.Lowest(), 10), formatXids(c.Xip), strconv.FormatUint(c.Xmax, 10), rows}
	}
	var shows *string
	if q.snapshot != nil {
		text := formatSnapshot(*q.snapshot)
		shows = &text
	}
	c := q.from
	later := c.Xmax
	if c.Xid == later { // the first arm reads the rest of this transaction; the last arm would read its rows from the beginning
		later++
	}
	return []any{strconv.FormatUint(c.Xid, 10), c.ID, formatXids(c.Xip), strconv.FormatUint(later, 10), shows, rows}
}

// firstRow returns the beginning of every query, up to FROM. It selects one row with the snapshot, the horizon and a
// state ([readState]), even if there are no rows to deliver.
func firstRow(horizon, state, more string) string {
	return `SELECT snapshot::text, ` + horizon + `, NULL::text, NULL::bigint, ` + state + `, 0` + more + `
	FROM `
}

// snapshotRow returns the beginning of every query except nearQuery. Without a row in rowcast.history, the horizon is
// the lowest transaction that has rows, because retention may have deleted everything before it. Without any rows, the
// horizon is then the xmin of the snapshot. "~" marks both cases.
func snapshotRow(state string) func(more string) string {
	return func(more string) string {
		return firstRow(`coalesce((`+horizon+`)::text, '~' || (SELECT xid FROM rowcast.notifications WHERE xid >= '3' ORDER BY xid LIMIT 1),
		'~' || pg_snapshot_xmin(snapshot))`, state, more) + `coalesce($5::text::pg_snapshot, pg_current_snapshot()) snapshot`
	}
}

const noState = "NULL::text"

// horizon selects the horizon of retention. max makes it one value even if the table was emptied, or altered to have
// several rows.
const horizon = `SELECT max(horizon::text::bigint) FROM rowcast.history WHERE singleton`

// columns are the columns that the arms of a query select.
type columns struct {
	table  string // the columns of the table that are needed
	result string // the columns of the result that follow the number of the arm
}

// of returns the columns of the result for an arm, in the order of the constants below.
func (c columns) of(arm int) string {
	return "NULL::text, NULL::text, xid::text, id, encode(timestamptz_send(created_at), 'hex'), " + strconv.Itoa(arm) + c.result
}

// The columns of a result. created_at comes as timestamptz_send encodes it: microseconds since 2000, in hexadecimal
// digits.
const (
	colSnapshot = iota
	colHorizon
	colXid
	colID
	colCreatedAt
	colArm
	colRecipient
	colEvent
	colData
	fullColumns
	listColumns = colRecipient
	colState    = colCreatedAt // in the first row of a result, this column has the state of the server (see readState)
)

// fullAsText and listAsText ask for all columns as text. Where statements are not prepared, columns are text anyway.
var (
	fullAsText = make(pgx.QueryResultFormats, fullColumns)
	listAsText = make(pgx.QueryResultFormats, listColumns)
)

// boundRecipient and boundEvent enforce the table's limits for the lengths of recipient and event, in the encoding of
// the database. A value that is too long is replaced by NULL, so the row counts as invalid.
const (
	boundRecipient = `CASE WHEN octet_length(recipient) <= 256 THEN recipient END`
	boundEvent     = `CASE WHEN octet_length(event) <= 128 THEN event END`
)

// inlineData returns an SQL expression for the text of data. The value of the expression is NULL if data is too large,
// as stored or as text. data #> '{}' is data before compression: the text of compressed numbers can be a million times
// as long as what is stored. The text of data of at most 512 bytes is not measured, because it is shorter than 5 MiB.
// For a small row, measuring would cost half as much as everything else.
func inlineData(stored, text string) string {
	return `CASE WHEN pg_column_size(data) > ` + stored + `::int THEN NULL
	WHEN pg_column_size(data #> '{}') <= least(` + stored + `::int, 512) THEN data::text
	WHEN pg_column_size(data #> '{}') > ` + stored + `::int THEN NULL
	ELSE (SELECT CASE WHEN octet_length(t) <= ` + text + `::bigint THEN t END FROM (SELECT data::text OFFSET 0) made (t)) END`
}

// formatSnapshot returns the text of the pg_snapshot that shows what a whole cursor has seen.
func formatSnapshot(c cursor.Cursor) string {
	xmin := c.Xmax
	if len(c.Xip) > 0 {
		xmin = c.Xip[0]
	}
	b := strconv.AppendUint(nil, xmin, 10)
	b = append(b, ':')
	b = strconv.AppendUint(b, c.Xmax, 10)
	b = append(b, ':')
	return string(appendXids(b, c.Xip))
}

// formatXids returns the text of an array of xid8.
func formatXids(xids []uint64) string {
	return string(append(appendXids([]byte{'{'}, xids), '}'))
}

func appendXids(b []byte, xids []uint64) []byte {
	for i, xid := range xids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, xid, 10)
	}
	return b
}
