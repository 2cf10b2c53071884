package listener

import (
	"strconv"

	"github.com/jackc/pgx/v5"
)

// A pageQuery reads a page of rows. It is made of arms, each an ordered index scan.
type pageQuery struct {
	// full reads rows with their data. Its last two parameters are the stored size up to which data is read, and the length up
	// to which its text is sent.
	full string
	// list reads no column whose value can be at fault.
	list string
}

// columns are what the arms of a query select.
type columns struct {
	table  string // the columns of the table that are needed
	result string // the columns of the result behind the number of the arm
}

// of returns the columns of the result for an arm.
func (c columns) of(arm int) string {
	return "NULL::text, NULL::text, xid::text, id, encode(timestamptz_send(created_at), 'hex'), " + strconv.Itoa(arm) + c.result
}

// newPageQuery makes a query that asks for a state ([readState]) and for arms; stored and text are the last two parameters of full.
func newPageQuery(state string, arms func(columns) string, stored, text string) pageQuery {
	return pageQuery{
		full: snapshotRow(state, ", NULL::text, NULL::text, NULL::text") + arms(columns{
			table:  "xid, id, recipient, event, data, created_at",
			result: ", " + boundRecipient + ", " + boundEvent + ", " + inlineData(stored, text),
		}),
		list: snapshotRow(state, "") + arms(columns{table: "xid, id, created_at"}),
	}
}

// noState asks for no state.
const noState = "NULL::text"

// snapshotRow begins every query: its row comes even if no other does. Without a row in rowcast.history the horizon is the lowest
// transaction of which there are rows, as retention may have deleted all before, and "~" marks that.
func snapshotRow(state, result string) string {
	return `SELECT snapshot::text, coalesce((` + horizon + `)::text,
		'~' || (SELECT xid FROM rowcast.notifications WHERE xid >= '3' ORDER BY xid LIMIT 1), '~' || pg_snapshot_xmin(snapshot)),
	NULL::text, NULL::bigint, ` + state + `, 0` + result + `
	FROM coalesce($5::text::pg_snapshot, pg_current_snapshot()) snapshot`
}

// horizon asks for the horizon of retention. Somebody may have emptied the table or altered it, so that it has several rows.
const horizon = `SELECT max(horizon::text::bigint) FROM rowcast.history WHERE one`

// The rules of the table for the lengths of recipient and event, in the encoding of the database. What is too long is not sent, but
// becomes a value that breaks the rules as well: the empty recipient, and NULL as the event.
const (
	boundRecipient = `CASE WHEN octet_length(recipient) > 256 THEN '' ELSE recipient END`
	boundEvent     = `CASE WHEN octet_length(event) <= 128 THEN event END`
)

// inlineData is the text of data, or NULL if it is too large. data #> '{}' is data as it is before it is compressed: compressed
// numbers can be a million times as long in text. The text of at most 512 bytes has at most 4 MiB and is not measured: for a small
// row that would cost half as much as everything else.
func inlineData(stored, text string) string {
	return `CASE WHEN pg_column_size(data) > ` + stored + `::int THEN NULL
	WHEN pg_column_size(data #> '{}') <= least(` + stored + `::int, 512) THEN data::text
	WHEN pg_column_size(data #> '{}') > ` + stored + `::int THEN NULL
	ELSE (SELECT CASE WHEN octet_length(t) <= ` + text + `::bigint THEN t END FROM (SELECT data::text OFFSET 0) made (t)) END`
}

// The columns of a result. A time is what timestamptz is made of: microseconds from 2000 on, in hexadecimal digits.
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
	colState    = colCreatedAt // of the snapshot's row
)

// These ask for all columns as text. So they come anyhow where statements are not prepared.
var (
	fullAsText = make(pgx.QueryResultFormats, fullColumns)
	listAsText = make(pgx.QueryResultFormats, listColumns)
)

// shown is the snapshot that is read. It is computed once an arm, not once a row.
const shown = `(SELECT coalesce($5::text::pg_snapshot, pg_current_snapshot()))`
