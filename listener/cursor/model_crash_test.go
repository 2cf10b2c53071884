package cursor_test

import "testing"

// A crash loses the transactions in flight, and the server assigns their numbers again. Cursors stay exact, because
// they claim no transaction above one of which a row was read. A client whose anchor still exists continues.
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
		t.Error("no number was assigned again: these histories show nothing")
	}
	if resets != 0 {
		t.Errorf("%d clients were reset, though no row was lost", resets)
	}
}

// With synchronous_commit off, or after a failover to a standby that lags, the server may lose delivered rows too. A
// client that has received a lost row is reset if the hub does not keep a record of it. No other client is reset, and
// each receives the remaining rows once.
func TestCrashesThatLoseCommits(t *testing.T) {
	t.Parallel()
	resets, kept := 0, 0
	for seed := range seeds(t, 150) {
		w := play(seed, plan{crashes: 4, lost: 3})
		for _, f := range w.findings {
			t.Errorf("ROWCAST_SEED=%d: %v", seed, f)
		}
		resets += w.resets
		kept += len(w.clients)
	}
	if resets == 0 || resets >= kept {
		t.Errorf("%d clients of %d were reset: these histories show nothing", resets, kept)
	}
}

// A hub that has run all the time knows after every crash what is left of every cursor that it sent, and resets no
// client.
func TestLongRunningHubResetsNoClient(t *testing.T) {
	t.Parallel()
	clamps := 0
	for seed := range seeds(t, 150) {
		w := play(seed, plan{crashes: 6, lost: 3, alone: true})
		for _, f := range w.findings {
			t.Errorf("ROWCAST_SEED=%d: %v", seed, f)
		}
		if w.resets != 0 && w.begun == 1 {
			t.Errorf("ROWCAST_SEED=%d: %d clients were reset", seed, w.resets)
		}
		for _, e := range w.hubs[0].recoveries {
			if e.left != nil {
				clamps++
			}
		}
	}
	if clamps == 0 {
		t.Error("no delivered row was lost: these histories show nothing")
	}
	t.Logf("%d crashes lost delivered rows", clamps)
}
