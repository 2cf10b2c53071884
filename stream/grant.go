package stream

import (
	"container/heap"
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// A Grant describes which events a stream receives, and until when. A stream with the zero Grant receives only the
// events for everyone, and does not expire. If a stream is still joining when it must end, it receives no rowcast.bye.
type Grant struct {
	// User is the recipient that identifies the stream's user. Empty means no particular user. No recipient of a grant may
	// begin with "rowcast." ([feed.CheckIdentity]), because the stream could then receive what changes in the inbox of
	// another user.
	User string
	// Groups are further recipients whose events the stream receives.
	Groups []string

	// Known is the time at which the client was authenticated, which must be at most a minute ago. If [Hub.Disconnect]
	// was called for one of the recipients since then, the stream is not opened and the client is answered with "retry
	// later". Zero means that the grant is new.
	Known time.Time
	// Expires is the time at which the grant ends. Zero means never. Without Renew, a rowcast.bye event announces the
	// end, and the stream ends at Expires plus Leeway.
	Expires time.Time
	// Leeway is the time for which the stream continues after Expires, because the clock by which Expires was set may
	// be slow. It has no effect if Renew is set.
	Leeway time.Duration
	// Renew, if not nil, is called at Expires, in a goroutine of its own. If ok is true, the stream continues, and
	// Renew is called again at expires, or never again if expires is zero. If ok is false, the stream ends with a
	// rowcast.bye event. The context is the context of Run. Renew is not called for a poll.
	Renew func(context.Context) (expires time.Time, ok bool)
}

// Recipients returns the user and the groups, sorted and without duplicates.
func (g Grant) Recipients() []string {
	all := slices.DeleteFunc(append([]string{g.User}, g.Groups...), func(r string) bool { return r == "" })
	slices.Sort(all)
	return slices.Clip(slices.Compact(all))
}

// A lease records when the grant of a stream ends. A poll, and a stream whose grant does not end, have no lease.
type lease struct {
	of      *subscriber
	due     time.Time // when expire takes the next step
	expires time.Time // when the grant expires, as rowcast.bye announces it
	leeway  time.Duration
	renew   func(context.Context) (time.Time, bool)
	index   int // the index in state.leases; notQueued while the lease is being renewed
}

const notQueued = -1

// byeBefore is the time between rowcast.bye and the end of a grant. If less than twice byeBefore is left when the
// stream is opened, rowcast.bye comes after half of the time that is left.
const byeBefore = 30 * time.Second

// expiryTick is the time between two checks of the leases. Each step of a lease is taken at most about expiryTick late.
const expiryTick = 500 * time.Millisecond

// addLease adds the lease of a stream whose grant ends.
func (st *state) addLease(s *subscriber, grant Grant) {
	if grant.Expires.IsZero() {
		return
	}
	l := &lease{of: s, due: grant.Expires, expires: grant.Expires, leeway: grant.Leeway, renew: grant.Renew}
	if grant.Renew == nil {
		now := time.Now()
		// A grant that has expired by this machine's clock may be valid by the issuer's clock. The end of its leeway
		// then serves as its expiry. Otherwise, rowcast.bye would be sent at once, and a client that renews at each
		// rowcast.bye would renew again and again.
		if !now.Before(l.expires) {
			l.expires, l.leeway = l.end(), 0
		}
		l.due = l.expires.Add(-min(byeBefore, max(0, l.expires.Sub(now)/2)))
	}
	s.seat.lease = l
	heap.Push(&st.leases, l)
}

// end returns the time at which the stream must end.
func (l *lease) end() time.Time { return l.expires.Add(l.leeway) }

func (st *state) removeLease(s *subscriber) {
	if s.seat.lease != nil && s.seat.lease.index != notQueued {
		heap.Remove(&st.leases, s.seat.lease.index)
	}
	s.seat.lease = nil
}

// expire takes the steps that are due: it renews grants, announces the end of streams, and ends them.
func (h *Hub) expire(ctx context.Context) {
	st := h.state.Lock()
	defer h.state.Unlock()
	for now := time.Now(); len(st.leases) > 0 && !now.Before(st.leases[0].due); {
		l := st.leases[0]
		switch {
		case l.renew != nil:
			heap.Pop(&st.leases)
			h.renewals.Go(func() { h.renew(ctx, l) })
			continue
		case !now.Before(l.end()):
			st.end(l.of)
			st.removeLease(l.of)
			continue
		case st.roster.isLive(l.of):
			st.sendBye(l.of, byeExpired, max(0, l.expires.Sub(now)))
			l.due = l.end()
		default: // the stream is joining, and is checked again soon
			l.due = now.Add(expiryTick)
		}
		heap.Fix(&st.leases, l.index)
	}
}

// renew calls Grant.Renew and ends the stream or extends its lease. The stream stays open meanwhile.
func (h *Hub) renew(ctx context.Context, l *lease) {
	expires, ok := l.renew(ctx)
	st := h.state.Lock()
	defer h.state.Unlock()
	switch {
	case ctx.Err() != nil || l.of.seat.lease == nil: // the Hub is stopping, or the stream has ended
	case ok && expires.IsZero(): // the new grant has no end
		l.of.seat.lease = nil
	case ok:
		l.due, l.expires = expires, expires
		heap.Push(&st.leases, l)
	default:
		if st.roster.isLive(l.of) {
			st.sendBye(l.of, byeRevoked, 0)
		}
		st.end(l.of)
		l.of.seat.lease = nil
	}
}

// The reasons why a stream ends, as the data of rowcast.bye names them. Disconnect uses a third reason, "disconnected".
const (
	byeExpired = "expired" // the grant is about to expire
	byeRevoked = "revoked" // Grant.Renew returned false
)

// sendBye announces the end of a live stream. The event has no id, so the client's cursor does not change.
func (st *state) sendBye(s *subscriber, reason string, in time.Duration) {
	data := fmt.Appendf(nil, `{"reason": %q, "expires_in": %d}`, reason, int(math.Round(in.Seconds())))
	st.sendEach(newRun(note(eventBye, nil, data)), []*subscriber{s})
}

// leases are a heap. The first lease is the next that is due.
type leases []*lease

func (l leases) Len() int           { return len(l) }
func (l leases) Less(i, j int) bool { return l[i].due.Before(l[j].due) }

func (l leases) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].index, l[j].index = i, j
}

// Push is for package heap.
func (l *leases) Push(x any) {
	added := x.(*lease)
	added.index = len(*l)
	*l = append(*l, added)
}

// Pop is for package heap.
func (l *leases) Pop() any {
	last := len(*l) - 1
	removed := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	removed.index = notQueued
	return removed
}
