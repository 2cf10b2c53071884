package listener

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// No row may prevent later rows from being read, whatever the row contains. A row that is large, or whose page cannot
// be read, is read by a statement of its own. These statements are in this file. A row that cannot be read is replaced
// by the event rowcast.unreadable, or skipped if its recipient is unknown. A row whose text is too large for
// PostgreSQL is delivered as a row above MaxData.

// The reasons why a row cannot be read, as they are sent with the event rowcast.unreadable. They do not reveal the
// contents of the row.
const (
	unreadableEncoding = "encoding" // a text cannot be converted to UTF-8
	unreadableInvalid  = "invalid"  // a value that the table should have refused, such as NULL
	unreadableDamaged  = "damaged"  // the server cannot read what it has stored
	unreadableMemory   = "memory"   // the server has too little memory to read the row
	unreadableTimeout  = "timeout"  // reading takes longer than Timeout, or is canceled

	// tooLarge is the reason of a row whose text is too large for PostgreSQL itself. It is delivered like a row above
	// MaxData.
	tooLarge = "too large"
)

// errInvalid reports that a row has a value that the table should have refused.
var errInvalid = errors.New("a column breaks a rule of the table")

// reasonOf returns the reason why a row cannot be read. It returns "" if err has another cause than a row, such as a
// lost connection or a missing right.
func reasonOf(err error) string {
	if errors.Is(err, errInvalid) {
		return unreadableInvalid
	}
	switch code := codeOf(err); {
	case isUntranslatable(err):
		return unreadableEncoding
	case strings.HasPrefix(code, "22"):
		return unreadableInvalid
	case strings.HasPrefix(code, "54"): // program_limit_exceeded
		return tooLarge
	case strings.HasPrefix(code, "XX") || code == "58030": // internal_error, data_corrupted, index_corrupted; io_error
		return unreadableDamaged
	case code == "53200": // out_of_memory
		return unreadableMemory
	case code == "57014": // query_canceled
		return unreadableTimeout
	}
	return ""
}

// isUntranslatable reports whether text has no form in the encoding of the database or of the client.
func isUntranslatable(err error) bool {
	code := codeOf(err)
	return code == "22021" || code == "22P05" // character_not_in_repertoire, untranslatable_character
}

// codeOf returns the SQLSTATE of an error, or "" if it has none.
func codeOf(err error) string {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return refused.Code
	}
	return ""
}

// mayPass reports whether a second attempt may succeed: the cause may have been a lock, the load, or an error of the
// server that does not last.
func mayPass(reason string) bool {
	return reason == unreadableTimeout || reason == unreadableMemory || reason == unreadableDamaged
}

// single reads the columns of a row that were not read with the page. It reports gone if the row was deleted. If the
// row itself cannot be read, single sets Unreadable, unless the row is too large, and returns no error.
func (r *reader) single(row *row) (gone bool, err error) {
	if err = r.readWhole(row); reasonOf(err) == "" {
		return gone, orGone(err, &gone)
	}
	readable, addressErr := r.readAddress(row)
	if addressErr != nil {
		return gone, orGone(addressErr, &gone)
	}
	if readable && mayPass(reasonOf(err)) {
		if again := r.readWhole(row); reasonOf(again) == "" {
			return gone, orGone(again, &gone)
		}
	}
	if reason := reasonOf(err); reason != tooLarge {
		row.Unreadable = reason
		r.unreadable(row.ID, codeOf(err), reason)
	}
	return false, nil
}

// orGone returns err. If err reports that there is no such row, orGone sets gone and returns nil.
func orGone(err error, gone *bool) error {
	if *gone = errors.Is(err, pgx.ErrNoRows); *gone {
		return nil
	}
	return err
}

// plainQuery reads a row ($1, $2) with its data. Of data larger than $3 bytes, it reads only the size. PostgreSQL
// converts data to text once.
const plainQuery = `SELECT recipient, event, CASE WHEN octet_length(text) <= $3::bigint THEN text END, octet_length(text) FROM
	(SELECT ` + boundRecipient + `, ` + boundEvent + `, data::text FROM rowcast.notifications
	WHERE xid = $1::text::xid8 AND id = $2 OFFSET 0) whole (recipient, event, text)`

