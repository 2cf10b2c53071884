package listener

import (
	"errors"
	"testing"
)

// If the last fetch has read the state of the server, a hub that is about to sleep again checks whether the same
// session as before holds the park lock. If another session or no session holds it, rows may have come without a
// NOTIFY.
func TestSleepingHubChecksTheHolder(t *testing.T) {
	t.Parallel()
	for _, holder := range []uint32{0, 8} {
		last := fetched{reason: safetyPoll, state: state{known: true, holder: holder}}
		w := wakeup{Listener: &Listener{}, lock: &parkLock{pid: 7}, holder: 7}
		if _, _, err := w.hold(t.Context(), last); !errors.Is(err, errNotHeld) {
			t.Errorf("the hub holds the lock, and the server reports process %d: got error %v, want %v", holder, err, errNotHeld)
		}
		if why, _, err := w.rely(t.Context(), last); why != lockLost || err != nil {
			t.Errorf("the hub relies on process 7, and the server reports process %d: got reason %d and error %v, want %d (lockLost) and no error",
				holder, why, err, lockLost)
		}
	}
}
