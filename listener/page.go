package listener

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
)

// A querier runs statements. It is a connection or a transaction.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// A page has the first rows, up to a bound, that a cursor has not seen and a snapshot shows.
type page struct {
	end     cursor.Cursor // the cursor that has seen what the snapshot shows, with the snapshot's own xmax
	horizon uint64
	rows    []row // in the order of cursor.Compare
	more    bool  // more rows may follow
	state   state // unknown unless the query was stateQuery

	historyLost bool // rowcast.history has no row: the horizon is a safe guess
	wasted      bool // the page must not be used, and has no rows (see isWasted)

	// These fields decide how many rows the next page may have.
	full    bool // the page ends because an arm of the query has reached the limit of rows
	cut     bool // the page ends early, because its rows are large or cannot be read with the page
	trouble bool // a row is larger than pageBytes, is too large to be measured, or has made a query fail
	single  int  // the number of rows that were read by statements of their own
}

// A reader reads pages of rows.
type reader struct {
	maxData    int64
	pageRows   int
	pageBytes  int
	run        runner
	unreadable func(id int64, sqlstate, reason string)
	spare      []row // an empty slice, whose array the next page uses
	// observed, if not nil, is called when PostgreSQL begins to answer a query that takes a new snapshot, before the rows
	// are read. It is not called for later pages of a batch.
	observed func()
}

// A runner runs a statement with the listener's settings. Each statement has its own deadline.
type runner func(statement func(ctx context.Context, db querier) error) error

func (l *Listener) reader(run runner) *reader {
	return &reader{maxData: l.MaxData, pageRows: l.PageRows, pageBytes: l.PageBytes, run: run, unreadable: l.unreadable}
}

// reuse lets the next page use the array of p's rows, which must no longer be needed.
func (r *reader) reuse(p page) { r.spare = emptied(p.rows) }

// emptied returns an empty slice with the same array. It releases what the elements refer to.
func emptied[E any](s []E) []E {
	clear(s)
	return s[:0]
}

// A request says which page to read.
type request struct {
	query    pageQuery
	from     cursor.Cursor
	epoch    cursor.Tag
	snapshot *cursor.Cursor // nil means the present one
	extra    []any          // further parameters of the query
	skipped  int            // the number of the oldest transactions in flight whose rows nearQuery does not look for
	level    level
}

// isWasted reports whether a transaction whose rows nearQuery does not look for has ended, as the snapshot of the page
// shows. Then rows may be missing in the page.
func (q request) isWasted(snapshot cursor.Cursor) bool {
	return slices.ContainsFunc(q.from.Xip[:q.skipped], func(xid uint64) bool { return snapshot.Seen(xid, 0) })
}

// fetch reads a page of the rows that the listener's cursor has not seen. With the snapshot of an earlier page, it
// continues that page's batch (rule 13). The query is not replayQuery.
func (r *reader) fetch(q request) (page, error) {
	p, err := r.page(q)
	if err != nil {
		return page{}, fmt.Errorf("fetch: %w", err)
	}
	return p, nil
}

