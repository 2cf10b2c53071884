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

// A lobby bounds the connections that are no stream: their request has not come yet, is being answered, or was answered. When the lobby
// is full, it closes a connection for each new one. So a client that opens thousands of connections, and sends nothing or a byte now
// and then, does not keep other clients out. In this order it closes
//
//  1. a connection of the address that has the most, if that is more than a quarter of the lobby: one that waits for a request, the
//     longest waiting first, or else the one whose request is the newest, so that older requests come to an end;
//  2. a connection that waits for a request, of the address that has the most of them, the longest waiting first;
//  3. a connection whose request is being answered, of the address that has the most, the newest request first.
//
// An address is an IPv4 address or an IPv6 network of 64 bits. While a request is being answered that a trusted proxy has sent, it is
// the address of the proxy's client.
type lobby struct {
	room   int
	Closed atomic.Int64 // connections, for others

	mu          sync.Mutex
	guests      map[net.Conn]*guest
	households  map[netip.Addr]*household
	most        ranking // by all connections
	mostWaiting ranking // by those that wait for a request
}

// A guest is a connection in the lobby.
type guest struct {
	conn    net.Conn
	home    *household
	waiting bool // for a request
	at      *list.Element
}

// A household is an address with its guests, each list in the order in which they came to it.
type household struct {
	address           netip.Addr
	waiting, answered list.List
	places            [2]int // in the rankings
}

func newLobby(room int) *lobby {
	l := &lobby{room: room, guests: make(map[net.Conn]*guest), households: make(map[netip.Addr]*household)}
	l.most = ranking{size: (*household).size, kind: 0}
	l.mostWaiting = ranking{size: func(h *household) int { return h.waiting.Len() }, kind: 1}
	return l
}

// follow is a server's ConnState. net/http calls a connection active from the end of a request's head to the end of the answer.
func (l *lobby) follow(conn net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.guests[conn]
	switch {
	case state == http.StateNew:
		g = &guest{conn: conn}
		l.guests[conn] = g
		l.move(g, addressOf(conn), true)
		l.makeRoom()
	case g == nil: // closed to make room
	case state == http.StateActive:
		l.move(g, addressOf(conn), false)
	case state == http.StateIdle:
		l.move(g, addressOf(conn), true)
	default:
		l.leave(g)
	}
}

func addressOf(conn net.Conn) netip.Addr { return stream.AddressOf(conn.RemoteAddr().String()) }

// makeRoom closes a connection if there are too many. It holds the lock, so that a connection cannot become a stream meanwhile.
func (l *lobby) makeRoom() {
	if len(l.guests) <= l.room {
		return
	}
	g := l.superfluous()
	l.leave(g)
	l.Closed.Add(1)
	_ = g.conn.Close()
}

// superfluous is the guest to close, in the order of the lobby's comment.
func (l *lobby) superfluous() *guest {
	most, mostWaiting := l.most.first(), l.mostWaiting.first()
	if most.size() <= l.room/4 && mostWaiting.waiting.Len() > 0 {
		most = mostWaiting
	}
	if longest := most.waiting.Front(); longest != nil {
		return longest.Value.(*guest)
	}
	return most.answered.Back().Value.(*guest)
}

// move puts a guest at the end of a list of an address.
func (l *lobby) move(g *guest, address netip.Addr, waiting bool) {
	if g.home != nil {
		l.takeOut(g)
	}
	h := l.households[address]
	if h == nil {
		h = &household{address: address}
		l.households[address] = h
		heap.Push(&l.most, h)
		heap.Push(&l.mostWaiting, h)
	}
	g.home, g.waiting = h, waiting
	g.at = h.list(waiting).PushBack(g)
	l.rank(h)
}

func (l *lobby) leave(g *guest) {
	l.takeOut(g)
	delete(l.guests, g.conn)
}

// takeOut takes a guest out of its household, and forgets an empty one.
func (l *lobby) takeOut(g *guest) {
	h := g.home
	h.list(g.waiting).Remove(g.at)
	if h.size() > 0 {
		l.rank(h)
		return
	}
	heap.Remove(&l.most, h.places[0])
	heap.Remove(&l.mostWaiting, h.places[1])
	delete(l.households, h.address)
}

func (l *lobby) rank(h *household) {
	heap.Fix(&l.most, h.places[0])
	heap.Fix(&l.mostWaiting, h.places[1])
}

func (h *household) size() int { return h.waiting.Len() + h.answered.Len() }

func (h *household) list(waiting bool) *list.List {
	if waiting {
		return &h.waiting
	}
	return &h.answered
}

// A ranking has the largest household first. It is a heap, so that a change costs the logarithm of their number.
type ranking struct {
	all  []*household
	size func(*household) int
	kind int // of the places
}

func (r *ranking) first() *household  { return r.all[0] }
func (r *ranking) Len() int           { return len(r.all) }
func (r *ranking) Less(i, j int) bool { return r.size(r.all[i]) > r.size(r.all[j]) }
func (r *ranking) Swap(i, j int) {
	r.all[i], r.all[j] = r.all[j], r.all[i]
	r.all[i].places[r.kind], r.all[j].places[r.kind] = i, j
}

func (r *ranking) Push(h any) {
	h.(*household).places[r.kind] = len(r.all)
	r.all = append(r.all, h.(*household))
}

func (r *ranking) Pop() any {
	last := len(r.all) - 1
	h := r.all[last]
	r.all[last] = nil
	r.all = r.all[:last]
	return h
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// remember is a server's ConnContext, for recognise.
func (*lobby) remember(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// recognise counts a connection for the address of its request, which stands behind a proxy, until the request has been answered.
func (l *lobby) recognise(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			l.mu.Lock()
			if g := l.guests[conn]; g != nil {
				l.move(g, stream.AddressOf(r.RemoteAddr), false)
			}
			l.mu.Unlock()
		}
		next.ServeHTTP(w, r)
	})
}