// measuredQuery does the same as plainQuery, but does not convert data to text if the text of the numbers in data is
// longer than $3 bytes by itself. The size is then 0. A few stored kilobytes of numbers can be 1 GB of text, which
// PostgreSQL makes in memory without checking for a timeout. In new rows, the table refuses such numbers.
//
// Measuring takes up to fifteen times as long as the conversion, so only data from about 7 KiB to 1 MiB is measured.
// Smaller data has less than 64 MiB of text, because a number of 16 bytes has at most about 147,000 digits.
//
// The query puts the numbers into one array, and measures one after another until they are too long. Without the array,
// jsonb_path_query would take n² steps for n numbers. The path is strict, because in lax mode the numbers in arrays
// would be in the result twice.
const measuredQuery = `SELECT recipient, event, CASE WHEN octet_length(text) <= $3::bigint THEN text END,
	CASE WHEN huge THEN 0 ELSE octet_length(text) END FROM
	(SELECT recipient, event, huge, CASE WHEN NOT huge THEN data::text END FROM
		(SELECT ` + boundRecipient + `, ` + boundEvent + `, data,
			CASE WHEN pg_column_size(data #> '{}') NOT BETWEEN 7217 AND 1048576 THEN false ELSE EXISTS (SELECT FROM (
				SELECT sum(octet_length(number::text)) OVER (ROWS UNBOUNDED PRECEDING) AS bytes
				FROM jsonb_array_elements(jsonb_path_query_array(data::jsonb, 'strict $.** ? (@.type() == "number")')) n (number)
			) numbers WHERE bytes > $3::bigint) END
		FROM rowcast.notifications WHERE xid = $1::text::xid8 AND id = $2 OFFSET 0) measured (recipient, event, data, huge) OFFSET 0) whole (recipient, event, huge, text)`

func (r *reader) readWhole(row *row) error {
	err := r.readBy(measuredQuery, row)
	if codeOf(err) == "54001" { // statement_too_complex: data is nested too deeply to be measured, but small
		err = r.readBy(plainQuery, row)
	}
	return err
}

func (r *reader) readBy(query string, row *row) error {
	var recipient, event *string
	var data []byte
	var size *int64
	if err := r.readOne(query, []any{row.xidText(), row.ID, r.maxData}, &recipient, &event, &data, &size); err != nil {
		return err
	}
	if recipient == nil || event == nil || size == nil {
		return errInvalid
	}
	row.Recipient, row.Event = *recipient, *event
	row.setData(data, *size, r.maxData)
	if !row.isSound() {
		return errInvalid
	}
	return nil
}

// readAddress reads the recipient of a row whose data cannot be read, so that the recipient is sent an event in place
// of the row. If the recipient is invalid or cannot be read either, the row is marked to be skipped. readAddress
// reports whether both the recipient and the column event can be read.
func (r *reader) readAddress(row *row) (readable bool, err error) {
	const (
		both = "SELECT " + boundRecipient + ", " + boundEvent + " FROM rowcast.notifications WHERE xid = $1::text::xid8 AND id = $2"
		one  = "SELECT " + boundRecipient + ", NULL FROM rowcast.notifications WHERE xid = $1::text::xid8 AND id = $2"
	)
	row.Recipient, row.Event, row.Data, row.Size = "", "", nil, 0
	for _, query := range []string{both, one} {
		var recipient, event *string
		err = r.readOne(query, []any{row.xidText(), row.ID}, &recipient, &event)
		if err == nil {
			if row.skipped = recipient == nil || *recipient == ""; !row.skipped {
				row.Recipient = *recipient
			}
			return query == both, nil
		}
		if reason := reasonOf(err); reason != unreadableEncoding && reason != unreadableInvalid && reason != unreadableDamaged {
			return false, err // reading short texts needs little time and memory, so the row is not the cause
		}
	}
	row.skipped = true
	return false, nil
}

// readOne runs a query that returns one row, and scans the row into the variables into.
func (r *reader) readOne(query string, args []any, into ...any) error {
	return r.run(func(ctx context.Context, db querier) error { return db.QueryRow(ctx, query, args...).Scan(into...) })
}

func (r *row) xidText() string { return strconv.FormatUint(r.Xid, 10) }

// unreadable counts a row that cannot be read, and logs it unless many rows were logged shortly before.
func (l *Listener) unreadable(id int64, code, reason string) {
	l.Stats.Unreadable.Add(1)
	if logger, ok := l.unreadableLog.Allow(l.Logger); ok {
		logger.Warn("row cannot be read", "id", id, "sqlstate", code, "reason", reason)
	}
}
