package stream_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/sql"
	"rowcast/sql/dbtest"
	"rowcast/stream"
)

// A bookmark is a Source that calls a function between the first and the second page.
type pausedSource struct {
	stream.Source
	between func()
	pages   int
}

func (b *pausedSource) Page(ctx context.Context, from, to cursor.Cursor, recipients []string) ([]feed.Row, cursor.Cursor, uint64, error) {
	if b.pages++; b.pages == 2 {
		b.between()
	}
	return b.Source.Page(ctx, from, to, recipients)
}

// Rows are deleted while a client resumes. If the client has seen all deleted rows, the stream continues. Otherwise it
// receives rowcast.reset. A cursor after a row does not say that the row was the last one of its transaction, so that
// transaction counts as not seen.
func TestRetentionWhileAClientResumes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		old   int // the number of rows, of seven, that are deleted
		want  []string
		reset bool
	}{
		{old: 1, want: []string{"3", "4", "5", "6", "7"}},
		{old: 2, reset: true},
		{old: 3, reset: true},
		{old: 6, reset: true},
	} {
		t.Run(fmt.Sprintf("%d rows", tt.old), func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Cluster(t).DSN("postgres") // transactions of other tests would delay the deletion
			if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
				t.Fatal(err)
			}
			db := connect(t, dsn)
			insert(t, db, "alice", "0")
			s := serve(t, dsn, fetchRarely, func(s *site) { s.hub.Memory, s.listener.PageRows = 1, 2 })
			hello := listen(t, s, "alice").hello()
			for n := range 7 {
				exec(t, db, `INSERT INTO rowcast.notifications (recipient, data, created_at) VALUES ('alice', to_jsonb($1::int),
					now() - interval '1 hour' * ($1::int <= $2)::int)`, n+1, tt.old)
			}
			exec(t, db, "UPDATE rowcast.notifications SET created_at = now() - interval '1 hour' WHERE data = '\"0\"'")
			s.caughtUp(t)
			s.hub.Source = &pausedSource{Source: s.hub.Source, between: func() { retain(t, s, int64(tt.old)+1) }}

			c := resume(t, s, hello, "alice")
			c.hello()
			c.wantData("1", "2")
			if tt.reset {
				if e := c.event(); e.Name != "rowcast.reset" || e.Data != `{"reason": "expired"}` {
					t.Errorf("got %v, want expired", e)
				}
			}
			insert(t, db, "alice", "8")
			s.caughtUp(t)
			c.wantData(append(tt.want, `"8"`)...)
		})
	}
}

// retain deletes the rows that are older than half an hour, and checks their number.
func retain(t *testing.T, s *site, rows int64) {
	r := listener.Retention{Listener: s.listener, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Keep: 30 * time.Minute}
	stop := run(t, r.Run)
	eventually(t, "the old rows are deleted", func() bool { return r.Deleted.Load() == rows })
	stop()
}
