package listener

import (
	"context"
	"fmt"
	"time"
)

// A wakeup decides when the listener fetches next, and why. The listener sleeps in LISTEN while there is little to do
// and polls while there is much.
//
// While a transaction with a pending NOTIFY commits, it holds a lock of the whole cluster, so such commits run one at a
// time. Therefore the trigger should not notify while all hubs poll. One advisory lock, the park lock, decides:
//
//   - The trigger tries to take the lock shared, for its transaction. If that fails, a hub holds the lock or waits for
//     it, and the trigger notifies.
//   - A hub with nothing to do takes the lock exclusively, fetches once more, and then sleeps.
//
// No row is missed. A transaction whose trigger got the lock holds it shared until its rows are visible. So the hub
// gets the lock only after all such transactions, and the fetch after that sees their rows. A transaction that comes
// later cannot take the lock, and notifies.
//
// Only one hub can hold the lock, but a NOTIFY wakes all hubs that listen. So another hub may sleep too, once it has
// seen that the lock is held and has then fetched. The holder notifies the others when it releases the lock.
//
// Before a hub sleeps, it must fetch: after it has taken the lock, or after it has seen that another hub holds the
// lock. Therefore no phase calls hold or rely, the phases in which the hub sleeps. Instead, a phase returns the next
// phase together with a reason to fetch, and the session's loop fetches before it calls next again.
type wakeup struct {
	*Listener
	link *link
	open func(context.Context) (*parkLock, error) // opens the second connection, when the first fetch has succeeded
	lock *parkLock                                // nil before open is called, and with PollOnly

	phase    phase
	took     time.Duration // how long the last fetch took
	idle     idleMeter
	pace     pace
	crowded  bool      // the NOTIFY queue is so full that the hub must not sleep
	inquired time.Time // when a page last came with the state of the server
	proved   time.Time // when the session that holds the park lock was last proved to be alive
	attempt  attempt   // the present attempt to take the park lock
	holder   uint32    // the process that holds the park lock while this hub relies on it
}

// A phase is what the listener does between two fetches. It returns when the next fetch is due, with the reason for the
// fetch, and the phase that follows the fetch.
type phase func(ctx context.Context, last fetched) (reason, phase, error)

// A reason says why the listener fetches.
type reason int

const (
	sessionBegan  reason = iota // the session has begun
	pollDue                     // the poll interval has passed, or CatchUp was called while polling
	lockTaken                   // this hub has taken the park lock
	lockElsewhere               // another hub was seen to hold the park lock
	lockLost                    // the hub on which this one relied no longer holds the park lock
	inQueue                     // the hub waits in the queue for the park lock, and polls slowly
	queueEnded                  // the wait in the queue has ended without the park lock
	woken                       // a notification came, or CatchUp was called, while the hub slept
	safetyPoll                  // the hub slept or was about to sleep, and its last state of the server is about as old as Look
)

// fetched describes a fetch for the phase that follows it.
type fetched struct {
	reason reason
	took   time.Duration
	rows   int
	end    uint64 // the xmax of the snapshot that was read last
	state  state  // unknown unless the fetch has asked for it
}

// An attempt records how the hub has tried to take the park lock since it was last busy or asleep.
type attempt struct {
	tries  int
	gap    time.Duration // the length of the last gap between two waits in the queue; 0 before the first
	gapEnd time.Time
}

const (
	// patience is the number of attempts to take the lock, one after each poll, after which the hub waits in the queue
	// for the lock. By then, it assumes that a transaction which did not notify stays open.
	patience = 5
	// slowPoll is the poll interval while the hub waits in the queue. Most transactions notify then: the trigger cannot
	// take the lock.
	slowPoll = 25 * time.Millisecond
	// gapPoll is the poll interval in the gap between two waits in the queue. In the gap, the trigger normally does not
	// notify.
	gapPoll = 10 * time.Millisecond
	// minGap and maxGap bound the gap. The gap is doubled after each wait that has not brought the lock.
	minGap, maxGap = 250 * time.Millisecond, 8 * time.Second
)

