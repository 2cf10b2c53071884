package bench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// writers is the process of those who INSERT, each on a connection of its own.
type writers struct {
	conns []*pgconn.PgConn
	App   bool
}

func newWriters(context.Context) (deeds, error) {
	w := new(writers)
	return deeds{"open": deed(w.open), "write": deed(w.write)}, nil
}

type openWriters struct {
	Connections int
	Schema      string // whose table notifications is written to
	App         bool   // in a transaction with three statements on other tables
}

// appSchema is where an app would write besides.
const appSchema = `
CREATE SCHEMA app;
CREATE TABLE app.posts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, author int NOT NULL, body text NOT NULL, likes int NOT NULL DEFAULT 0);
CREATE TABLE app.likes (post bigint NOT NULL, by int NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON app.likes (post);
CREATE TABLE app.users (id int PRIMARY KEY, likes int NOT NULL DEFAULT 0);
INSERT INTO app.posts (author, body) SELECT i, 'It is raining.' FROM generate_series(1, 10000) i;
INSERT INTO app.users (id) SELECT i FROM generate_series(1, 10000) i;`

// appStatements are what it does: Bob likes a post. Each takes a number from 1 to 10,000.
var appStatements = []string{
	`UPDATE app.posts SET likes = likes + 1 WHERE id = $1`,
	`INSERT INTO app.likes (post, by) VALUES ($1, 1)`,
	`UPDATE app.users SET likes = likes + 1 WHERE id = $1`,
}

func (w *writers) open(ctx context.Context, o openWriters) (nothing, error) {
	w.App = o.App
	for range o.Connections {
		conn, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
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

// A load is what is to be written: as many rows as are asked for, or for as long.
type load struct {
	First   int64 // number of the first row
	Rows    int64
	Seconds float64 // if Rows is 0
	Rate    float64 // rows a second; 0: as fast as it goes
	Users   int64   // rows go to these in turn; 0: to everyone
}

type written struct {
	Began   int64 // when the first row was, in nanoseconds since 1970
	Rows    int64
	Seconds float64 // until the last commit had returned
	P99     float64 // from when a row counts to its commit, in milliseconds; 0 if it was not asked for so many rows
}

// write writes a load. At a given rate the rows have a timetable, and a row that is late because the server kept its writer
// waiting counts from when it was due: so a stall is felt by all that it delays.
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
					at = awaitTurn(began.Add(time.Duration(float64(i) / l.Rate * float64(time.Second))))
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
		done.Rows, done.P99 = l.Rows, shares(took)(0.99)
	}
	return done, err
}

// awaitTurn returns from when on a row counts. That a sleeper wakes late is not the server's fault.
func awaitTurn(due time.Time) time.Time {
	now := time.Now()
	if now.After(due) {
		return due
	}
	time.Sleep(due.Sub(now))
	return time.Now()
}

// insert writes a row by prepared statements, without what pgx's convenience costs.
func (w *writers) insert(conn *pgconn.PgConn, l load, number int64, at time.Time) error {
	var recipient []byte
	if l.Users > 0 {
		recipient = []byte(user(int(number % l.Users)))
	}
	row := [][]byte{recipient, fmt.Appendf(nil, dataFormat, number, at.UnixNano())}
	if !w.App {
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