// page reads a page and computes the cursor of each row.
func (r *reader) page(q request) (page, error) {
	p, missing, err := r.list(q)
	if err != nil || p.wasted {
		return p, err
	}
	if err := r.fill(&p, missing); err != nil {
		return page{}, err
	}
	steps := cursor.NewSteps(q.from, p.end)
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

// list reads the rows of a page, with the data that is small. At a low level, it reads the rows without their data. If
// a row makes the query fail, it reads only the first row, without its data. missing has the indexes of the rows that
// must still be read.
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

// collect runs a query and reads its result.
func (r *reader) collect(query string, q request, now level, inline ...any) (p page, missing []int, err error) {
	rows := min(int(now), r.pageRows)
	formats := listAsText
	if len(inline) > 0 {
		formats = fullAsText
	}
	args := slices.Concat([]any{formats}, q.args(rows), q.extra, inline)
	err = r.run(func(ctx context.Context, db querier) error {
		result, err := db.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer result.Close()
		if q.snapshot == nil && r.observed != nil {
			r.observed()
		}
		p, missing, err = r.read(result, rows, q)
		return err
	})
	return p, missing, err
}

// read reads the result of a query, each arm of which returns at most limit rows. All rows of an arm come before the
// rows of the next arm. read uses the raw values, because scanning them with pgx costs more than everything else.
func (r *reader) read(result pgx.Rows, limit int, q request) (p page, missing []int, err error) {
	p.rows, r.spare = r.spare, nil
	var bytes, arm, inArm int
	for result.Next() {
		values := result.RawValues()
		if values[colSnapshot] != nil {
			if err := p.setSnapshot(values, q.epoch); err != nil {
				return page{}, nil, err
			}
			if q.isWasted(p.end) {
				return page{wasted: true}, nil, nil
			}
			continue
		}
		if next := int(values[colArm][0] - '0'); next != arm && !p.more {
			arm, inArm = next, 0
		}
		// An arm that has reached its limit may have more rows, and the rows of later arms must not come before them.
		// The bytes of data are counted, because the text of data can be longer than what is stored.
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
		p.full = inArm == limit
		p.more = p.full
	}
	return p, missing, result.Err()
}

// setSnapshot reads the first row of a result.
func (p *page) setSnapshot(values [][]byte, epoch cursor.Tag) (err error) {
	if p.end, err = parseSnapshot(string(values[colSnapshot]), epoch); err != nil {
		return err
	}
	if p.state, err = readState(values); err != nil {
		return err
	}
	if values[colHorizon] == nil {
		return errNoHistory
	}
	horizon, lost := strings.CutPrefix(string(values[colHorizon]), "~")
	p.historyLost = lost
	if p.horizon, err = strconv.ParseUint(horizon, 10, 64); err != nil {
		return fmt.Errorf("read the horizon in rowcast.history: %w", err)
	}
	return nil
}

// readRow reads a row, and reports whether the row is whole: whether it has its data, and its recipient, event and data
// can be sent. A misplaced row counts as whole, because it is skipped. The data is copied, because pgx reuses
// the memory of values.
func (r *reader) readRow(values [][]byte) (row row, whole bool, err error) {
	if row.Xid, err = strconv.ParseUint(string(values[colXid]), 10, 64); err != nil {
		return row, false, fmt.Errorf("read the column xid of rowcast.notifications: %w", err)
	}
	if err := row.setID(values[colID]); err != nil {
		return row, false, err
	}
	if err := row.setCreatedAt(values[colCreatedAt]); err != nil {
		return row, false, err
	}
	if row.misplaced {
		r.unreadable(row.ID, "", unreadableInvalid)
		return row, true, nil
	}
	if len(values) == listColumns || values[colRecipient] == nil || values[colEvent] == nil || values[colData] == nil {
		return row, false, nil
	}
	row.Recipient, row.Event = string(values[colRecipient]), string(values[colEvent])
	row.setData(bytes.Clone(values[colData]), int64(len(values[colData])), r.maxData)
	return row, row.isSound(), nil
}

// setID sets the id. A cursor cannot refer to a row whose id is NULL or below 1, so the row is skipped. NULL,
// which sorts last, becomes the highest id, and an id below 1 becomes 0. So the next page begins after all such rows.
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

// setCreatedAt sets CreatedAt and the anchor tag from the column created_at of a result. NULL and infinity leave
// CreatedAt zero, and count as 2000-01-01 for the tag, as in rowcast.anchor_tag. The table refuses both, unless it was
// altered.
func (r *row) setCreatedAt(digits []byte) error {
	var micros int64 // since 2000
	if digits != nil {
		bits, err := strconv.ParseUint(string(digits), 16, 64)
		if err != nil {
			return fmt.Errorf("read the column created_at of rowcast.notifications: %w", err)
		}
		if micros = int64(bits); micros == math.MaxInt64 || micros == math.MinInt64 {
			micros = 0
		} else {
			r.CreatedAt = timeOf(micros)
		}
	}
	r.Tag = cursor.AnchorTag(r.ID, micros)
	return nil
}

// timeOf returns the time that is a number of microseconds after the beginning of 2000. time.UnixMicro would overflow
// for the last times that PostgreSQL can store.
func timeOf(micros int64) time.Time {
	const from1970To2000, second = 946_684_800, 1_000_000
	return time.Unix(from1970To2000+micros/second, micros%second*1000).UTC()
}

func (r *row) setData(data []byte, size, limit int64) {
	r.Size = size
	if size <= limit {
		r.Data = data
	}
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

// fill reads the missing rows one by one, and ends the page early if these rows are too many or too large, or if one
// cannot be read. It removes rows that were deleted meanwhile, and reads the horizon again in case retention has
// deleted them.
func (r *reader) fill(p *page, missing []int) error {
	var bytes int64
	var gone int
	for n, i := range missing {
		if n == maxSingle || p.trouble && n > 0 || bytes > int64(r.pageBytes) {
			p.rows, p.more, p.cut = slices.Delete(p.rows, i, len(p.rows)), true, true
			break
		}
		row := &p.rows[i]
		deleted, err := r.single(row)
		if err != nil {
			return fmt.Errorf("read row %d: %w", row.ID, err)
		}
		if deleted {
			row.gone, gone = true, gone+1
			continue
		}
		p.single++
		bytes += row.Size
		p.trouble = p.trouble || row.isTrouble() || row.Size > int64(r.pageBytes)
	}
	if gone == 0 {
		return nil
	}
	p.rows = slices.DeleteFunc(p.rows, func(r row) bool { return r.gone })
	return r.readHorizon(p)
}

// readHorizon reads the present horizon. Without a row in rowcast.history, the horizon of the page stays.
func (r *reader) readHorizon(p *page) error {
	var present *int64
	if err := r.readOne(horizon, nil, &present); err != nil {
		return fmt.Errorf("read the horizon in rowcast.history: %w", err)
	}
	if present != nil {
		p.horizon = max(p.horizon, uint64(*present))
	}
	return nil
}

// deliverable appends the rows of the page that can be sent to the slice rows.
func (p *page) deliverable(rows []feed.Row) []feed.Row {
	rows = slices.Grow(rows, len(p.rows))
	for i := range p.rows {
		if r := &p.rows[i]; !r.skipped {
			rows = append(rows, r.Row)
		}
	}
	return rows
}

// A row is a row of the table while it is being read.
type row struct {
	feed.Row

	skipped   bool // the row is not delivered, because its id is invalid, or its recipient is invalid or cannot be read
	misplaced bool // the id is NULL or below 1, so the row cannot be the anchor of a cursor
	gone      bool // the row was deleted before it was read
}

// isSound reports whether the recipient, the event and the data can be sent. The table refuses other values, unless it
// was altered. For example, a column data of type json can have line breaks. The bounds for lengths are checked in SQL.
func (r *row) isSound() bool {
	return r.Recipient != "" && feed.CheckName(r.Event) == nil && bytes.IndexByte(r.Data, '\n') < 0 && bytes.IndexByte(r.Data, '\r') < 0
}

// isTrouble reports whether the row could not be read, or had data too large to be measured.
func (r *row) isTrouble() bool { return r.Unreadable != "" || r.Data == nil && r.Size == 0 }

// A level is the number of rows that each arm of the next page's query may return. It rises while pages are full, and
// falls when rows are large or cannot be read. A page whose rows are large ends early, and PostgreSQL has then
// converted the rows after its end for nothing. The level keeps these rows few, so the work stays linear in the number
// of rows.
//
// The text of a jsonb number can be about 9,000 times as long as its stored form, and only the conversion shows its
// length. So the stored bytes that an arm converts are bounded too, by inlineTotal.
type level int

const (
	// firstLevel is the level at which reading begins. Below it, a page lists its rows without their data, and each row
	// is read by a statement of its own.
	firstLevel level = 16

	// inlineTotal bounds the stored bytes of the data that an arm of a page's query returns, if PageRows is at most 512.
	// The text of this data is then at most 1.2 GB.
	inlineTotal = 128 << 10
	// minInline and maxInline are the lowest and the highest value of level.inline.
	minInline, maxInline = 256, 8 << 10
	// maxSingle is the largest number of rows of a page that are read by statements of their own.
	maxSingle = 16
)

// isCareful reports whether rows are read one by one.
func (l level) isCareful() bool { return l < firstLevel }

// inline returns the stored size up to which the data of a row comes with its page.
func (l level) inline() int { return max(minInline, min(maxInline, inlineTotal/int(l))) }

// after returns the level after a page that was read at l.
func (l level) after(p *page, pageRows int) level {
	half := max(l/2, firstLevel)
	switch {
	case p.trouble:
		return 1
	case p.cut:
		return max(1, min(l, level(len(p.rows))))
	case l.isCareful():
		return 2 * l
	case 8*p.single > len(p.rows):
		return half
	case p.full:
		return max(l, min(2*l, level(pageRows)))
	}
	return l
}