func newWakeup(l *Listener, k *link, open func(context.Context) (*parkLock, error)) *wakeup {
	w := &wakeup{Listener: l, link: k, open: open}
	w.phase = w.begin
	return w
}

func (w *wakeup) close() {
	if w.lock != nil {
		w.lock.close()
	}
}

// next waits until the next fetch is due, and returns the reason for it. last describes the fetch before the wait.
//
// The phase gets the time of the quicker one of the last two fetches, because a fetch is sometimes slow only because a
// process has waited for a CPU.
func (w *wakeup) next(ctx context.Context, last fetched) (why reason, err error) {
	last.took, w.took = min(last.took, w.took), last.took
	why, w.phase, err = w.phase(ctx, last)
	return why, err
}

// begin makes the session fetch once before it opens its second connection.
func (w *wakeup) begin(context.Context, fetched) (reason, phase, error) {
	return sessionBegan, w.complete, nil
}

// complete opens the second connection, unless PollOnly is set, and continues with the phase awake.
func (w *wakeup) complete(ctx context.Context, last fetched) (why reason, next phase, err error) {
	if w.lock, err = w.open(ctx); err != nil {
		return 0, nil, err
	}
	return w.awake(ctx, last)
}

// awake is the phase in which the hub polls. While there are few commits, it tries to take the park lock between two
// polls, so that it can sleep.
func (w *wakeup) awake(ctx context.Context, last fetched) (reason, phase, error) {
	if w.PollOnly || w.isBusy() {
		w.attempt = attempt{}
		return w.pollAfter(ctx, last)
	}
	if taken, err := w.lock.try(ctx); err != nil || taken {
		return w.taken(err)
	}
	if time.Now().Before(w.attempt.gapEnd) {
		return w.poll(ctx, gapPoll)
	}
	holder, err := w.lock.heldElsewhere(ctx)
	if err != nil || holder != 0 {
		w.holder, w.link.released = holder, false
		return lockElsewhere, w.rely, err
	}
	// While the lock's connection still notifies the other hubs of the last release, it can do nothing else.
	if w.attempt.tries++; w.attempt.tries < patience || w.lock.isRunning() {
		return w.poll(ctx, w.PollInterval)
	}
	w.lock.enqueue()
	return w.waitInQueue(ctx)
}

// isBusy reports whether the hub should poll rather than sleep.
func (w *wakeup) isBusy() bool { return w.mustPoll() || w.pace.isBusy(time.Now(), w.Busy, w.Quiet) }

// mustPoll reports whether the hub must not sleep, because the NOTIFY queue is too full, or because the session does not
// listen.
func (w *wakeup) mustPoll() bool { return w.crowded || w.isListeningPaused() }

// pollAfter polls when the interval after the last fetch has passed.
func (w *wakeup) pollAfter(ctx context.Context, last fetched) (reason, phase, error) {
	idle := 1.
	if !w.PollOnly {
		idle = w.idle.read(time.Now())
	}
	return w.poll(ctx, w.interval(last.took, idle))
}

// interval returns the time until the next poll. It is half the time of a fetch, within two bounds. So rows arrive soon
// on a machine with CPU to spare, and a busy machine leaves CPU to the writers.
//
//   - The lower bound is a sixteenth of PollInterval. It grows with the rate above Busy, with the square of the rate
//     above 4*Busy, and while the CPUs of this machine are hardly idle, because the writers then need the CPU.
//   - The upper bound is twice PollInterval. Below Busy it is PollInterval, because the writers then wait for each
//     other or for the disk, and leave CPU.
//
// Below Busy, the interval is gapPoll if the hub must poll. With PollOnly, the interval is PollInterval, or up to twice
// as long if fetches are slow.
func (w *wakeup) interval(took time.Duration, idle float64) time.Duration {
	rate := max(0, w.pace.rate/w.Busy) // a negative Busy makes the hub poll always
	sixteenths := min(max(1, rate, rate*rate/4)*stretch(idle), 32)
	least, most := time.Duration(sixteenths*float64(w.PollInterval/16)), 2*w.PollInterval
	switch {
	case w.PollOnly:
		return max(w.PollInterval, min(2*took, most))
	case w.pace.rate < w.Busy && w.mustPoll(): // this can last for as long as another session keeps a transaction open
		return gapPoll
	case w.pace.rate < w.Busy:
		most = w.PollInterval
	}
	return min(max(least, took/2), most)
}

