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

// A breaker breaks a hub, a connection or the server, repairs it, and continues with the next breakage.
type breaker struct {
	t       *testing.T
	cluster *cluster.Cluster
	hubs    []*hub
	proxy   *proxy
	journal *journal
	pacing  *pacing
	random  *rand.Rand
	long    bool
	counts  map[string]int
}

// breakages are all kinds of breakages. The breaker runs each kind once, in random order, and then begins again.
var breakages = []struct {
	name string
	do   func(*breaker, context.Context) error
}{
	{"hub killed", func(w *breaker, ctx context.Context) error {
		h := w.hub()
		h.kill()
		wait(ctx, w.upTo(1500*time.Millisecond))
		return h.start()
	}},
	{"hub stopped", func(w *breaker, ctx context.Context) error {
		h := w.hub()
		if err := h.stop(); err != nil {
			return err
		}
		wait(ctx, w.upTo(time.Second))
		return h.start()
	}},
	{"hub frozen", func(w *breaker, ctx context.Context) error {
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
	{"network silent", func(w *breaker, ctx context.Context) error {
		long := 3 * time.Second
		if w.long && w.random.IntN(4) == 0 {
			long = 15 * time.Second // the silence may then last longer than the listener waits for an answer
		}
		w.proxy.silence(true)
		wait(ctx, w.upTo(long))
		if w.random.IntN(2) == 0 {
			w.proxy.cut()
		}
		w.proxy.silence(false)
		return nil
	}},
	{"server restarted", func(w *breaker, ctx context.Context) error { return w.cluster.Restart(ctx, cluster.Fast) }},
	{"server crashed", func(w *breaker, ctx context.Context) error {
		defer w.crash(ctx)()
		return w.cluster.Restart(ctx, cluster.Immediate)
	}},
	{"backend crashed", (*breaker).crashBackend},
}

// run runs breakages until length has passed or a breakage returns an error.
func (w *breaker) run(ctx context.Context, length time.Duration) {
	timed, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	for {
		for _, i := range w.random.Perm(len(breakages)) {
			wait(timed, 100*time.Millisecond+w.upTo(1500*time.Millisecond))
			if timed.Err() != nil {
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

func (w *breaker) breakOne(ctx context.Context, do func(*breaker, context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return do(w, ctx)
}

func (w *breaker) upTo(d time.Duration) time.Duration {
	return time.Duration(w.random.Int64N(int64(d)))
}

func (w *breaker) hub() *hub {
	h := w.hubs[w.random.IntN(len(w.hubs))]
	w.t.Logf("%s: %s", time.Now().Format("15:04:05.000"), h.name)
	return h
}

// terminate returns a breakage that ends one session with the application_name name, or all such sessions.
func terminate(name string) func(*breaker, context.Context) error {
	return func(w *breaker, ctx context.Context) error {
		limit := []int{1, 100}[w.random.IntN(2)]
		return w.admin(ctx, func(conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM
				(SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY random() LIMIT $2) chosen`, name, limit)
			return err
		})
	}
}

// crash prepares a crash of the server: it makes all writers commit asynchronously. The caller must call crashed after
// the crash.
func (w *breaker) crash(ctx context.Context) (crashed func()) {
	w.pacing.asyncOnly.Store(true)
	wait(ctx, w.upTo(600*time.Millisecond))
	return func() {
		w.journal.crashed()
		w.pacing.asyncOnly.Store(false)
	}
}

func (w *breaker) admin(ctx context.Context, do func(*pgx.Conn) error) error {
	conn, err := connect(ctx, w.cluster.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return do(conn)
}

// crashBackend kills the server process of its own session. The postmaster then ends all other sessions and recovers
// from the write-ahead log. crashBackend returns when it can connect again.
func (w *breaker) crashBackend(ctx context.Context) error {
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
		_ = conn.PgConn().WaitForNotification(ctx) // returns when the session has ended
		again, err := connect(ctx, w.cluster.DSN("postgres"))
		if err != nil {
			return err
		}
		return again.Close(ctx)
	})
}
