package main_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rowcast/sql/dbtest"
)

// A cutter is a proxy between a client and the hub. It can cut a stream in the middle of a row. It passes requests for
// paths other than /events on to a server of pages.
type cutter struct {
	t       *testing.T
	address string
	pages   string // the address of the server of pages
	running sync.WaitGroup

	mu       sync.Mutex
	hub      string       // the address of the hub
	listener net.Listener // nil while the cutter refuses connections
	conns    map[net.Conn]struct{}
	cutting  bool
	next     int           // the number of bytes after which the next row is cut
	step     int           // the difference between two such numbers
	cuts     []cut         // in the order in which they happened
	done     chan struct{} // closed after the last cut, at a row that is not cut
}

// A cut is the end of a stream at the beginning, within or at the end of the block of a row.
type cut struct {
	row   int
	block string // the whole block
	sent  int    // the number of its bytes that the client received
}

// String shows where the block was cut.
func (c cut) String() string {
	return fmt.Sprintf("row %d cut after %q of %q", c.row, c.block[:c.sent], c.block)
}

// startCutter starts a cutter at a reserved port (see dbtest.Port).
func startCutter(t *testing.T, hub, pages string) *cutter {
	t.Helper()
	c := &cutter{
		t: t, address: fmt.Sprintf("127.0.0.1:%d", dbtest.Port(t)), hub: hub, pages: pages,
		conns: map[net.Conn]struct{}{}, done: make(chan struct{}),
	}
	c.accept()
	t.Cleanup(func() {
		c.refuse()
		dbtest.Wait(t, c.running.Wait, "the end of the proxy's connections")
	})
	return c
}

// accept makes the cutter accept connections.
func (c *cutter) accept() {
	listener, err := net.Listen("tcp", c.address)
	if err != nil {
		c.t.Error(err)
		return
	}
	c.mu.Lock()
	c.listener = listener
	c.mu.Unlock()
	c.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			c.running.Go(func() { c.serve(conn) })
		}
	})
}

// refuseNew refuses new connections, and keeps the open ones.
func (c *cutter) refuseNew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listener != nil {
		c.listener.Close()
		c.listener = nil
	}
}

// refuse closes all connections and refuses new ones, as if no hub ran.
func (c *cutter) refuse() {
	c.refuseNew()
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		conn.Close()
	}
}

// passTo makes the cutter pass new streams on to another hub.
func (c *cutter) passTo(hub string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hub = hub
}

// abort closes all connections with a TCP reset, which a client sees as an error. The cutter still accepts new
// connections.
func (c *cutter) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		_ = conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
}

// keep adds a connection to conns. The methods refuse and abort then close this connection, too. keep reports whether
// the cutter accepts connections now.
func (c *cutter) keep(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[conn] = struct{}{}
	return c.listener != nil
}

func (c *cutter) close(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
	conn.Close()
}

// serve passes one request on to the hub, or a connection to the server of pages.
func (c *cutter) serve(client net.Conn) {
	defer c.close(client)
	if !c.keep(client) {
		return
	}
	request := bufio.NewReader(client)
	first, err := request.Peek(len("GET /events"))
	if err != nil {
		return
	}
	toHub := string(first) == "GET /events"
	server, err := net.Dial("tcp", c.target(toHub))
	if err != nil {
		return
	}
	defer c.close(server)
	if !c.keep(server) {
		return
	}
	c.running.Go(func() {
		_, _ = io.Copy(server, request)
		server.Close() // the client has closed its connection
	})
	if toHub {
		c.passBlocks(client, bufio.NewReader(server))
	} else {
		_, _ = io.Copy(client, server)
	}
}

func (c *cutter) target(hub bool) (address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if hub {
		return c.hub
	}
	return c.pages
}

// passBlocks passes a stream on until the stream ends or is cut. While the cutter cuts streams, passBlocks passes on
// whole blocks, except the block that it cuts. The first row of every second stream is not cut. At other times,
// passBlocks passes each line on at once.
func (c *cutter) passBlocks(client io.Writer, stream *bufio.Reader) {
	rows := 0
	for {
		block, err := c.readBlock(client, stream)
		length, isCut := c.cutRow(block, &rows)
		if _, failed := client.Write(block[:length]); failed != nil || err != nil || isCut {
			return
		}
	}
}

// readBlock returns the next block of a stream if streams are being cut. Otherwise it writes the next block and returns
// no bytes.
func (c *cutter) readBlock(client io.Writer, stream *bufio.Reader) (block []byte, err error) {
	c.mu.Lock()
	cutting := c.cutting
	c.mu.Unlock()
	for {
		line, err := stream.ReadBytes('\n')
		if cutting {
			block = append(block, line...)
		} else if _, failed := client.Write(line); failed != nil {
			return nil, failed
		}
		if err != nil || string(line) == "\n" {
			return block, err
		}
	}
}

// dataOfRow matches the data of a row in its block.
var dataOfRow = regexp.MustCompile(`(?m)^data: \[?(\d+)\]?$`)

// cutRow decides whether to cut the stream in a block. It returns the number of bytes of the block to send.
func (c *cutter) cutRow(block []byte, rows *int) (length int, isCut bool) {
	found := dataOfRow.FindSubmatch(block)
	if found == nil {
		return len(block), false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	spared := len(c.cuts) % 2
	*rows++
	if !c.cutting || *rows <= spared {
		return len(block), false
	}
	if c.next > len(block) {
		c.cutting = false
		close(c.done)
		return len(block), false
	}
	row, _ := strconv.Atoi(string(found[1]))
	length = c.next
	c.cuts = append(c.cuts, cut{row, string(block), length})
	c.next += c.step
	return length, true
}

// cutAll cuts one stream after the other, each in the block of a row. The client receives first bytes of the first
// block, and step bytes more of each further block, up to a whole block. cutAll waits until all of these cuts have
// happened, for at most limit.
func (c *cutter) cutAll(limit time.Duration, first, step int) error {
	c.mu.Lock()
	c.cutting, c.next, c.step = true, first, step
	c.mu.Unlock()
	select {
	case <-c.done:
		return nil
	case <-time.After(limit):
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cutting = false
		return fmt.Errorf("after %v, only %d streams of the client were cut", limit, len(c.cuts))
	}
}

// idAt returns the index of the text of the id in the block.
func (c cut) idAt() int { return strings.Index(c.block, "id: ") + len("id: ") }

// dataAt returns the index of the text of the data in the block.
func (c cut) dataAt() int { return strings.Index(c.block, "data: ") + len("data: ") }
