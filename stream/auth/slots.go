package auth

import (
	"context"
	"net/netip"
	"sync"
)

// At most 32 requests to the app run at once. At most 24 of them are for requests of clients, such as new streams, and
// at most 8 of these for clients of one address (see AddressOf in package stream). Further requests wait. In this
// package, "new streams" also means polls and requests for an inbox.
const (
	maxRequests   = 32
	maxOpening    = 24
	maxPerAddress = 8
)

// slots limits the requests to the app that run at once.
type slots struct {
	all     chan struct{}
	opening chan struct{} // a request for a new stream also needs one of these 24 slots, so 8 of all slots are left for renewals

	mu        sync.Mutex
	addresses map[netip.Addr]*share // the addresses with a request for a new stream that runs or waits
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

// An acquire function waits for a slot for a request from an address. It returns false if ctx ends first. The slot is
// kept until release is called.
type acquire func(ctx context.Context, address netip.Addr) (release func(), ok bool)

// forOpening acquires a slot for a new stream.
func (s *slots) forOpening(ctx context.Context, address netip.Addr) (release func(), ok bool) {
	own := s.enter(address)
	// The slot of the address is acquired first, so that an address never has more than maxPerAddress requests in the
	// other two queues.
	releaseSlots, ok := acquireAll(ctx, own.slots, s.opening, s.all)
	if !ok {
		s.leave(address)
		return nil, false
	}
	return func() {
		releaseSlots()
		s.leave(address)
	}, true
}

// forRenewal acquires a slot for the renewal of an open stream. There is no limit for each address, because the number
// of open streams limits the renewals.
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

// enter counts one more request of an address and returns the share of the address.
func (s *slots) enter(address netip.Addr) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.addresses[address]
	if own == nil {
		own = &share{slots: make(chan struct{}, maxPerAddress)}
		s.addresses[address] = own
	}
	own.requests++
	return own
}

// leave subtracts one request of an address. It removes the address when no request is left.
func (s *slots) leave(address netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.addresses[address]
	if own.requests--; own.requests == 0 {
		delete(s.addresses, address)
	}
}