// collectFrom is the rate, in commits a second, from which on a hub that was notified may wait for further commits.
const collectFrom = 300

// collect returns how long a hub that was notified waits before it fetches: up to half a millisecond with the default
// PollInterval, and never more than a millisecond. The hub waits only if there are many commits and the CPUs of this
// machine are hardly idle. The fetch then reads the rows of several commits at once, which leaves CPU to the writers and
// to other hubs.
func (w *wakeup) collect(now time.Time) time.Duration {
	if w.pace.decay(now); w.pace.rate < collectFrom {
		return 0
	}
	return w.collectWhile(w.idle.read(now))
}

func (w *wakeup) collectWhile(idle float64) time.Duration {
	factor := stretch(idle)
	if factor == 1 {
		return 0
	}
	return min(time.Duration(factor*float64(w.PollInterval/16)), time.Millisecond)
}

// stretch returns the factor by which the lower bound of the interval grows if this share of the CPUs' time is idle.
// The factor is 1 for a share of 0.3 or more, and 4 for 0.15 or less. Between these shares it is the square of 0.3 /
// idle. So it grows faster as the share falls, because the writers need the last idle time most.
func stretch(idle float64) float64 {
	missing := 0.3 / max(idle, 0.15)
	return max(1, missing*missing)
}

// poll waits for an interval. If the interval is shorter than gapPoll, the hub naps, because a nap costs far less CPU
// than a wait on the connection. Nothing ends a nap, and messages and requests to disconnect that come meanwhile are
// passed on after it. During a wait on the connection, they are passed on at once, and CatchUp ends the wait.
// Notifications without a payload do not end it.
func (w *wakeup) poll(ctx context.Context, interval time.Duration) (reason, phase, error) {
	for until := time.Now().Add(interval); time.Now().Before(until) && !w.isFetchRequested(); {
		w.link.notified, w.link.released = false, false
		w.link.answerCalls()
		if interval < gapPoll {
			if w.link.waited >= longWait {
				w.link.setWaited(0)
			}
			nap(interval)
		} else if err := w.link.wait(ctx, until); err != nil {
			return 0, nil, err
		}
	}
	return pollDue, w.awake, ctx.Err()
}

// taken begins to hold the park lock, unless err says that it could not be taken.
func (w *wakeup) taken(err error) (reason, phase, error) {
	if err != nil {
		return 0, nil, err
	}
	w.Stats.ParkLocks.Add(1)
	w.proved = time.Now()
	w.link.released = false
	return lockTaken, w.hold, nil
}

// waitInQueue waits for the slow poll interval. It returns earlier if a notification comes, if CatchUp is called, or if
// the wait in the queue has ended.
func (w *wakeup) waitInQueue(ctx context.Context) (reason, phase, error) {
	err := w.link.wait(ctx, time.Now().Add(slowPoll))
	w.link.released = false
	return inQueue, w.queue, err
}

// queue is the phase in which the hub waits in the queue for the park lock, behind a transaction that did not notify
// and stays open. While a hub waits, the trigger cannot take the lock for another transaction. So no further
// transaction gets the lock, and all further transactions notify.
func (w *wakeup) queue(ctx context.Context, _ fetched) (reason, phase, error) {
	taken, done, err := w.lock.dequeued()
	switch {
	case err != nil || taken:
		return w.taken(err)
	case !done:
		return w.waitInQueue(ctx)
	}
	w.attempt.gap = min(max(2*w.attempt.gap, minGap), maxGap)
	w.attempt.gapEnd = time.Now().Add(w.attempt.gap)
	return queueEnded, w.awake, nil
}

