package listener

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"rowcast/listener/cursor"
)

// A state is what the listener must know about the server, besides rows. About once in each Look (1 s), a fetch reads the
// state together with rows, see isStateDue. With PollOnly, each page has the state.
type state struct {
	known  bool
	holder uint32     // the process that holds the park lock; 0 if there is none
	queue  float64    // the used part of the NOTIFY queue, from 0 to 1
	epoch  cursor.Tag // the present epoch
}

// stateQuery is like fetchQuery, and also asks for the state.
var stateQuery = newPageQuery(snapshotRow(`concat_ws(' ', rowcast.epoch_tag(), pg_notification_queue_usage(), (`+lockHolder+`))`), fetchArms, "$7", "$8")

// readState reads the state from the first row of a result. The state is unknown if the query did not ask for it.
func readState(values [][]byte) (s state, err error) {
	if values[colState] == nil {
		return state{}, nil
	}
	s.known = true
	fields := strings.Fields(string(values[colState]))
	if len(fields) < 2 {
		return s, fmt.Errorf("malformed state %q", fields)
	}
	if s.epoch, err = cursor.ParseTag(fields[0]); err != nil {
		return s, fmt.Errorf("read epoch: %w", err)
	}
	if s.queue, err = strconv.ParseFloat(fields[1], 64); err != nil {
		return s, fmt.Errorf("read the usage of the NOTIFY queue: %w", err)
	}
	if len(fields) == 2 {
		return s, nil
	}
	holder, err := strconv.ParseUint(fields[2], 10, 32)
	s.holder = uint32(holder)
	return s, err
}

// observe uses the state that a page has brought. It reports void if another epoch has begun. Then the page must not be
// delivered, and the session continues from the cursor that resume has found.
func (s *session) observe(ctx context.Context, now state) (void bool, err error) {
	if !now.known {
		return false, nil
	}
	s.wakeup.inquired = time.Now()
	s.wakeup.observeQueue(now.queue)
	if now.epoch == s.epoch {
		return false, nil
	}
	s.Logger.Warn("another epoch has begun: the server behind a pooler has restarted or was replaced, or rowcast.epoch was changed")
	err = s.link.bounded(ctx, s.resume)
	return true, err
}

// isStateDue reports whether the next page of a fetch must have the state. Reading it takes longer than reading a row. So
// a fetch for which the hub was woken, probably by a row, leaves it to the next safety poll, unless notifications come so
// often that there is none. first is true for the first page of a fetch.
func (w *wakeup) isStateDue(why reason, first bool) bool {
	age := time.Since(w.inquired)
	return first && why == safetyPoll || age >= 2*w.Look || age >= w.Look && why != woken
}

// isStateOld reports whether a hub that has just fetched, and is about to sleep, should read the state first. A safety
// poll that comes directly after a row costs less CPU than one that interrupts the sleep.
func (w *wakeup) isStateOld() bool {
	return time.Since(w.inquired) >= w.Look-w.Look/4 && !w.link.isCalled()
}

// observeQueue decides whether the NOTIFY queue is so full that the hub must not sleep. While a hub sleeps, every
// INSERT sends a NOTIFY, and its transaction fails to commit if the NOTIFY queue is full. Any session that has called
// LISTEN and keeps a transaction open lets the queue grow, and any role can fill it. So from QueueLimit on the hub
// polls, which needs no NOTIFY, until the usage is below half of QueueLimit.
func (w *wakeup) observeQueue(usage float64) {
	w.Stats.queue.Store(math.Float64bits(usage))
	crowded := usage >= w.QueueLimit || w.crowded && usage >= w.QueueLimit/2
	if w.crowded && !crowded {
		w.Logger.Info("NOTIFY queue has drained: the hub may sleep between notifications again", "ratio", usage)
	}
	w.crowded = crowded && !w.PollOnly
	w.Stats.Crowded.Store(w.crowded)
	if !w.crowded {
		return
	}
	if logger, ok := w.logs.queue.Allow(w.Logger); ok {
		logger.Warn("NOTIFY queue is filling up: polling until it has drained; probably a session has called LISTEN and keeps a transaction open",
			"ratio", usage, "limit", w.QueueLimit)
	}
}

// NotifyQueue returns the used part of the server's NOTIFY queue, from 0 to 1, when the listener last asked.
func (s *Stats) NotifyQueue() float64 { return math.Float64frombits(s.queue.Load()) }
