package auth

import (
	"context"
	"net/netip"
	"sync"
)

// At most 32 requests to the app run at once. New streams may use 24 of them, and a single client address 8. Further requests from that
// address wait, and do not delay the requests of other addresses.
const (
	maxRequests   = 32
	maxOpening    = 24
	maxPerAddress = 8
)

// slots limits the requests to the app that run at once.
type slots struct {
	all     chan struct{}
	opening chan struct{} // the slots of requests for new streams; renewals can use the remaining ones

	mu        sync.Mutex
	addresses map[netip.Addr]*share // the addresses with a request that runs or waits
}

// A share contains the slots of an address.
type share struct {
	slots    chan struct{}
	requests int // the number of requests that run or wait
}

func newSlots() *slots {
	return &slots{
		all:       make(chan struct{}, maxRequests),
		opening:   make(chan struct{}, maxOpening),
		addresses: make(map[netip.Addr]*share),
	}
}

// An acquire function waits for a slot for a request from an address. It reports false if ctx ends first. The slot is kept until
// release is called.
type acquire func(ctx context.Context, from netip.Addr) (release func(), ok bool)

// forOpening acquires a slot for a new stream.
func (s *slots) forOpening(ctx context.Context, from netip.Addr) (release func(), ok bool) {
	own := s.enter(from)
	// The slot of the address is acquired first, so that an address never has more than its share of requests in the other two queues.
	releaseSlots, ok := acquireAll(ctx, own.slots, s.opening, s.all)
	if !ok {
		s.leave(from)
		return nil, false
	}
	return func() {
		releaseSlots()
		s.leave(from)
	}, true
}

// forRenewal acquires a slot for the renewal of an open stream. Addresses have no share here, because the number of streams is limited.
func (s *slots) forRenewal(ctx context.Context, _ netip.Addr) (release func(), ok bool) {
	return acquireAll(ctx, s.all)
}

// acquireAll acquires a slot of each kind, in this order.
func acquireAll(ctx context.Context, kinds ...chan struct{}) (release func(), ok bool) {
	for i, slots := range kinds {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			releaseAll(kinds[:i])
			return nil, false
		}
	}
	return func() { releaseAll(kinds) }, true
}

func releaseAll(kinds []chan struct{}) {
	for _, slots := range kinds {
		<-slots
	}
}

func (s *slots) enter(from netip.Addr) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.addresses[from]
	if own == nil {
		own = &share{slots: make(chan struct{}, maxPerAddress)}
		s.addresses[from] = own
	}
	own.requests++
	return own
}

// leave removes an address that has no more requests.
func (s *slots) leave(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.addresses[from]
	if own.requests--; own.requests == 0 {
		delete(s.addresses, from)
	}
}
