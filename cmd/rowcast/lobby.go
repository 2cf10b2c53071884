package main

import (
	"container/list"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// A lobby is where connections are that are no stream: their request has not come yet, is being answered, or the next may come. Only
// so many have room. For a newcomer, the one whose last request began the longest ago is closed: who means no harm asks at once,
// and who opens thousands and sends nothing, or a byte now and then, keeps nobody out.
type lobby struct {
	room   int
	Closed atomic.Int64 // for others

	mu      sync.Mutex
	waiting list.List // of net.Conn, the longest there first
	at      map[net.Conn]*list.Element
}

func newLobby(room int) *lobby { return &lobby{room: room, at: make(map[net.Conn]*list.Element)} }

// follow is a server's ConnState.
func (l *lobby) follow(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew, http.StateActive, http.StateIdle:
		l.enter(conn)
	case http.StateHijacked, http.StateClosed:
		l.leave(conn)
	}
}

// enter puts a connection at the end, and closes the one that must make room. That is under the lock, so that none is closed once it has
// left: a stream writes to its descriptor, which would be another connection's by then.
func (l *lobby) enter(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := l.at[conn]; at != nil {
		l.waiting.MoveToBack(at)
		return
	}
	l.at[conn] = l.waiting.PushBack(conn)
	if l.waiting.Len() <= l.room {
		return
	}
	longest := l.waiting.Remove(l.waiting.Front()).(net.Conn)
	delete(l.at, longest)
	l.Closed.Add(1)
	_ = longest.Close()
}

func (l *lobby) leave(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := l.at[conn]; at != nil {
		l.waiting.Remove(at)
		delete(l.at, conn)
	}
}
