package listener_test

import (
	"context"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rowcast/listener"
	"rowcast/sql"
	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// Commits with a NOTIFY run one at a time. If each of them waits long for the disk, their rate stays low, however many
// writers there are. Hubs notice that the writers wait for each other, and poll.
func TestWritersDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	server := dbtest.Cluster(t)
	// A commit takes at least 20 ms. Several commits that do not wait for each other share these 20 ms.
	maps.Copy(server.Settings, map[string]string{"fsync": "on", "commit_delay": "20000", "commit_siblings": "0"})
	if err := server.Restart(limited(t), cluster.Fast); err != nil {
		t.Fatal(err)
	}
	dsn := server.DSN("postgres")
	if _, _, err := sql.Migrate(limited(t), dsn); err != nil {
		t.Fatal(err)
	}
	const writers, length = 16, 2 * time.Second
	// With an infinite Busy, waiting writers do not make the first hubs poll. So commits run one at a time, about 50 a
	// second.
	var hubs []*reader
	for range 2 {
		hubs = append(hubs, listen(t, dsn, func(l *listener.Listener) { l.Busy = math.Inf(1) }))
	}
	notified := commitsBy(t, dsn, writers, length)
	for _, hub := range hubs {
		hub.stop()
	}
	for i := range hubs {
		hubs[i] = listen(t, dsn)
	}
	polled := commitsBy(t, dsn, writers, length)
	t.Logf("%.0f commits a second with hubs that have an infinite Busy, %.0f with two hubs that may poll, which had %d and %d wake-ups", notified, polled,
		hubs[0].Stats.Wakeups.Load(), hubs[1].Stats.Wakeups.Load())
	// The test compares two rates of the same run, because a loaded machine reduces both.
	if polled < 2*notified {
		t.Errorf("got %.0f commits a second with hubs that may poll, want at least twice the %.0f with hubs that have an infinite Busy", polled, notified)
	}
}

// commitsBy runs writers for a time, each as fast as it can, and returns the number of commits a second.
func commitsBy(t *testing.T, dsn string, writers int, length time.Duration) float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var rows atomic.Int64
	var all sync.WaitGroup
	for range writers {
		conn := connect(t, dsn)
		all.Go(func() {
			for ctx.Err() == nil {
				if _, err := conn.Exec(limited(t), "INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '1')"); err != nil {
					t.Error(err)
					return
				}
				rows.Add(1)
			}
		})
	}
	await(t, "the writers", &all)
	return float64(rows.Load()) / length.Seconds()
}
