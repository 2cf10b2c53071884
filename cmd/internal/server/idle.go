package server

import (
	"container/heap"
	"container/list"
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"rowcast/stream"
)

// idleConns bounds the number of connections without a stream. On such a connection, the server waits for a request, or
// is answering one. When there are too many connections, each new connection causes one to be closed. So a client that
// opens thousands of connections, and sends nothing or only a byte now and then, does not block other clients. The
// connection to close is chosen by the first rule that applies:
//
//  1. If an address has more than a quarter of max, the address with the most connections loses the connection that has
//     been waiting for a request the longest. If none of its connections is waiting, the address loses the connection
//     with the newest request, because older requests will be finished sooner.
//  2. If connections are waiting for a request, the address with the most waiting connections loses the connection that
//     has been waiting the longest. Of several such addresses, it is the address whose connection has been waiting the
//     longest.
//  3. Otherwise, the address with the most connections loses the connection with the newest request.
//
// An address is an IPv4 address or an IPv6 network of 64 bits. While a request that came through a trusted proxy is
// being answered, its connection counts for the address of the proxy's client.
type idleConns struct {
	max    int
	Closed atomic.Int64 // the number of connections that were closed because there were too many

	mu        sync.Mutex
	conns     map[net.Conn]*idleConn
	peers     map[netip.Addr]*peer
	byTotal   peerHeap // the peers, ordered by the number of their connections
	byWaiting peerHeap // the peers, ordered by waitsMore
	moves     uint64   // the number of calls of move
}

// An idleConn is a connection without a stream.
type idleConn struct {
	conn    net.Conn
	peer    *peer
	waiting bool   // the connection waits for a request
	since   uint64 // the value of idleConns.moves when the connection was put into its list
	element *list.Element
}

// A peer is an address with its connections. Each list begins with the connection that was added first.
type peer struct {
	address          netip.Addr
	waiting, serving list.List
	positions        [2]int // the indexes of the peer in byTotal and byWaiting
}

func newIdleConns(limit int) *idleConns {
	c := &idleConns{max: limit, conns: make(map[net.Conn]*idleConn), peers: make(map[netip.Addr]*peer)}
	c.byTotal = peerHeap{before: func(p, q *peer) bool { return p.total() > q.total() }, index: 0}
	c.byWaiting = peerHeap{before: (*peer).waitsMore, index: 1}
	return c
}

// track is the ConnState function of an HTTP server. In net/http, a connection is active from the end of a request's
// header to the end of the answer.
func (c *idleConns) track(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.conns[conn]
	switch {
	case state == http.StateNew:
		i = &idleConn{conn: conn}
		c.conns[conn] = i
		c.move(i, addressOf(conn), true)
		c.enforceMax()
	case i == nil: // closed by enforceMax
	case state == http.StateActive:
		c.move(i, addressOf(conn), false)
	case state == http.StateIdle:
		c.move(i, addressOf(conn), true)
	default: // closed, or taken over by a stream
		c.remove(i)
	}
}

func addressOf(conn net.Conn) netip.Addr { return stream.AddressOf(conn.RemoteAddr().String()) }

// enforceMax closes a connection if there are too many connections. The caller holds the lock, so the connection cannot
// become a stream meanwhile.
func (c *idleConns) enforceMax() {
	if len(c.conns) <= c.max {
		return
	}
	i := c.victim()
	c.remove(i)
	c.Closed.Add(1)
	_ = i.conn.Close()
}

// victim returns the connection to close, by the rules in the comment of idleConns.
func (c *idleConns) victim() *idleConn {
	from, mostWaiting := c.byTotal.first(), c.byWaiting.first()
	if from.total() <= c.max/4 && mostWaiting.waiting.Len() > 0 {
		from = mostWaiting
	}
	if longest := from.waiting.Front(); longest != nil {
		return longest.Value.(*idleConn)
	}
	return from.serving.Back().Value.(*idleConn)
}