// hold is the phase in which the hub sleeps and holds the park lock itself.
func (w *wakeup) hold(ctx context.Context, last fetched) (reason, phase, error) {
	w.attempt = attempt{}
	if last.state.known && last.state.holder != w.lock.pid {
		return 0, nil, errNotHeld
	}
	if err := w.afterSleep(ctx, last); err != nil {
		return 0, nil, err
	}
	if w.isBusy() {
		if err := w.lock.release(ctx); err != nil {
			return 0, nil, err
		}
		return w.pollAfter(ctx, last)
	}
	why, err := w.sleep(ctx, func() (bool, error) { return false, w.lock.lost() })
	if err == nil && w.isProofDue(why) {
		err = w.lock.prove(ctx)
		w.proved = time.Now()
	}
	return why, w.hold, err
}

// proofGap is the time between two checks that the session which holds the park lock is alive, in intervals of Look. The
// checks also keep a proxy from closing an idle connection. They are rare, because a check costs more than a fetch.
const proofGap = 15

// isProofDue reports whether to check the session that holds the park lock. The check does not delay a row, unless rows
// come so often that there is no safety poll.
func (w *wakeup) isProofDue(why reason) bool {
	age := time.Since(w.proved)
	return age >= 2*proofGap*w.Look || age >= proofGap*w.Look && why == safetyPoll
}

var errNotHeld = fmt.Errorf("%w: the server reports that this hub does not hold it", errParkLock)

// rely is the phase in which the hub sleeps while another hub holds the park lock. If a third hub or no hub holds the
// lock now, this hub polls again before it sleeps, because for a moment no hub held the lock, and transactions may have
// committed rows without a NOTIFY.
func (w *wakeup) rely(ctx context.Context, last fetched) (reason, phase, error) {
	w.attempt = attempt{}
	if last.state.known && last.state.holder != w.holder {
		return lockLost, w.awake, nil
	}
	if err := w.afterSleep(ctx, last); err != nil {
		return 0, nil, err
	}
	if w.isBusy() {
		return w.pollAfter(ctx, last)
	}
	why, err := w.sleep(ctx, func() (bool, error) { return w.link.released, nil })
	if err != nil || why == lockLost {
		return lockLost, w.awake, err
	}
	return why, w.rely, nil
}

// sleep returns at once for a safety poll if the state is old. Otherwise it waits until the hub is woken, until a safety
// poll is due, or until lost reports that the hub would no longer be notified.
func (w *wakeup) sleep(ctx context.Context, lost func() (bool, error)) (reason, error) {
	if w.isStateOld() {
		return safetyPoll, nil
	}
	due := w.inquired.Add(w.Look)
	for {
		if err := w.link.wait(ctx, due); err != nil {
			return 0, err
		}
		if isLost, err := lost(); err != nil || isLost {
			return lockLost, err
		}
		w.link.released = false
		switch {
		case w.isFetchRequested():
			return woken, nil
		case w.link.isCalled():
			if d := w.collect(time.Now()); d > 0 {
				nap(d)
			}
			return woken, nil
		case !time.Now().Before(due):
			return safetyPoll, nil
		}
	}
}

// afterSleep may check for a queue of writers if the hub was woken for the last fetch. If the last fetch was a safety
// poll that has found rows, afterSleep waits for their notification.
func (w *wakeup) afterSleep(ctx context.Context, last fetched) error {
	switch {
	case last.reason == woken:
		return w.checkQueue(ctx)
	case last.reason == safetyPoll && last.rows > 0:
		return w.expectNotification(ctx, last.rows)
	}
	return nil
}

// expectNotification is called after a safety poll that has found rows. It counts and logs them as rows without a
// notification, unless a notification follows soon or CatchUp is called.
func (w *wakeup) expectNotification(ctx context.Context, rows int) error {
	const soon = 100 * time.Millisecond
	for until := time.Now().Add(soon); time.Now().Before(until) && !w.link.announced && !w.link.isCalled() && !w.isFetchRequested(); {
		if err := w.link.wait(ctx, until); err != nil {
			return err
		}
	}
	if !w.link.announced && !w.isFetchRequested() {
		w.Stats.Unnotified.Add(int64(rows))
		if logger, ok := w.logs.unnotified.Allow(w.Logger); ok {
			logger.Warn("rows arrived without a notification (logical replication, rowcast.ring = off, or a disabled trigger)", "rows", rows)
		}
	}
	return nil
}
