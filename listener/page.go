package listener

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener/cursor"
)

// querier is what a connection, a pool and a transaction have in common.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// A page is a bounded part of the rows that one cursor has not seen and a snapshot shows, from the first on.
type page struct {
	to      cursor.Cursor // what the snapshot shows, with its own xmax
	horizon uint64
	rows    []Row // in the order of cursor.Compare
	more    bool  // what follows was left out
	state   state // unknown unless the query was lookQuery
}

// inlineBytes is the stored (compressed) size up to which data comes with its page. Larger rows are read one by one, so that
// neither we nor PostgreSQL ever hold more than one of them.
const inlineBytes = "8192"

// snapshotRow begins the result of both queries, and rowColumns are the other rows'. It comes even if nothing else does. The time is
// what timestamptz is made of: microseconds from 2000 on, in hexadecimal digits.
const (
	snapshotRow = `SELECT snapshot::text, (SELECT horizon::text FROM rowcast.history WHERE one),
	NULL::text, NULL::bigint, NULL::text, NULL::text, NULL::text, NULL::text, 0
	FROM coalesce($5::text::pg_snapshot, pg_current_snapshot()) snapshot`

	rowColumns = `NULL::text, NULL::text, xid::text, id, recipient, event,
	CASE WHEN pg_column_size(data) <= ` + inlineBytes + ` THEN data::text END, encode(timestamptz_send(created_at), 'hex')`
)

// The columns of a result.
const (
	colSnapshot = iota
	colHorizon
	colXid
	colID
	colRecipient
	colEvent
	colData
	colCreatedAt
	colArm
	columns
)

// asText asks for all columns as text. So they come anyhow where statements are not prepared.
var asText = make(pgx.QueryResultFormats, columns)

// limits bound what is read at a time.
type limits struct {
	maxData   int64
	pageRows  int
	pageBytes int
}

func (l *Listener) limits() limits { return limits{l.MaxData, l.PageRows, l.PageBytes} }

// page runs a query made of the columns above and computes the cursor of each row. All rows of an arm are told before those of
// the next.
func (m limits) page(ctx context.Context, db querier, from cursor.Cursor, epoch cursor.Tag, query string, args ...any) (page, error) {
	result, err := db.Query(ctx, query, append([]any{asText}, args...)...)
	if err != nil {
		return page{}, err
	}
	p, missing, err := m.collect(result, epoch)
	if err != nil {
		return page{}, err
	}
	if err := m.fill(ctx, db, &p, missing); err != nil {
		return page{}, err
	}
	steps := cursor.Steps{From: from, To: p.to}
	for i := range p.rows {
		p.rows[i].Cursor = steps.After(p.rows[i].Row)
	}
	return p, nil
}

// args are the first six parameters of both queries: the cursor, the snapshot (nil: the present one) and the limit of an arm.
func (m limits) args(c cursor.Cursor, snapshot *cursor.Cursor) []any {
	var shows *string
	if snapshot != nil {
		text := formatSnapshot(*snapshot)
		shows = &text
	}
	later := c.Xmax
	if c.Xid == later { // has an arm of its own: the others would walk its rows again for every page
		later++
	}
	return []any{strconv.FormatUint(c.Xid, 10), c.ID, formatXids(c.Xip), strconv.FormatUint(later, 10), shows, m.pageRows}
}

// collect reads the result; missing are the indexes of rows whose data is still to be read. Values are read as they come: scanning
// them by pgx's rules costs more than all the rest.
func (m limits) collect(result pgx.Rows, epoch cursor.Tag) (p page, missing []int, err error) {
	defer result.Close()
	var bytes, arm, inArm int
	for result.Next() {
		values := result.RawValues()
		if values[colSnapshot] != nil {
			if err := p.setSnapshot(values, epoch); err != nil {
				return page{}, nil, err
			}
			continue
		}
		if its := int(values[colArm][0] - '0'); its != arm && !p.more {
			arm, inArm = its, 0
		}
		// Behind an arm that its limit cut short, others may be missing. And compressed data can be larger than it looked.
		if p.more = p.more || bytes > m.pageBytes; p.more {
			continue
		}
		row, err := readRow(values)
		if err != nil {
			return page{}, nil, err
		}
		if data := values[colData]; data == nil {
			missing = append(missing, len(p.rows))
		} else {
			row.setData(kept(data), int64(len(data)), m.maxData)
			bytes += len(data)
		}
		p.rows = append(p.rows, row)
		inArm++
		p.more = inArm == m.pageRows
	}
	return p, missing, result.Err()
}

