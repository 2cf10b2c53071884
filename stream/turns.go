package stream

import (
	"container/list"
	"context"
	"net/http"
	"net/netip"
	"sync"
)

// turns decide who reads from the Source next. Only so many reads run at a time. Of one reader, a user or an address, no more than half
// of them run, and the readers who wait take turns: so a user with many clients and costly cursors does not keep the others waiting.
type turns struct {
	mu      sync.Mutex
	free    int                     // reads that may begin now
	each    int                     // reads of one reader that may run at a time
	readers map[reader]*readerQueue // those who read or wait
	waiting list.List               // of *readerQueue: those who wait, in the order in which it is their turn
}

// A reader is a user, or an address where the user is not known.
type reader struct {
	user    string
	address netip.Addr
}

func readerOf(user string, r *http.Request) reader {
	if user != "" {
		return reader{user: user}
	}
	return reader{address: AddressOf(r.RemoteAddr)}
}

// A readerQueue holds what one reader waits for.
type readerQueue struct {
	of      reader
	reading int
	calls   list.List     // of chan struct{}, closed when the read may begin
	at      *list.Element // in turns.waiting; nil if nothing waits
}

func (t *turns) init(reads int) {
	t.free, t.each, t.readers = reads, max(1, reads/2), make(map[reader]*readerQueue)
}

// take waits until it is the reader's turn. Each call without an error must be followed by one of done.
func (t *turns) take(ctx context.Context, of reader) error {
	t.mu.Lock()
	q := t.readers[of]
	if q == nil {
		q = &readerQueue{of: of}
		t.readers[of] = q
	}
	begin := make(chan struct{})
	call := q.calls.PushBack(begin)
	if q.at == nil {
		q.at = t.waiting.PushBack(q)
	}
	t.next()
	t.mu.Unlock()
	select {
	case <-begin:
		return nil
	case <-ctx.Done():
		t.leave(q, call, begin)
		return ctx.Err()
	}
}

// leave gives up a call, or the turn if it has come meanwhile.
func (t *turns) leave(q *readerQueue, call *list.Element, begin chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-begin:
		t.end(q)
	default:
		q.calls.Remove(call)
		t.tidy(q)
	}
}

// done ends a read.
func (t *turns) done(of reader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end(t.readers[of])
}

func (t *turns) end(q *readerQueue) {
	t.free++
	q.reading--
	t.tidy(q)
	t.next()
}

// tidy forgets what is empty.
func (t *turns) tidy(q *readerQueue) {
	if q.calls.Len() == 0 && q.at != nil {
		t.waiting.Remove(q.at)
		q.at = nil
	}
	if q.calls.Len() == 0 && q.reading == 0 {
		delete(t.readers, q.of)
	}
}

// next lets those begin whose turn it is. A reader who has had a turn goes behind those who wait already.
func (t *turns) next() {
	for t.free > 0 {
		q := t.first()
		if q == nil {
			return
		}
		close(q.calls.Remove(q.calls.Front()).(chan struct{}))
		q.reading++
		t.free--
		t.waiting.MoveToBack(q.at)
		t.tidy(q)
	}
}

// first returns the first reader who may begin another read, or nil. Those whom it passes over are reading, so they are few.
func (t *turns) first() *readerQueue {
	for at := t.waiting.Front(); at != nil; at = at.Next() {
		if q := at.Value.(*readerQueue); q.reading < t.each {
			return q
		}
	}
	return nil
}
