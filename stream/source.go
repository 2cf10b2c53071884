package stream

import (
	"container/list"
	"context"
	"net/http"
	"net/netip"
	"sync"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
)

// A Source reads rows that a Hub no longer has in memory. Its errors are temporary: the Hub tries again while the
// client waits.
type Source interface {
	// CatchUp returns once everything that was committed before the call has been published.
	CatchUp(ctx context.Context) error

	// Page reads the first rows that to has seen and from has not, of the recipients and of everyone, in the order in
	// which a client that resumes at from receives them. next is the client's cursor after these rows; it equals to if
	// there are no more. horizon is the transaction number below which retention has deleted rows.
	Page(ctx context.Context, from, to cursor.Cursor, recipients []string) (rows []feed.Row, next cursor.Cursor, horizon uint64, err error)

	// IsValid reports whether c, which is of another epoch than now, is still valid: whether the rows that it has seen
	// still exist and the server has assigned none of their transaction numbers again.
	IsValid(ctx context.Context, c, now cursor.Cursor) (bool, error)
}

// A fairQueue limits the calls of the Source that run at one time. One reader may have at most half of them, and
// waiting readers take turns. So a user with many clients and costly cursors does not delay the others.
type fairQueue struct {
	mu      sync.Mutex
	free    int                     // calls that may begin now
	each    int                     // calls of one reader that may run at one time
	readers map[reader]*readerQueue // the readers that have a call or wait for one
	waiting list.List               // of *readerQueue, in the order of their turns
}

// A reader is a user, or an address if the user is unknown.
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

// A readerQueue is the waiting calls of one reader.
type readerQueue struct {
	of      reader
	reading int           // calls that run
	calls   list.List     // of chan struct{}, which is closed when the call may begin
	at      *list.Element // in fairQueue.waiting; nil if no call waits
}

func (q *fairQueue) init(calls int) {
	q.free, q.each, q.readers = calls, max(1, calls/2), make(map[reader]*readerQueue)
}

// acquire waits until a reader may begin a call. The caller must release it, unless acquire returns an error.
func (q *fairQueue) acquire(ctx context.Context, of reader) error {
	q.mu.Lock()
	own := q.readers[of]
	if own == nil {
		own = &readerQueue{of: of}
		q.readers[of] = own
	}
	begin := make(chan struct{})
	call := own.calls.PushBack(begin)
	if own.at == nil {
		own.at = q.waiting.PushBack(own)
	}
	q.advance()
	q.mu.Unlock()
	select {
	case <-begin:
		return nil
	case <-ctx.Done():
		q.abandon(own, call, begin)
		return ctx.Err()
	}
}

// abandon removes a waiting call, or releases it if it was allowed to begin in the meantime.
func (q *fairQueue) abandon(own *readerQueue, call *list.Element, begin chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-begin:
		q.end(own)
	default:
		own.calls.Remove(call)
		q.tidy(own)
	}
}

// release ends a call.
func (q *fairQueue) release(of reader) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.end(q.readers[of])
}

func (q *fairQueue) end(own *readerQueue) {
	q.free++
	own.reading--
	q.tidy(own)
	q.advance()
}

// tidy removes a reader from the lists in which it has nothing left.
func (q *fairQueue) tidy(own *readerQueue) {
	if own.calls.Len() == 0 && own.at != nil {
		q.waiting.Remove(own.at)
		own.at = nil
	}
	if own.calls.Len() == 0 && own.reading == 0 {
		delete(q.readers, own.of)
	}
}

// advance begins as many calls as are free. After its turn, a reader goes behind the readers that wait already.
func (q *fairQueue) advance() {
	for q.free > 0 {
		own := q.first()
		if own == nil {
			return
		}
		close(own.calls.Remove(own.calls.Front()).(chan struct{}))
		own.reading++
		q.free--
		q.waiting.MoveToBack(own.at)
		q.tidy(own)
	}
}

// first returns the first reader that may begin another call, or nil. The readers that it passes over have calls
// running, so they are few.
func (q *fairQueue) first() *readerQueue {
	for at := q.waiting.Front(); at != nil; at = at.Next() {
		if own := at.Value.(*readerQueue); own.reading < q.each {
			return own
		}
	}
	return nil
}
