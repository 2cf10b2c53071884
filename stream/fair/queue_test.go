package fair_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/stream/fair"
)

// At most PerKey calls with the same key run or wait. A further call with this key is refused at once. Calls with other
// keys are not refused.
func TestOneKeyHasALimitedNumberOfCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := fair.Queue[string]{Calls: 4, PerKey: 3}
		begun := make(chan error, 3)
		for range 3 {
			go func() { begun <- q.Acquire(t.Context(), "alice") }()
		}
		synctest.Wait()
		if len(begun) != 2 || q.Waiting() != 1 {
			t.Errorf("%d calls of alice run and %d wait, want 2 and 1", len(begun), q.Waiting())
		}
		if err := q.Acquire(t.Context(), "alice"); !errors.Is(err, fair.ErrTooMany) {
			t.Errorf("got %v for a fourth call, want %v", err, fair.ErrTooMany)
		}
		if err := q.Acquire(t.Context(), "bob"); err != nil {
			t.Errorf("got %v for another key, want no error", err)
		}
		q.Release("bob")
		for range 3 {
			q.Release("alice")
			synctest.Wait()
		}
		if q.Keys() != 0 {
			t.Errorf("%d keys have calls after all calls have ended, want none", q.Keys())
		}
		if err := q.Acquire(t.Context(), "alice"); err != nil {
			t.Errorf("got %v for a call of alice after the first calls have ended, want no error", err)
		}
		q.Release("alice")
	})
}

// A call whose context ends while it waits is removed from the queue.
func TestAnAbandonedCallLeavesTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := fair.Queue[string]{Calls: 1, PerKey: 2}
		if err := q.Acquire(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.Acquire(ctx, "alice"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the error of the context", err)
		}
		if q.Release("alice"); q.Keys() != 0 || q.Waiting() != 0 {
			t.Errorf("%d keys have calls and %d calls wait after all calls have ended, want none", q.Keys(), q.Waiting())
		}
	})
}
