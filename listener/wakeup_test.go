package listener

import (
	"context"
	"errors"
	"testing"
	"time"

	"rowcast/listener/cursor"
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

// Reading the state of the server takes longer than reading a row, so it does not delay the row that has woken the hub.
func TestTheStateDoesNotDelayARow(t *testing.T) {
	t.Parallel()
	l := &Listener{Look: time.Hour}
	for _, c := range []struct {
		age  time.Duration
		why  reason
		want bool
	}{
		{l.Look - time.Minute, woken, false},
		{l.Look - time.Minute, pollDue, false},
		{l.Look - time.Minute, safetyPoll, true},
		{l.Look + time.Minute, woken, false},
		{l.Look + time.Minute, pollDue, true},
		{2*l.Look + time.Minute, woken, true},
	} {
		s := session{Listener: l, wakeup: &wakeup{Listener: l, link: &link{}, inquired: time.Now().Add(-c.age)}}
		if query, _ := s.queryNow(safetyPoll, &cursor.Cursor{}); c.age < l.Look && query.full == stateQuery.full {
			t.Errorf("the last state is %v old: a later page of a safety poll asks for the state", c.age)
		}
		if query, _ := s.queryNow(c.why, nil); (query.full == stateQuery.full) != c.want {
			t.Errorf("the last state is %v old, the reason to fetch is %d: the query asks for the state is %t, want %t", c.age, c.why, !c.want, c.want)
		}
	}
}

// A hub that has read a row reads the state before it sleeps, if a safety poll would soon interrupt the sleep.
func TestTheStateIsReadBeforeTheSleep(t *testing.T) {
	t.Parallel()
	w := &wakeup{Listener: &Listener{Look: time.Hour, Busy: 1, Quiet: 1}, link: &link{}, inquired: time.Now().Add(-50 * time.Minute), proved: time.Now()}
	for name, sleeping := range map[string]phase{"hold": w.hold, "rely": w.rely} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if why, _, err := sleeping(ctx, fetched{}); why != safetyPoll || err != nil {
			t.Errorf("%s: the reason to fetch is %d and the error %v, want %d (safetyPoll) and no error", name, why, err, safetyPoll)
		}
	}
}
