package stream

import (
	"container/heap"
	"context"
	"fmt"
	"math"
	"time"
)

// A lease is the time for which a stream has been granted. Streams without an end have none.
type lease struct {
	of      *subscriber
	due     time.Time // when something is to be done about it
	expires time.Time // as the bye says it
	leeway  time.Duration
	renew   func(context.Context) (time.Time, bool)
	at      int // its place among the leases; nowhere while it is being renewed
}

// nowhere is the place of a lease that is not among the leases.
const nowhere = -1

// A bye is sent so long before a grant expires; of one that lasts less than twice that, when half of it is over.
const byeBefore = 30 * time.Second

// expiryTick is how often the leases are looked at: a stream ends at most so long after its grant.
const expiryTick = 500 * time.Millisecond

// lease begins a stream's lease, if its grant ends. The hub must be locked.
func (h *Hub) lease(s *subscriber, grant Grant) {
	if grant.Expires.IsZero() {
		return
	}
	l := &lease{of: s, due: grant.Expires, expires: grant.Expires, leeway: grant.Leeway, renew: grant.Renew}
	if grant.Renew == nil {
		now := time.Now()
		if !now.Before(l.expires) { // by our clock, perhaps not by theirs: who renews at each bye must not get one at once each time
			l.expires, l.leeway = l.end(), 0
		}
		l.due = l.expires.Add(-min(byeBefore, max(0, l.expires.Sub(now)/2)))
	}
	s.lease = l
	heap.Push(&h.leases, l)
}

// end is until when the stream may go on.
func (l *lease) end() time.Time { return l.expires.Add(l.leeway) }

// endLease forgets a stream's lease. The hub must be locked.
func (h *Hub) endLease(s *subscriber) {
	if s.lease != nil && s.lease.at != nowhere {
		heap.Remove(&h.leases, s.lease.at)
	}
	s.lease = nil
}

// expire does what is due: it tells those whose time is about to end, renews, and ends.
func (h *Hub) expire(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for now := time.Now(); len(h.leases) > 0 && !now.Before(h.leases[0].due); {
		l := h.leases[0]
		switch {
		case l.renew != nil:
			heap.Pop(&h.leases)
			h.renewals.Go(func() { h.renew(ctx, l) })
			continue
		case !now.Before(l.end()):
			h.endLocked(l.of)
			h.endLease(l.of)
			continue
		case h.roster.isLive(l.of):
			h.bye(l.of, byeExpired, max(0, l.expires.Sub(now)))
			l.due = l.end()
		default: // is told as soon as it is live
			l.due = now.Add(expiryTick)
		}
		heap.Fix(&h.leases, l.at)
	}
}

// renew asks whether a stream goes on. It stays open meanwhile.
func (h *Hub) renew(ctx context.Context, l *lease) {
	expires, ok := l.renew(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case ctx.Err() != nil || l.of.lease == nil: // the hub is stopping, or the stream has ended
	case ok && expires.IsZero(): // never
		l.of.lease = nil
	case ok:
		l.due, l.expires = expires, expires
		heap.Push(&h.leases, l)
	default:
		if h.roster.isLive(l.of) {
			h.bye(l.of, byeRevoked, 0)
		}
		h.endLocked(l.of)
		l.of.lease = nil
	}
}

// Why a stream is about to end, as the data of rowcast.bye says it.
const (
	byeExpired = "expired" // its grant ends
	byeRevoked = "revoked" // it was not renewed
)

// bye tells a live stream that it is about to end. It has no id: the stream may be owed events, which no id may overtake.
func (h *Hub) bye(s *subscriber, reason string, in time.Duration) {
	data := fmt.Appendf(nil, `{"reason": %q, "expires_in": %d}`, reason, int(math.Round(in.Seconds())))
	h.sendEach(runOf(note(bye, nil, data)), []*subscriber{s})
}

// leases are a heap: what is due first comes first.
type leases []*lease

func (l leases) Len() int           { return len(l) }
func (l leases) Less(i, j int) bool { return l[i].due.Before(l[j].due) }

func (l leases) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].at, l[j].at = i, j
}

// Push is for package heap.
func (l *leases) Push(x any) {
	added := x.(*lease)
	added.at = len(*l)
	*l = append(*l, added)
}

// Pop is for package heap.
func (l *leases) Pop() any {
	last := len(*l) - 1
	removed := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	removed.at = nowhere
	return removed
}
