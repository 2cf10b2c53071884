package bench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
	"rowcast/listener/feed"
)

// writers is the child process with the role writers. Each writer has a connection of its own.
type writers struct {
	conns []*pgconn.PgConn
	app   bool // each row is written in a transaction with three other statements
}

func newWriters(context.Context) (actions, error) {
	w := new(writers)
	return actions{"open": action(w.open), "write": action(w.write)}, nil
}

type openWriters struct {
	Connections int
	Schema      string // the schema with the table notifications
	App         bool   // each row is written in a transaction with three other statements
}

// appSchema has the other tables of an app.
const appSchema = `
CREATE SCHEMA app;
CREATE TABLE app.posts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, author int NOT NULL, body text NOT NULL, likes int NOT NULL DEFAULT 0);
CREATE TABLE app.likes (post bigint NOT NULL, by int NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON app.likes (post);
CREATE TABLE app.users (id int PRIMARY KEY, likes int NOT NULL DEFAULT 0);
INSERT INTO app.posts (author, body) SELECT i, 'It is raining.' FROM generate_series(1, 10000) i;
INSERT INTO app.users (id) SELECT i FROM generate_series(1, 10000) i;`

// appStatements are the other statements in an app's transaction when Bob likes a post. The parameter is a number from
// 1 to 10,000.
var appStatements = []string{
	`UPDATE app.posts SET likes = likes + 1 WHERE id = $1`,
	`INSERT INTO app.likes (post, by) VALUES ($1, 1)`,
	`UPDATE app.users SET likes = likes + 1 WHERE id = $1`,
}

func (w *writers) open(ctx context.Context, o openWriters) (nothing, error) {
	w.app = o.App
	for range o.Connections {
		conn, err := open(ctx, os.Getenv("DATABASE_URL"))
		if err != nil {
			return nothing{}, err
		}
		statements := append([]string{
			`INSERT INTO ` + o.Schema + `.notifications (recipient, event, data) VALUES ($1, 'notify', $2)`, "BEGIN", "COMMIT",
		}, appStatements...)
		if !o.App {
			statements = statements[:1]
		}
		for i, statement := range statements {
			if _, err := conn.PgConn().Prepare(ctx, strconv.Itoa(i), statement, nil); err != nil {
				return nothing{}, fmt.Errorf("prepare %s: %w", statement, err)
			}
		}
		w.conns = append(w.conns, conn.PgConn())
	}
	return nothing{}, nil
}

// A load is a number of rows to write, or a time for which rows are written.
type load struct {
	First   int64 // the number of the first row
	Rows    int64
	Seconds float64 // the time, if Rows is 0
	Rate    float64 // rows per second; 0 means the maximum rate
	Users   int64   // the number of users; row n is for user n%Users. If Users is 0, each row is for everyone
}

type written struct {
	Began   int64 // the time at which the writing began, in nanoseconds since 1970
	Rows    int64
	Seconds float64 // the time from Began until the last commit had returned
	P99     float64 // the 99th percentile of the time until a row is committed (see awaitDue), in milliseconds; 0 if the load has no Rows
}

// write writes a load. With a Rate, each row has a time at which it is due, and the latency of a late row is measured
// from that time. So a stall of the server increases the latency of all rows that it delays.
func (w *writers) write(_ context.Context, l load) (written, error) {
	var next atomic.Int64
	began := time.Now()
	end := began.Add(time.Duration(l.Seconds * float64(time.Second)))
	took := make([]int64, l.Rows)
	var group errgroup.Group
	for _, conn := range w.conns {
		group.Go(func() error {
			for {
				if l.Rows == 0 && !time.Now().Before(end) {
					return nil
				}
				i := next.Add(1) - 1
				if l.Rows > 0 && i >= l.Rows {
					return nil
				}
				at := time.Now()
				if l.Rate > 0 {
					at = awaitDue(began.Add(time.Duration(float64(i) / l.Rate * float64(time.Second))))
				}
				if err := w.insert(conn, l, l.First+i, at); err != nil {
					return err
				}
				if l.Rows > 0 {
					took[i] = int64(time.Since(at))
				}
			}
		})
	}
	err := group.Wait()
	done := written{Began: began.UnixNano(), Rows: next.Load(), Seconds: time.Since(began).Seconds()}
	if l.Rows > 0 {
		done.Rows, done.P99 = l.Rows, quantiles(took)(0.99)
	}
	return done, err
}

// awaitDue waits until a row is due and returns the time from which its latency is measured. For a late row, that is
// the due time. Otherwise it is the time after the wait, because a wait that takes too long is not a delay of the
// server.
func awaitDue(due time.Time) time.Time {
	now := time.Now()
	if now.After(due) {
		return due
	}
	time.Sleep(due.Sub(now))
	return time.Now()
}

// insert writes a row. It executes the statements with pgconn, which costs less CPU time than pgx.
func (w *writers) insert(conn *pgconn.PgConn, l load, number int64, at time.Time) error {
	recipient := []byte(feed.Everyone)
	if l.Users > 0 {
		recipient = []byte(user(int(number % l.Users)))
	}
	row := [][]byte{recipient, fmt.Appendf(nil, dataFormat, number, at.UnixNano())}
	if !w.app {
		return execute(conn, 0, row)
	}
	key := [][]byte{strconv.AppendInt(nil, number*7919%10000+1, 10)}
	for _, step := range []struct {
		statement int
		values    [][]byte
	}{{1, nil}, {3, key}, {4, key}, {5, key}, {0, row}, {2, nil}} {
		if err := execute(conn, step.statement, step.values); err != nil {
			return err
		}
	}
	return nil
}

func execute(conn *pgconn.PgConn, statement int, values [][]byte) error {
	_, err := conn.ExecPrepared(context.Background(), strconv.Itoa(statement), values, nil, nil).Close()
	return err
}
