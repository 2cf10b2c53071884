package listener

import (
	"context"
	"fmt"
	"time"
)

// A transaction with a pending NOTIFY takes a lock of the whole cluster from before its commit until after it, so such commits
// run one at a time. So nobody rings while hubs are polling anyway, and the whole protocol is one advisory lock, the park lock:
//
//   - The trigger tries to get it shared, for its transaction. If it fails, somebody is parked, and the trigger rings.
//   - A hub with nothing to do takes it exclusively, THEN fetches once more, and then sleeps until it is rung.
//
// No bell is missed: whoever did not ring holds the lock shared until its rows are visible, so the hub gets it only when there
// is no such transaction left, and the fetch after that sees all their rows. Whoever comes later fails to get it, and rings.
//
// Only one hub can hold the lock, but while one does, NOTIFY wakes all. So another may sleep, too, once it has looked that the
// lock is held and then fetched; the holder tells the others when it has given it up.

const (
	// patience is how often the lock is tried, between two polls, before something slower is assumed to be in the way.
	patience = 5
	// slowPoll is for those transactions that did not ring and are still open, while everybody else rings.
	slowPoll = 25 * time.Millisecond
	// gapPoll is for the times between two waits for the lock, in which nobody rings.
	gapPoll = 10 * time.Millisecond
	// A gap is doubled every time that the lock was waited for in vain.
	minGap, maxGap = 250 * time.Millisecond, 8 * time.Second
)

// run polls while there are many commits and rests while there are few.
func (s *session) run(ctx context.Context) error {
	for {
		if err := s.poll(ctx, s.busy); err != nil {
			return err
		}
		if err := s.rest(ctx); err != nil {
			return err
		}
	}
}

func (s *session) busy() bool { return s.crowded || s.pace.isBusy(time.Now(), s.Busy, s.Quiet) }

// poll fetches again and again as long as that is right.
func (s *session) poll(ctx context.Context, right func() bool) error {
	for interval := s.PollInterval; right(); {
		took, err := s.pollOnce(ctx, interval)
		if err != nil {
			return err
		}
		interval = s.interval(took)
	}
	return nil
}

// interval is PollInterval, and longer where a fetch takes long: on a machine that has no time to spare, it is the writers'. Where
// there are fewer commits than make it busy, those who write wait for each other or the disk and leave time, and it is half of that.
func (s *session) interval(took time.Duration) time.Duration {
	least := s.PollInterval
	if !s.PollOnly && s.pace.rate < s.Busy {
		least /= 2
		if s.crowded { // for as long as somebody else's transaction is open
			least = max(least, gapPoll)
		}
	}
	return max(least, min(2*took, 2*least))
}

