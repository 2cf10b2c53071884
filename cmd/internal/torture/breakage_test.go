package torture_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/cluster"
)

// A wrecker breaks one thing after another, and mends it.
type wrecker struct {
	t       *testing.T
	cluster *cluster.Cluster
	hubs    []*hub
	proxy   *proxy
	journal *journal
	mood    *mood
	random  *rand.Rand
	long    bool
	counts  map[string]int
}

// breakages are all there are, in an order that is shuffled for every round: so that even a short run meets each.
var breakages = []struct {
	name string
	do   func(*wrecker, context.Context) error
}{
	{"hub killed", func(w *wrecker, ctx context.Context) error {
		h := w.hub()
		h.kill()
		wait(ctx, w.upTo(1500*time.Millisecond))
		return h.start()
	}},
	{"hub stopped", func(w *wrecker, ctx context.Context) error {
		h := w.hub()
		if err := h.stop(); err != nil {
			return err
		}
		wait(ctx, w.upTo(time.Second))
		return h.start()
	}},
	{"hub frozen", func(w *wrecker, ctx context.Context) error {
		h := w.hub()
		if err := h.freeze(); err != nil {
			return err
		}
		wait(ctx, time.Second+w.upTo(2*time.Second))
		return h.thaw()
	}},
	{"listener terminated", terminate("rowcast listener")},
	{"park lock terminated", terminate("rowcast park lock")},
	{"replay terminated", terminate("rowcast replay")},
	{"network silent", func(w *wrecker, ctx context.Context) error {
		long := 3 * time.Second
		if w.long && w.random.IntN(4) == 0 {
			long = 15 * time.Second // beyond what the listener waits for an answer
		}
		w.proxy.silence(true)
		wait(ctx, w.upTo(long))
		if w.random.IntN(2) == 0 {
			w.proxy.cut()
		}
		w.proxy.silence(false)
		return nil
	}},
	{"server restarted", func(w *wrecker, ctx context.Context) error { return w.cluster.Restart(ctx, cluster.Fast) }},
	{"server crashed", func(w *wrecker, ctx context.Context) error {
		defer w.crash(ctx)()
		return w.cluster.Restart(ctx, cluster.Immediate)
	}},
	{"backend crashed", (*wrecker).crashBackend},
}

// run breaks things until the time is over.
func (w *wrecker) run(ctx context.Context, length time.Duration) {
	over, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	for {
		for _, i := range w.random.Perm(len(breakages)) {
			wait(over, 100*time.Millisecond+w.upTo(1500*time.Millisecond))
			if over.Err() != nil {
				return
			}
			b := breakages[i]
			w.t.Logf("%s %v: %s", time.Now().Format("15:04:05.000"), w.journal.now().Round(time.Millisecond), b.name)
			w.counts[b.name]++
			if err := w.breakOne(ctx, b.do); err != nil {
				w.t.Errorf("%s: %v", b.name, err)
				return
			}
		}
	}
}

func (w *wrecker) breakOne(ctx context.Context, do func(*wrecker, context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return do(w, ctx)
}

func (w *wrecker) upTo(d time.Duration) time.Duration {
	return time.Duration(w.random.Int64N(int64(d)))
}

func (w *wrecker) hub() *hub {
	h := w.hubs[w.random.IntN(len(w.hubs))]
	w.t.Logf("%s: %s", time.Now().Format("15:04:05.000"), h.name)
	return h
}

// terminate ends one, or all, of the hubs' sessions that have a name.
func terminate(name string) func(*wrecker, context.Context) error {
	return func(w *wrecker, ctx context.Context) error {
		limit := []int{1, 100}[w.random.IntN(2)]
		return w.admin(ctx, func(conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM
				(SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY random() LIMIT $2) chosen`, name, limit)
			return err
		})
	}
}

// crash prepares a crash of the server. What it returns is to be called after it.
func (w *wrecker) crash(ctx context.Context) (crashed func()) {
	w.mood.lax.Store(true)
	wait(ctx, w.upTo(600*time.Millisecond))
	return func() {
		w.journal.crashed()
		w.mood.lax.Store(false)
	}
}

func (w *wrecker) admin(ctx context.Context, do func(*pgx.Conn) error) error {
	conn, err := connect(ctx, w.cluster.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return do(conn)
}

// crashBackend kills one session, after which the server starts anew from its log, but with the same postmaster: it ends all other
// sessions first. It is over when a later session of the same name has an answer.
func (w *wrecker) crashBackend(ctx context.Context) error {
	defer w.crash(ctx)()
	return w.admin(ctx, func(conn *pgx.Conn) error {
		var pid int
		if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			return err
		}
		backend, err := os.FindProcess(pid)
		if err == nil {
			err = backend.Kill()
		}
		if err != nil {
			return fmt.Errorf("kill a backend: %w", err)
		}
		_ = conn.PgConn().WaitForNotification(ctx) // ends with the session
		again, err := connect(ctx, w.cluster.DSN("postgres"))
		if err != nil {
			return err
		}
		return again.Close(ctx)
	})
}
