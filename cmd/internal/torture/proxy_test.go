package torture_test

import (
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"rowcast/sql/dbtest"
)

// A proxy is between a hub and the database. It can stop forwarding data, like a network that loses all packets.
// Connections then stay open and new connections are accepted, but no data and no end of a connection arrives.
type proxy struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu     sync.Mutex
	passes sync.Cond // is signalled when silent or closed has changed; its lock is mu
	silent bool
	closed bool
	conns  map[net.Conn]struct{}
}

// startProxy returns a proxy of a database, and a connection string for the database through the proxy.
func startProxy(t *testing.T, dsn string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: u.Host, conns: map[net.Conn]struct{}{}}
	p.passes.L = &p.mu
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	p.running.Go(p.accept)
	t.Cleanup(func() { dbtest.Wait(t, p.close, "the end of the proxy's connections") })
	u.Host = p.listener.Addr().String()
	return p, u.String()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(client) })
	}
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.DialTimeout("tcp", p.target, limit)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	closed := p.closed
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	p.mu.Unlock()
	if closed {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.pass(server, client) })
	both.Go(func() { p.pass(client, server) })
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, client)
	delete(p.conns, server)
}

// pass copies data from source to target. At the end of the data it closes the writing side of target. After an error
// it closes both connections. While the proxy is silent, pass waits.
func (p *proxy) pass(target, source net.Conn) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := source.Read(buffer)
		p.await()
		if n > 0 {
			if _, writeErr := target.Write(buffer[:n]); writeErr != nil {
				err = writeErr
			}
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) {
			_ = target.(*net.TCPConn).CloseWrite()
			return
		}
		target.Close()
		source.Close()
		return
	}
}

// await waits until the proxy is not silent, or is closed.
func (p *proxy) await() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.silent && !p.closed {
		p.passes.Wait()
	}
}

func (p *proxy) silence(silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = silent
	p.passes.Broadcast()
}

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Close()
	}
}

func (p *proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.passes.Broadcast()
	p.mu.Unlock()
	p.cut()
	p.running.Wait()
}
