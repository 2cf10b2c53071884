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

// A state is what the listener wants to know of the server once a second, besides rows. It comes with a fetch, in the same query.
type state struct {
	known  bool
	holder uint32     // the process that holds the park lock; 0 if there is none
	queue  float64    // how full the NOTIFY queue is, from 0 to 1
	epoch  cursor.Tag // the present epoch
}

// lookQuery is fetchQuery that also asks for the state.
var lookQuery = newPageQuery(`concat_ws(' ', rowcast.epoch_tag(), pg_notification_queue_usage(), (`+lockHolder+`))`, fetchArms, "$7", "$8")

// readState reads the state from the first row of a page, if it is there.
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
		return s, fmt.Errorf("read how full the NOTIFY queue is: %w", err)
	}
	if len(fields) == 2 {
		return s, nil
	}
	holder, err := strconv.ParseUint(fields[2], 10, 32)
	s.holder = uint32(holder)
	return s, err
}

// queryNow returns the query for the next page. A listener that polls through a pooler asks for the state each time: it does not
// notice when the server behind the pooler restarts, and must not go on in another epoch.
func (s *session) queryNow() pageQuery {
	if s.PollOnly || time.Since(s.inquired) >= s.Look {
		return lookQuery
	}
	return fetchQuery
}

// heed takes notice of a page's state. It reports whether the page is void because another epoch has begun: the session then has
// found out where to go on from.
func (s *session) heed(ctx context.Context, now state) (void bool, err error) {
	if !now.known {
		return false, nil
	}
	s.state, s.inquired = now, time.Now()
	s.heedQueue(now.queue)
	if now.epoch == s.epoch {
		return false, nil
	}
	s.Logger.Warn("another epoch has begun: the server has restarted behind a pooler, or rowcast.epoch was emptied")
	err = s.bounded(ctx, s.resume)
	return true, err
}

// heedQueue decides whether the hub may sleep. While it does, every INSERT sends a NOTIFY, and fails if the NOTIFY queue is full. Any
// session that has called LISTEN and then keeps a transaction open lets the queue grow, and any role can fill it. So above QueueLimit
// the hub polls, which needs no NOTIFY, until the queue is half as full as that.
func (s *session) heedQueue(usage float64) {
	s.Stats.queue.Store(math.Float64bits(usage))
	crowded := usage >= s.QueueLimit || s.crowded && usage >= s.QueueLimit/2
	if s.crowded && !crowded {
		s.Logger.Info("NOTIFY queue has drained: sleeping again between wake-ups", "ratio", usage)
	}
	s.crowded = crowded && !s.PollOnly
	s.Stats.Crowded.Store(s.crowded)
	if !s.crowded {
		return
	}
	if logger, ok := s.logs.queue.Allow(s.Logger); ok {
		logger.Warn("NOTIFY queue is filling up: polling until it has drained; some session has called LISTEN and keeps a transaction open",
			"ratio", usage, "limit", s.QueueLimit)
	}
}

// NotifyQueue returns how full the NOTIFY queue of the server was when the listener last asked, from 0 to 1.
func (s *Stats) NotifyQueue() float64 { return math.Float64frombits(s.queue.Load()) }