// setSnapshot reads the first row of a result.
func (p *page) setSnapshot(values [][]byte, epoch cursor.Tag) (err error) {
	if p.to, err = parseSnapshot(string(values[colSnapshot]), epoch); err != nil {
		return err
	}
	if p.state, err = readState(values); err != nil {
		return err
	}
	p.horizon, err = strconv.ParseUint(string(values[colHorizon]), 10, 64)
	return err
}

// readRow reads all of a row but its data. The values are only lent.
func readRow(values [][]byte) (Row, error) {
	xid, err := strconv.ParseUint(string(values[colXid]), 10, 64)
	if err != nil {
		return Row{}, err
	}
	id, err := strconv.ParseInt(string(values[colID]), 10, 64)
	if err != nil {
		return Row{}, err
	}
	createdAt, err := strconv.ParseUint(string(values[colCreatedAt]), 16, 64)
	if err != nil {
		return Row{}, err
	}
	return Row{
		Row:       cursor.Row{Xid: xid, ID: id, Tag: cursor.AnchorTag(id, int64(createdAt))},
		Recipient: string(values[colRecipient]), // NULL is everyone
		Event:     string(values[colEvent]),
	}, nil
}

func (r *Row) setData(data []byte, size, limit int64) {
	r.Size = size
	if size <= limit {
		r.Data = data
	}
}

// fill reads the data of large rows, and cuts the page where it has enough. A row that is gone by now was withdrawn.
func (m limits) fill(ctx context.Context, db querier, p *page, missing []int) error {
	const read = `SELECT CASE WHEN octet_length(text) <= $3 THEN text END, octet_length(text) FROM
		(SELECT data::text FROM rowcast.notifications WHERE xid = $1::text::xid8 AND id = $2 OFFSET 0) large (text)`
	var bytes, gone int
	for _, i := range missing {
		if bytes > m.pageBytes {
			p.rows, p.more = p.rows[:i], true
			break
		}
		row := &p.rows[i]
		var data spacious
		var size int64
		err := db.QueryRow(ctx, read, strconv.FormatUint(row.Xid, 10), row.ID, m.maxData).Scan(&data, &size)
		if errors.Is(err, pgx.ErrNoRows) {
			row.ID, gone = 0, gone+1
			continue
		}
		if err != nil {
			return fmt.Errorf("read row %d: %w", row.ID, err)
		}
		row.setData(data, size, m.maxData)
		bytes += len(data)
	}
	if gone > 0 {
		p.rows = slices.DeleteFunc(p.rows, func(r Row) bool { return r.ID == 0 })
	}
	return nil
}

// spacious is data with room for the end of a frame: who sends it need not copy it for that.
type spacious []byte

// ScanBytes copies what pgx has read.
func (s *spacious) ScanBytes(read []byte) error {
	*s = nil
	if read != nil {
		*s = kept(read)
	}
	return nil
}

// kept copies what pgx only lends.
func kept(read []byte) spacious { return append(make([]byte, 0, len(read)+2), read...) }

// parseSnapshot reads the text of a pg_snapshot, xmin:xmax:xip,xip…
func parseSnapshot(text string, epoch cursor.Tag) (cursor.Cursor, error) {
	c := cursor.Cursor{Epoch: epoch}
	fields := strings.Split(text, ":")
	if len(fields) != 3 {
		return c, fmt.Errorf("malformed snapshot %q", text)
	}
	var err error
	if c.Xmax, err = strconv.ParseUint(fields[1], 10, 64); err != nil {
		return c, err
	}
	if fields[2] == "" {
		return c, nil
	}
	for xip := range strings.SplitSeq(fields[2], ",") {
		xid, err := strconv.ParseUint(xip, 10, 64)
		if err != nil {
			return c, err
		}
		c.Xip = append(c.Xip, xid)
	}
	return c, nil
}

// formatSnapshot writes what a whole cursor has seen as a pg_snapshot.
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

// formatXids writes an array of xid8.
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
