package listener_test

import (
	"testing"
	"time"

	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// Each row has its created_at, whether it was read with its page or by a statement of its own, live or for a client
// that resumes. A created_at that only an altered table accepts is the zero time.
func TestRowsHaveTheirCreatedAt(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	exec(t, conn, `ALTER TABLE rowcast.notifications DROP CONSTRAINT created_at_is_finite, ALTER created_at DROP NOT NULL`)
	texts := []string{
		"2026-11-29 02:34:02.123456+01", "1969-12-31 23:59:59.999999+00", "1999-12-31 23:59:59.999999+00",
		"4714-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00", "infinity", "-infinity", "",
	}
	want := []time.Time{
		time.Date(2026, 11, 29, 1, 34, 2, 123_456_000, time.UTC), time.Date(1969, 12, 31, 23, 59, 59, 999_999_000, time.UTC),
		time.Date(1999, 12, 31, 23, 59, 59, 999_999_000, time.UTC), time.Date(-4713, 11, 24, 0, 0, 0, 0, time.UTC),
		time.Date(294276, 12, 31, 23, 59, 59, 999_999_000, time.UTC),
		{},
		{},
		{},
	}
	const large = `(SELECT to_jsonb(string_agg(md5(i::text), '')) FROM generate_series(1, 1000) i)` // too large to be read with its page
	before := one[string](t, conn, "SELECT rowcast.cursor()")
	r := listen(t, dsn)
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data, created_at)
		SELECT 'alice', data, nullif(at, '')::timestamptz FROM unnest($1::text[]) WITH ORDINALITY a (at, n), unnest(ARRAY['1', `+large+`]) data ORDER BY n`, texts)
	check := func(way string, rows []feed.Row) {
		t.Helper()
		if len(rows) != 2*len(want) {
			t.Fatalf("%s: got %d rows, want %d", way, len(rows), 2*len(want))
		}
		for i, row := range rows {
			if row.CreatedAt != want[i/2] {
				t.Errorf("%s: row %d with %d bytes and created_at %q: got %v, want %v", way, row.ID, row.Size, texts[i/2], row.CreatedAt, want[i/2])
			}
		}
	}
	check("live", r.rows(t, 2*len(want)))
	replayer, err := newListener(t, dsn).NewReplayer(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	check("replay", replay(t, replayer, before, one[string](t, conn, "SELECT rowcast.cursor()"), []string{"alice"}))
}
