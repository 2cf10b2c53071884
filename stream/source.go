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

	// Page reads a page of the rows that a client at the cursor c has not received and that end has seen, of the
	// recipients, in the order in which the client receives them. The rows for everyone are read if [feed.Everyone] is
	// among the recipients. next is the client's cursor after these rows. If there are no more rows, next is equal to
	// end. horizon is the transaction number below which retention has deleted rows.
	Page(ctx context.Context, c, end cursor.Cursor, recipients []string) (rows []feed.Row, next cursor.Cursor, horizon uint64, err error)

	// IsValid reports whether c, a cursor of an earlier epoch, is valid in the epoch of now, the Hub's cursor. It is
	// valid if its anchor still exists. IsValid checks no other row.
	IsValid(ctx context.Context, c, now cursor.Cursor) (bool, error)
}

// A fairQueue limits the calls of Source.Page and Source.IsValid that run at one time. One reader may have half of the
// calls, but at least one, and waiting readers take turns. A user with many clients and costly cursors therefore does
// not take all calls from the other users.
type fairQueue struct {
	mu      sync.Mutex
	free    int                     // calls that may begin now
	each    int                     // calls of one reader that may run at one time
	readers map[reader]*readerQueue // the readers with a running or waiting call
	waiting list.List               // the readers with a waiting call, in the order of their turns, each as a *readerQueue
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

// A readerQueue holds the waiting calls of one reader and counts its running calls.
type readerQueue struct {
	of      reader
	running int           // the number of running calls
	calls   list.List     // the waiting calls, each as a chan struct{} that is closed when the call may begin
	at      *list.Element // the place in fairQueue.waiting; nil if no call waits
}

func (q *fairQueue) init(calls int) {
	q.free, q.each, q.readers = calls, max(1, calls/2), make(map[reader]*readerQueue)
}

// acquire waits until a reader may begin a call. After the call, the caller must call release, unless acquire returned
// an error.
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

// release ends a running call of a reader.
func (q *fairQueue) release(of reader) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.end(q.readers[of])
}

func (q *fairQueue) end(own *readerQueue) {
	q.free++
	own.running--
	q.tidy(own)
	q.advance()
}

// tidy removes a reader from waiting if no call of the reader waits, and from readers if no call runs, either.
func (q *fairQueue) tidy(own *readerQueue) {
	if own.calls.Len() == 0 && own.at != nil {
		q.waiting.Remove(own.at)
		own.at = nil
	}
	if own.calls.Len() == 0 && own.running == 0 {
		delete(q.readers, own.of)
	}
}

// advance lets waiting calls begin as long as the limit of running calls allows. After its turn, a reader goes behind
// the other waiting readers.
func (q *fairQueue) advance() {
	for q.free > 0 {
		own := q.first()
		if own == nil {
			return
		}
		close(own.calls.Remove(own.calls.Front()).(chan struct{}))
		own.running++
		q.free--
		q.waiting.MoveToBack(own.at)
		q.tidy(own)
	}
}

// first returns the first waiting reader that may begin another call, or nil. Each reader before it has running calls,
// and few calls run at one time, so the search is short.
func (q *fairQueue) first() *readerQueue {
	for at := q.waiting.Front(); at != nil; at = at.Next() {
		if own := at.Value.(*readerQueue); own.running < q.each {
			return own
		}
	}
	return nil
}
