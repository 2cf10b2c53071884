// Package fair limits how many calls run at one time, and lets users take turns.
package fair

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

// ErrTooMany reports that a key has as many calls as Queue.PerKey allows.
var ErrTooMany = errors.New("too many calls run or wait")

// A Queue limits how many calls run at one time. Each call has a key, such as a user. Calls with one key use at most
// half of this limit, or one call if that is more, and waiting keys take turns. If Calls is at least 2, a user with
// many slow calls therefore does not block the calls of other users. The fields must not be changed after the first
// use.
type Queue[K comparable] struct {
	// Calls limits how many calls run at one time. It must be set.
	Calls int
	// PerKey limits how many calls with the same key run or wait at one time. 0 means no limit.
	PerKey int

	mu      sync.Mutex
	running int             // the number of running calls
	keys    map[K]*calls[K] // the keys with a running or waiting call
	waiting list.List       // the keys with a waiting call, in the order of their turns, each as a *calls
}

// calls holds the waiting calls of one key and counts its running calls.
type calls[K comparable] struct {
	of      K
	running int           // the number of running calls
	waiting list.List     // the waiting calls, each as a chan struct{} that is closed when the call may begin
	at      *list.Element // the element of Queue.waiting; nil if no call waits
}

// Acquire waits until a call of a key may begin. Unless Acquire returns an error, the caller must call Release after
// the call. The error is ErrTooMany, or the error of ctx.
func (q *Queue[K]) Acquire(ctx context.Context, of K) error {
	begin := make(chan struct{})
	own, call, err := q.enter(of, begin)
	if err != nil {
		return err
	}
	select {
	case <-begin:
		return nil
	case <-ctx.Done():
		q.abandon(own, call, begin)
		return ctx.Err()
	}
}

// enter adds a waiting call. The call begins at once if the limits allow it.
func (q *Queue[K]) enter(of K, begin chan struct{}) (own *calls[K], call *list.Element, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if own = q.keys[of]; own == nil {
		if q.keys == nil {
			q.keys = make(map[K]*calls[K])
		}
		own = &calls[K]{of: of}
		q.keys[of] = own
	}
	if q.PerKey > 0 && own.running+own.waiting.Len() >= q.PerKey {
		return nil, nil, ErrTooMany
	}
	call = own.waiting.PushBack(begin)
	if own.at == nil {
		own.at = q.waiting.PushBack(own)
	}
	q.advance()
	return own, call, nil
}

// abandon removes a waiting call, or releases it if it was allowed to begin in the meantime.
func (q *Queue[K]) abandon(own *calls[K], call *list.Element, begin chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-begin:
		q.end(own)
	default:
		own.waiting.Remove(call)
		q.tidy(own)
	}
}

// Release ends a running call of a key.
func (q *Queue[K]) Release(of K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.end(q.keys[of])
}

func (q *Queue[K]) end(own *calls[K]) {
	q.running--
	own.running--
	q.tidy(own)
	q.advance()
}

// tidy removes a key from waiting if no call of the key waits, and from keys if no call runs, either.
func (q *Queue[K]) tidy(own *calls[K]) {
	if own.waiting.Len() == 0 && own.at != nil {
		q.waiting.Remove(own.at)
		own.at = nil
	}
	if own.waiting.Len() == 0 && own.running == 0 {
		delete(q.keys, own.of)
	}
}

// advance lets waiting calls begin as long as the limits allow it. After its turn, a key goes behind the other waiting
// keys.
func (q *Queue[K]) advance() {
	for q.running < q.Calls {
		own := q.first()
		if own == nil {
			return
		}
		close(own.waiting.Remove(own.waiting.Front()).(chan struct{}))
		own.running++
		q.running++
		q.waiting.MoveToBack(own.at)
		q.tidy(own)
	}
}

// first returns the first waiting key that may begin another call, or nil. Each key that it skips has running calls.
// Few calls run at one time, so the search is short.
func (q *Queue[K]) first() *calls[K] {
	for at := q.waiting.Front(); at != nil; at = at.Next() {
		if own := at.Value.(*calls[K]); own.running < max(1, q.Calls/2) {
			return own
		}
	}
	return nil
}

// Waiting returns the number of waiting calls.
func (q *Queue[K]) Waiting() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, own := range q.keys {
		n += own.waiting.Len()
	}
	return n
}

// Keys returns the number of keys with a running or waiting call.
func (q *Queue[K]) Keys() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.keys)
}
