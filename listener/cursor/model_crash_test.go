package cursor_test

import "testing"

// TestCrashes: a crash takes back what was in flight, and draws its numbers again. Cursors stay exact all the same, as they
// claim no transaction beyond one of which a row was read: who is anchored in a row that still stands goes on as if nothing had
// been.
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
		t.Error("no number was drawn again: these histories show nothing")
	}
	if resets != 0 {
		t.Errorf("%d clients were reset, though no row was taken back", resets)
	}
}

// TestCrashesThatTakeBackCommits: with synchronous_commit off, or a failover to a standby that lags, rows that were told may be
// taken back, too. Who has seen one begins anew where that is not remembered, nobody else does, and everybody is told what there
// is, once.
func TestCrashesThatTakeBackCommits(t *testing.T) {
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

// TestHubThatRemembers: a hub that has been there all along knows after every crash what is left of any cursor that it gave, and
// resets nobody.
func TestHubThatRemembers(t *testing.T) {
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
		for _, e := range w.hubs[0].epochs {
			if e.left != nil {
				clamps++
			}
		}
	}
	if clamps == 0 {
		t.Error("no told row was taken back: these histories show nothing")
	}
	t.Logf("%d crashes took back what had been told", clamps)
}
