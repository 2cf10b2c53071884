package listener

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
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
	rows    []row // in the order of cursor.Compare
	more    bool  // more rows follow
	state   state // unknown unless the query was lookQuery

	historyLost bool // rowcast.history has no row: the horizon is a guess, and on the safe side

	// These decide how many rows the next page may have.
	full    bool // the page has as many rows as it may have
	cut     bool // the page ends early, because its rows are large
	trouble bool // a row is larger than a page, or cannot be read
	single  int  // the number of rows that were read by statements of their own
}

// limits bound what is read at a time.
type limits struct {
	maxData   int64
	pageRows  int
	pageBytes int
}

func (l *Listener) limits() limits { return limits{l.MaxData, l.PageRows, l.PageBytes} }

// A reader reads pages.
type reader struct {
	limits
	run        runner
	unreadable func(id int64, sqlstate, reason string)
}

// A runner runs a statement with our settings and a deadline of its own.
type runner func(statement func(ctx context.Context, db querier) error) error

func (l *Listener) reader(run runner) *reader { return &reader{l.limits(), run, l.unreadable} }

// A request says which page to read.
type request struct {
	query    pageQuery
	from     cursor.Cursor
	epoch    cursor.Tag
	snapshot *cursor.Cursor // nil: the present one
	own      []any          // parameters of the query beside those of every query
	level    level
}

// page reads a page and computes the cursor of each row.
func (r *reader) page(q request) (page, error) {
	p, missing, err := r.list(q)
	if err != nil {
		return page{}, err
	}
	if err := r.fill(&p, missing); err != nil {
		return page{}, err
	}
	steps := cursor.Steps{From: q.from, To: p.to}
	last := q.from
	for i := range p.rows {
		row := &p.rows[i]
		row.Cursor = steps.After(row.Row.Row)
		if row.misplaced && row.Xid == last.Xid {
			row.Cursor.Anchor = last.Anchor
		}
		last = row.Cursor
	}
	return p, nil
}

// list reads the rows with most of their data, or if a row's fault keeps the query from succeeding, without. missing are the
// indexes of the rows that are still to be read.
func (r *reader) list(q request) (p page, missing []int, err error) {
	if q.level.isCareful() {
		return r.collect(q.query.list, q, q.level)
	}
	if p, missing, err = r.collect(q.query.full, q, q.level, q.level.inline(), min(int64(r.pageBytes), r.maxData)); reasonOf(err) == "" {
		return p, missing, err
	}
	p, missing, err = r.collect(q.query.list, q, 1)
	p.trouble = true
	return p, missing, err
}

// args returns the first six parameters of every query: the cursor, the snapshot and the number of rows.
func (q request) args(rows int) []any {
	var shows *string
	if q.snapshot != nil {
		text := formatSnapshot(*q.snapshot)
		shows = &text
	}
	c := q.from
	later := c.Xmax
	if c.Xid == later { // has an arm of its own: the others would walk its rows again for every page
		later++
	}
	return []any{strconv.FormatUint(c.Xid, 10), c.ID, formatXids(c.Xip), strconv.FormatUint(later, 10), shows, rows}
}

// collect runs a query and reads its result.
func (r *reader) collect(query string, q request, now level, inline ...any) (p page, missing []int, err error) {
	rows := min(int(now), r.pageRows)
	formats := listAsText
	if len(inline) > 0 {
		formats = fullAsText
	}
	args := slices.Concat([]any{formats}, q.args(rows), q.own, inline)
	err = r.run(func(ctx context.Context, db querier) error {
		result, err := db.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer result.Close()
		p, missing, err = r.read(result, rows, q.epoch)
		return err
	})
	return p, missing, err
}

// read reads the result of a query of which an arm has at most so many rows. All rows of an arm come before those of the next.
// Values are read as they come: scanning them by pgx's rules costs more than all the rest.
func (r *reader) read(result pgx.Rows, most int, epoch cursor.Tag) (p page, missing []int, err error) {
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
		p.cut = p.cut || bytes > r.pageBytes && !p.more
		if p.more = p.more || p.cut; p.more {
			continue
		}
		row, whole, err := r.readRow(values)
		if err != nil {
			return page{}, nil, err
		}
		if !whole {
			missing = append(missing, len(p.rows))
		}
		bytes += len(row.Data)
		p.rows = append(p.rows, row)
		inArm++
		p.full = inArm == most
		p.more = p.full
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
	horizon, lost := strings.CutPrefix(string(values[colHorizon]), "~")
	p.historyLost = lost
	if p.horizon, err = strconv.ParseUint(horizon, 10, 64); err != nil {
		return fmt.Errorf("read the horizon in rowcast.history: %w", err)
	}
	return nil
}

