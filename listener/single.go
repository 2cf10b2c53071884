package listener

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A row must not keep later rows from being read, whatever it contains. Where a page cannot be read, its rows are read by
// statements of their own (this file), and a row that cannot be read is replaced by an event that says so.

// The reasons why a row cannot be read, as an event rowcast.unreadable has them. They say nothing of the row's contents.
const (
	unreadableEncoding = "encoding" // text has no form in UTF-8
	unreadableInvalid  = "invalid"  // a value that the table should have refused, such as NULL
	unreadableDamaged  = "damaged"  // the server cannot read what it has stored
	unreadableMemory   = "memory"   // the server has too little memory to read the row
	unreadableTimeout  = "timeout"  // reading takes longer than Timeout

	// tooLarge is the reason of a row whose text is too large for PostgreSQL itself. It is announced like a row above MaxData.
	tooLarge = "too large"
)

// errInvalid says that a row has a value that the table should have refused.
var errInvalid = errors.New("a column breaks a rule of the table")

// reasonOf returns why a row cannot be read, or "" if err is not the row's fault: a lost connection, a missing right, a lock.
func reasonOf(err error) string {
	if errors.Is(err, errInvalid) {
		return unreadableInvalid
	}
	switch code := codeOf(err); {
	case code == "22021" || code == "22P05": // character_not_in_repertoire, untranslatable_character
		return unreadableEncoding
	case strings.HasPrefix(code, "22"):
		return unreadableInvalid
	case strings.HasPrefix(code, "54"): // program_limit_exceeded
		return tooLarge
	case strings.HasPrefix(code, "XX") || code == "58030": // data_corrupted, io_error
		return unreadableDamaged
	case code == "53200": // out_of_memory
		return unreadableMemory
	case code == "57014": // query_canceled
		return unreadableTimeout
	}
	return ""
}

// codeOf returns the SQLSTATE of an error, or "" if it has none.
func codeOf(err error) string {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return refused.Code
	}
	return ""
}

// mayPass reports whether a row with this reason is worth a second try: the cause may have been a lock or the load.
func mayPass(reason string) bool {
	return reason == unreadableTimeout || reason == unreadableMemory || reason == unreadableDamaged
}

// single reads all of a row but what its page has said. It reports gone if the row has been deleted, and an error only if that
// is not the row's fault.
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

// orGone returns err, or nil after setting gone if err says that there is no such row.
func orGone(err error, gone *bool) error {
	if *gone = errors.Is(err, pgx.ErrNoRows); *gone {
		return nil
	}
	return err
}

// plainQuery reads a row ($1, $2) with its data, or only the size of data that is larger than $3 bytes. The text is made once.
const plainQuery = `SELECT recipient, event, CASE WHEN octet_length(text) <= $3::bigint THEN text END, octet_length(text) FROM
	(SELECT ` + boundRecipient + `, ` + boundEvent + `, data::text FROM rowcast.notifications
	WHERE xid = $1::text::xid8 AND id = $2 OFFSET 0) whole (recipient, event, text)`

// measuredQuery does the same, but makes no text if the numbers in data alone are longer than $3: the size is then 0. A few stored
// bytes of numbers can be 1 GB of text, and PostgreSQL makes it in memory without looking for a timeout. In new rows the table refuses
// such numbers. Measuring takes up to fifteen times as long as making the text, so it is done only for data from 7 KiB to 1 MiB: smaller
// data has less than 64 MiB of text, because a number has at most 147,456 digits in 16 bytes. The numbers are put into one array, and
// measured one after another until they are too long. Asked for one by one, n numbers would take jsonb_path_query n² steps. In lax mode,
// those in arrays would count twice.
const measuredQuery = `SELECT recipient, event, CASE WHEN octet_length(text) <= $3::bigint THEN text END,
	CASE WHEN huge THEN 0 ELSE octet_length(text) END FROM
	(SELECT recipient, event, huge, CASE WHEN NOT huge THEN data::text END FROM
		(SELECT ` + boundRecipient + `, ` + boundEvent + `, data,
			CASE WHEN pg_column_size(data #> '{}') NOT BETWEEN 7217 AND 1048576 THEN false ELSE EXISTS (SELECT FROM (
				SELECT sum(octet_length(n::text)) OVER (ROWS UNBOUNDED PRECEDING) AS bytes
				FROM jsonb_array_elements(jsonb_path_query_array(data::jsonb, 'strict $.** ? (@.type() == "number")')) n
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
	var data spacious
	var size *int64
	if err := r.readOne(query, []any{row.xidText(), row.ID, r.maxData}, &recipient, &event, &data, &size); err != nil {
		return err
	}
	if event == nil || size == nil {
		return errInvalid
	}
	row.Recipient, row.Event = orEveryone(recipient), *event
	row.setData(data, *size, r.maxData)
	if recipient != nil && *recipient == "" || !row.isSound() {
		return errInvalid
	}
	return nil
}

// readAddress reads the recipient of a row whose data cannot be read, to tell the recipient. If nobody can be told, as the
// recipient cannot be read either or is no recipient, the row is marked to be skipped. It reports whether the event can be read as
// well.
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
			row.Recipient = orEveryone(recipient)
			row.skipped = recipient != nil && *recipient == ""
			return query == both, nil
		}
		if reason := reasonOf(err); reason != unreadableEncoding && reason != unreadableInvalid && reason != unreadableDamaged {
			return false, err // short text takes neither time nor memory: something else is wrong
		}
	}
	row.skipped = true
	return false, nil
}

// readOne runs a query for one row.
func (r *reader) readOne(query string, args []any, into ...any) error {
	return r.run(func(ctx context.Context, db querier) error { return db.QueryRow(ctx, query, args...).Scan(into...) })
}

func (r *row) xidText() string { return strconv.FormatUint(r.Xid, 10) }

// orEveryone returns the recipient of a row: NULL is everyone.
func orEveryone(recipient *string) string {
	if recipient == nil {
		return ""
	}
	return *recipient
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

// unreadable counts a row that cannot be read, and logs it unless there are many.
func (l *Listener) unreadable(id int64, code, reason string) {
	l.Stats.Unreadable.Add(1)
	if logger, ok := l.unreadableLog.Allow(l.Logger); ok {
		logger.Warn("row cannot be read", "id", id, "sqlstate", code, "reason", reason)
	}
}
