package cursor_test

import "testing"

// A crash that loses no commit resets no client. The crash loses the transactions in flight, and the server may assign
// their numbers again. Cursors stay exact, because a cursor claims no transaction above the highest one of which a row
// was read.
func TestCrashes(t *testing.T) {
	t.Parallel()
	again, resets := 0, 0
	for seed := range seeds(t, 150) {
		w := play(seed, plan{crashes: 4})
		for _, f := range w.findings {
			t.Errorf("ROWCAST_SEED=%d: %v", seed, f)
		}
		again += w.db.again
		resets += w.resets
	}
	if again == 0 {
		t.Error("got no transaction number that was assigned again, want at least one: these histories show nothing")
	}
	if resets != 0 {
		t.Errorf("got %d resets, want 0, because no row was lost", resets)
	}
}

// With synchronous_commit off, or after a failover to a standby that lags, the server may lose delivered rows too. A
// client may then be reset. The model reports a finding if a hub refuses a client's cursor, or restarts, although the
// anchor was not lost. Each client receives the remaining rows once.
func TestCrashesThatLoseCommits(t *testing.T) {
	t.Parallel()
	resets, clients := 0, 0
	for seed := range seeds(t, 150) {
		w := play(seed, plan{crashes: 4, lost: 3})
		for _, f := range w.findings {
			t.Errorf("ROWCAST_SEED=%d: %v", seed, f)
		}
		resets += w.resets
		clients += len(w.clients)
	}
	if resets == 0 || resets >= clients {
		t.Errorf("got %d resets with %d clients, want at least one, and fewer resets than clients: these histories show nothing", resets, clients)
	}
}

// If there is one hub, which is never restarted, and no web page, no client is reset, even if crashes lose delivered
// rows. The hub has sent every cursor itself, and keeps a record of what it delivered. So it can clamp each cursor to
// the rows that still exist. Only if a crash loses the anchor with which the hub began must the hub begin again, with
// resets. The test allows such resets.
func TestLongRunningHubResetsNoClient(t *testing.T) {
	t.Parallel()
	clamps := 0
	for seed := range seeds(t, 150) {
		w := play(seed, plan{crashes: 6, lost: 3, alone: true})
		for _, f := range w.findings {
			t.Errorf("ROWCAST_SEED=%d: %v", seed, f)
		}
		if w.resets != 0 && w.begun == 1 {
			t.Errorf("ROWCAST_SEED=%d: got %d resets by a hub that began once, want 0", seed, w.resets)
		}
		for _, e := range w.hubs[0].recoveries {
			if e.left != nil {
				clamps++
			}
		}
	}
	if clamps == 0 {
		t.Error("got no crash that lost delivered rows, want at least one: these histories show nothing")
	}
	t.Logf("%d crashes lost delivered rows", clamps)
}
