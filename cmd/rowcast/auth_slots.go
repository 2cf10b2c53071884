package main

import (
	"context"
	"net/netip"
	"sync"
)

// appSlots are for the questions on their way to the app, one each. An address has but a share of them: who is above it waits behind
// his own, and keeps nobody else from being asked about. Some are never newcomers', so that these end no open stream.
type appSlots struct {
	all       chan struct{}
	newcomers chan struct{}

	mu sync.Mutex
	of map[netip.Addr]*appShare // those that have questions
}

// appShare is an address's share.
type appShare struct {
	slots     chan struct{}
	questions int // that have a slot, or wait
}

const (
	slotsInAll       = 32
	slotsOfNewcomers = 24
	slotsOfAddress   = 8
)

func newAppSlots() *appSlots {
	return &appSlots{
		all:       make(chan struct{}, slotsInAll),
		newcomers: make(chan struct{}, slotsOfNewcomers),
		of:        make(map[netip.Addr]*appShare),
	}
}

// A turn waits until it is a question's turn, which it has until done is called, or until the context ends.
type turn func(ctx context.Context, from netip.Addr) (done func(), ok bool)

// newcomer is the turn of a question about a new stream.
func (s *appSlots) newcomer(ctx context.Context, from netip.Addr) (done func(), ok bool) {
	own := s.enter(from)
	// Its own share comes first: so in the other queues, too, no address has more than that.
	back, ok := take(ctx, own.slots, s.newcomers, s.all)
	if !ok {
		s.leave(from)
		return nil, false
	}
	return func() {
		back()
		s.leave(from)
	}, true
}

// renewal is the turn of a question about an open stream. There are no more of these than there are streams, wherever they come from.
func (s *appSlots) renewal(ctx context.Context, _ netip.Addr) (done func(), ok bool) {
	return take(ctx, s.all)
}

// take takes a slot of each kind, one after the other.
func take(ctx context.Context, kinds ...chan struct{}) (done func(), ok bool) {
	for i, slots := range kinds {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			giveBack(kinds[:i])
			return nil, false
		}
	}
	return func() { giveBack(kinds) }, true
}

func giveBack(kinds []chan struct{}) {
	for _, slots := range kinds {
		<-slots
	}
}

func (s *appSlots) enter(from netip.Addr) *appShare {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.of[from]
	if own == nil {
		own = &appShare{slots: make(chan struct{}, slotsOfAddress)}
		s.of[from] = own
	}
	own.questions++
	return own
}

// leave forgets an address without questions.
func (s *appSlots) leave(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.of[from]
	if own.questions--; own.questions == 0 {
		delete(s.of, from)
	}
}