// pollOnce sleeps, deaf to bells, and fetches. It returns how long the fetch took.
func (s *session) pollOnce(ctx context.Context, interval time.Duration) (took time.Duration, err error) {
	for until := time.Now().Add(interval); time.Now().Before(until) && !s.isAsked(); {
		s.bell, s.unparked = false, false
		s.answerCalls()
		if err := s.wait(ctx, until); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	err = s.fetch(ctx)
	return time.Since(began), err
}

// rest parks, or relies on another hub that has, and sleeps between the bells until they come too often.
func (s *session) rest(ctx context.Context) error {
	parked, relying, err := s.settle(ctx)
	if err != nil || !parked && !relying {
		return err
	}
	if parked {
		s.Stats.Parks.Add(1)
	}
	s.unparked, s.state = false, state{}
	// Not before the lock was taken or looked at: in between, a row may have come whose transaction did not ring.
	if err := s.fetch(ctx); err != nil {
		return err
	}
	for !s.busy() {
		if still, err := s.sleep(ctx, parked); err != nil || !still {
			return err
		}
	}
	if parked {
		return s.lock.release(ctx)
	}
	return nil
}

// sleep waits for a bell and answers it, or looks when none has come for long. It tells whether the hub would still be rung.
func (s *session) sleep(ctx context.Context, parked bool) (still bool, err error) {
	look := time.Now().Add(s.Look)
	for again := true; again; {
		if err := s.wait(ctx, look); err != nil {
			return false, err
		}
		if parked {
			if err := s.lock.lost(); err != nil {
				return false, err
			}
		} else if s.unparked {
			return false, nil
		}
		again = s.unparked // not by another hub: a stranger must not put off the look
		s.unparked = false
	}
	if s.bell || len(s.calls.waiting) > 0 || s.isAsked() {
		if err := s.fetch(ctx); err != nil {
			return false, err
		}
		if still, err := s.isHeld(parked); err != nil || !still {
			return still, err
		}
		return true, s.lookForQueue(ctx)
	}
	if time.Now().Before(look) {
		return true, nil
	}
	return s.look(ctx, parked)
}

// settle tries to get the park lock until it is got, or another hub has it, or there is too much to do.
func (s *session) settle(ctx context.Context) (parked, relying bool, err error) {
	gap := minGap
	for tries := 1; !s.busy(); tries++ {
		if parked, err = s.lock.try(ctx); err != nil || parked {
			return parked, false, err
		}
		if s.holder, err = s.lock.heldElsewhere(ctx); err != nil || s.holder != 0 {
			return false, err == nil, err
		}
		// While the lock's connection still rings for the last release it can do nothing else.
		if tries < patience || s.lock.isWorking() {
			if _, err := s.pollOnce(ctx, s.PollInterval); err != nil {
				return false, false, err
			}
			continue
		}
		if parked, err = s.queue(ctx); err != nil || parked {
			return parked, false, err
		}
		for end := time.Now().Add(gap); time.Now().Before(end) && !s.busy(); {
			if _, err := s.pollOnce(ctx, gapPoll); err != nil {
				return false, false, err
			}
			if parked, err = s.lock.try(ctx); err != nil || parked {
				return parked, false, err
			}
		}
		gap = min(2*gap, maxGap)
	}
	return false, false, nil
}

// queue waits for the lock behind a transaction that did not ring and stays open. While it waits, the trigger's try fails as
// well, so that everybody else rings.
func (s *session) queue(ctx context.Context) (parked bool, err error) {
	s.lock.enqueue()
	for {
		if parked, done, err := s.lock.dequeued(); done || err != nil {
			return parked, err
		}
		if err := s.wait(ctx, time.Now().Add(slowPoll)); err != nil {
			return false, err
		}
		s.unparked = false
		if err := s.fetch(ctx); err != nil {
			return false, err
		}
	}
}

// isHeld reports whether the park lock is still held as it was when the hub went to sleep, as far as the last state says. A hub that
// relies on another one starts anew when a third one holds the lock: between the two nobody did, and rows may have come without a
// NOTIFY.
func (s *session) isHeld(parked bool) (bool, error) {
	switch {
	case !s.state.known:
		return true, nil
	case parked && s.state.holder != s.lock.pid:
		return false, errNotHeld
	}
	return parked || s.state.holder == s.holder, nil
}

var errNotHeld = fmt.Errorf("%w: the server does not know that we hold it", errParkLock)

// look is what a sleeping hub does when nothing was heard for long: it makes sure that it would have been rung, and fetches.
// Rows that it finds came without a bell, unless the bell is just on its way.
func (s *session) look(ctx context.Context, parked bool) (still bool, err error) {
	if parked {
		if err := s.lock.prove(ctx); err != nil {
			return false, err
		}
	}
	before := s.Stats.Rows.Load()
	if err := s.fetch(ctx); err != nil {
		return false, err
	}
	if still, err := s.isHeld(parked); err != nil || !still {
		return still, err
	}
	found := s.Stats.Rows.Load() - before
	if found == 0 {
		return true, nil
	}
	if err := s.wait(ctx, time.Now().Add(100*time.Millisecond)); err != nil {
		return false, err
	}
	if !s.bell && !s.isAsked() {
		s.Stats.Unrung.Add(found)
		s.Logger.Warn("rows came without a bell: by replication, with rowcast.ring off, or is the trigger disabled?", "rows", found)
	}
	return true, nil
}
