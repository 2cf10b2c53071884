package listener_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/sql/dbtest"
)

// BenchmarkFetch measures a fetch that finds no row, with fetchQuery and with nearQuery.
func BenchmarkFetch(b *testing.B) {
	dsn := dbtest.Database(b)
	conn := connect(b, dsn)
	exec(b, conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', to_jsonb(i) FROM generate_series(1, 1000) i")
	now := present(b, conn)
	session, err := newListener(b, dsn).Connect(limited(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = session.Close(context.Background()) })
	for name, query := range map[string]string{"fetchQuery": listener.FetchQuery, "nearQuery": listener.NearQuery} {
		args := append([]any{make(pgx.QueryResultFormats, 9)}, listener.QueryArgs(query, now, nil, 512)...)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				rows, err := session.Query(b.Context(), query, args...)
				if err != nil {
					b.Fatal(err)
				}
				for rows.Next() {
				}
				if err := rows.Err(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