// move appends a connection to a list of an address, and removes it from its present list.
func (c *idleConns) move(i *idleConn, address netip.Addr, waiting bool) {
	if i.peer != nil {
		c.detach(i)
	}
	p := c.peers[address]
	if p == nil {
		p = &peer{address: address}
		c.peers[address] = p
		heap.Push(&c.byTotal, p)
		heap.Push(&c.byWaiting, p)
	}
	c.moves++
	i.peer, i.waiting, i.since = p, waiting, c.moves
	i.element = p.list(waiting).PushBack(i)
	c.fix(p)
}

func (c *idleConns) remove(i *idleConn) {
	c.detach(i)
	delete(c.conns, i.conn)
}

// detach removes a connection from its peer, and removes the peer if it has no other connection.
func (c *idleConns) detach(i *idleConn) {
	p := i.peer
	p.list(i.waiting).Remove(i.element)
	if p.total() > 0 {
		c.fix(p)
		return
	}
	heap.Remove(&c.byTotal, p.positions[0])
	heap.Remove(&c.byWaiting, p.positions[1])
	delete(c.peers, p.address)
}

// fix restores the order of the heaps after the size of p has changed.
func (c *idleConns) fix(p *peer) {
	heap.Fix(&c.byTotal, p.positions[0])
	heap.Fix(&c.byWaiting, p.positions[1])
}

func (p *peer) total() int { return p.waiting.Len() + p.serving.Len() }

// waitsMore compares the numbers of waiting connections. If they are equal, it reports whether the first connection of p
// has been waiting longer than that of q.
func (p *peer) waitsMore(q *peer) bool {
	n, m := p.waiting.Len(), q.waiting.Len()
	if n != m || n == 0 {
		return n > m
	}
	return p.waiting.Front().Value.(*idleConn).since < q.waiting.Front().Value.(*idleConn).since
}

func (p *peer) list(waiting bool) *list.List {
	if waiting {
		return &p.waiting
	}
	return &p.serving
}

// beginPoll stops counting the connection of a poll, because a poll that waits counts as a stream. The caller must call
// answering before it sends the end of the answer. answering counts the connection again. A row for everyone may answer
// many polls at once, and each poll should keep its connection until its answer was sent. So answering closes no
// connection, even if there are too many. The next new connection causes one to be closed.
func (c *idleConns) beginPoll(r *http.Request) (answering func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	i := c.conns[conn]
	if i == nil { // closed by enforceMax
		return func() {}
	}
	c.remove(i)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		i := &idleConn{conn: conn}
		c.conns[conn] = i
		c.move(i, stream.AddressOf(r.RemoteAddr), false)
	}
}

// A peerHeap is a heap of peers. No peer is before the first one.
type peerHeap struct {
	all    []*peer
	before func(p, q *peer) bool
	index  int // which of peer.positions belongs to this heap
}

func (h *peerHeap) first() *peer       { return h.all[0] }
func (h *peerHeap) Len() int           { return len(h.all) }
func (h *peerHeap) Less(i, j int) bool { return h.before(h.all[i], h.all[j]) }
func (h *peerHeap) Swap(i, j int) {
	h.all[i], h.all[j] = h.all[j], h.all[i]
	h.all[i].positions[h.index], h.all[j].positions[h.index] = i, j
}

func (h *peerHeap) Push(p any) {
	p.(*peer).positions[h.index] = len(h.all)
	h.all = append(h.all, p.(*peer))
}

func (h *peerHeap) Pop() any {
	last := len(h.all) - 1
	p := h.all[last]
	h.all[last] = nil
	h.all = h.all[:last]
	return p
}

// connKey is the context key of a request's connection.
type connKey struct{}

// withConn is the ConnContext function of an HTTP server. It stores the connection in the context, where beginPoll and
// the middleware attribute find it.
func (*idleConns) withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// attribute is a middleware that counts a request's connection for r.RemoteAddr until the request has been answered.
// Behind a trusted proxy, r.RemoteAddr is the address of the proxy's client.
func (c *idleConns) attribute(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			c.mu.Lock()
			if i := c.conns[conn]; i != nil {
				c.move(i, stream.AddressOf(r.RemoteAddr), false)
			}
			c.mu.Unlock()
		}
		next.ServeHTTP(w, r)
	})
}
