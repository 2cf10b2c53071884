package listener_test

import (
	"testing"

	"rowcast/listener/cursor"
	"rowcast/sql/dbtest"
)

// BenchmarkPage reads a page of rows, decodes them and computes their cursors.
func BenchmarkPage(b *testing.B) {
	dsn := dbtest.Database(b)
	l := newListener(b, dsn)
	conn, err := l.Connect(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	const rows = 500
	exec(b, conn, `INSERT INTO rowcast.notifications (recipient, event, data)
		SELECT 'user' || i, 'notify', '{"msg": "Bob liked your tracker"}' FROM generate_series(1, $1::int) i`, rows)
	b.ReportAllocs()
	for b.Loop() {
		page, err := l.Page(b.Context(), conn, cursor.Cursor{}, 512)
		if err != nil || len(page) != rows {
			b.Fatalf("got %d rows and error %v, want %d rows", len(page), err, rows)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
}