// readRow reads a row, and reports whether it is whole: whether data has come and all columns keep the rules of the table. The
// values are only lent.
func (r *reader) readRow(values [][]byte) (row row, whole bool, err error) {
	if row.Xid, err = strconv.ParseUint(string(values[colXid]), 10, 64); err != nil {
		return row, false, fmt.Errorf("read the column xid of rowcast.notifications: %w", err)
	}
	if err := row.setID(values[colID]); err != nil {
		return row, false, err
	}
	createdAt, err := parseTime(values[colCreatedAt])
	if err != nil {
		return row, false, fmt.Errorf("read the column created_at of rowcast.notifications: %w", err)
	}
	row.Tag = cursor.AnchorTag(row.ID, createdAt)
	if row.misplaced {
		r.unreadable(row.ID, "", unreadableInvalid)
		return row, true, nil
	}
	if len(values) == listColumns || values[colEvent] == nil || values[colData] == nil {
		return row, false, nil
	}
	row.Recipient, row.Event = string(values[colRecipient]), string(values[colEvent]) // a NULL recipient is everyone
	row.setData(kept(values[colData]), int64(len(values[colData])), r.maxData)
	return row, row.isSound() && (values[colRecipient] == nil || row.Recipient != ""), nil
}

// setID sets the id. A row whose id is NULL or below 1 has no place in a cursor, and is skipped: it counts as the last or the first one
// of its transaction, so that the next page goes on behind it.
func (r *row) setID(digits []byte) (err error) {
	if digits == nil {
		r.ID, r.skipped, r.misplaced = math.MaxInt64, true, true
		return nil
	}
	if r.ID, err = strconv.ParseInt(string(digits), 10, 64); err != nil {
		return fmt.Errorf("read the column id of rowcast.notifications: %w", err)
	}
	if r.ID < 1 {
		r.ID, r.skipped, r.misplaced = 0, true, true
	}
	return nil
}

// parseTime reads a timestamptz as a query has it. NULL and infinity, which the table should have refused, count as 2000-01-01,
// as they do for rowcast.anchor_tag.
func parseTime(digits []byte) (int64, error) {
	if digits == nil {
		return 0, nil
	}
	bits, err := strconv.ParseUint(string(digits), 16, 64)
	micros := int64(bits)
	if micros == math.MaxInt64 || micros == math.MinInt64 {
		micros = 0
	}
	return micros, err
}

func (r *row) setData(data []byte, size, limit int64) {
	r.Size = size
	if size <= limit {
		r.Data = data
	}
}

// fill reads the rows that did not come whole, and ends the page where it has enough. A row that is gone by now was withdrawn.
func (r *reader) fill(p *page, missing []int) error {
	var bytes int64
	var gone int
	for n, i := range missing {
		if n == maxSingle || p.trouble && n > 0 || bytes > int64(r.pageBytes) {
			p.rows, p.more, p.cut = p.rows[:i], true, true
			break
		}
		row := &p.rows[i]
		withdrawn, err := r.single(row)
		if err != nil {
			return fmt.Errorf("read row %d: %w", row.ID, err)
		}
		if withdrawn {
			row.gone, gone = true, gone+1
			continue
		}
		p.single++
		bytes += row.Size
		p.trouble = p.trouble || row.isTrouble() || row.Size > int64(r.pageBytes)
	}
	if gone > 0 {
		p.rows = slices.DeleteFunc(p.rows, func(r row) bool { return r.gone })
	}
	return nil
}

// deliverable returns the rows that somebody can receive.
func (p *page) deliverable() []feed.Row {
	if len(p.rows) == 0 {
		return nil
	}
	rows := make([]feed.Row, 0, len(p.rows))
	for _, r := range p.rows {
		if !r.skipped {
			rows = append(rows, r.Row)
		}
	}
	return rows
}

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
