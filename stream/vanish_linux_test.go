package stream_test

import (
	"net"
	"os"
	osexec "os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rowcast/sql/dbtest"
)

// A client that vanishes without a word is gone soon after two heartbeats, whether its stream was silent or in the middle of an event,
// and whether the hub's machine sees that its link is down or nothing at all. The heartbeat that it does not acknowledge has to be sent first.
func TestAClientThatVanishes(t *testing.T) {
	t.Parallel()
	const heartbeat = time.Second
	ways := map[string][]string{
		"its link is down":    {"link", "set", "client", "down"},
		"its address is gone": {"address", "flush", "dev", "client"},
	}
	for way, vanish := range ways {
		for _, large := range []bool{false, true} {
			t.Run(way+map[bool]string{false: ", silent", true: ", in an event"}[large], func(t *testing.T) {
				t.Parallel()
				hub, remote := link(t)
				f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.socket = heartbeat, hub.listen(t) })
				c := remote.open(t, f.site, "alice")
				c.hello()
				f.tell("alice", "message", "1")
				c.wantTold("1")
				if large {
					const size = 24 << 20 // more than the kernels hold
					e := f.tell("alice", "message", text(size))
					for c.line() != "id: "+e.Cursor.String()+"\n" { // a heartbeat may have come before it
					}
					c.expect("data: " + text(size)[:100_000])
				}
				remote.ip(t, vanish...)
				began := time.Now()
				eventually(t, "it is gone", func() bool { return f.hub.Stats.Streams.Load() == 0 })
				took := time.Since(began)
				t.Logf("gone after %v", took)
				if took < heartbeat || took > 15*heartbeat {
					t.Errorf("gone after %v, want two heartbeats of %v and somewhat more", took, heartbeat)
				}
			})
		}
	}
}

// A network is a namespace of its own: what is done in it is done by a thread that nobody else uses. It goes with the test, or with
// the process.
type network struct {
	deeds  chan func()
	thread int
}

// link makes two networks with a link between them, whose ends are called hub and client.
func link(t *testing.T) (hub, client *network) {
	t.Helper()
	if _, err := osexec.LookPath("ip"); err != nil {
		unavailable(t, "ip is not installed: apt install iproute2 (Debian)")
	}
	hub, client = newNetwork(t), newNetwork(t)
	hub.ip(t, "link", "add", "hub", "type", "veth", "peer", "name", "client", "netns", strconv.Itoa(client.thread))
	hub.ip(t, "address", "add", "10.0.0.1/24", "dev", "hub")
	client.ip(t, "address", "add", "10.0.0.2/24", "dev", "client")
	hub.ip(t, "link", "set", "hub", "up")
	client.ip(t, "link", "set", "client", "up")
	return hub, client
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{deeds: make(chan func())}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: so the thread ends with this goroutine
		n.thread = unix.Gettid()
		made <- unix.Unshare(unix.CLONE_NEWNET)
		for deed := range n.deeds {
			deed()
		}
	}()
	t.Cleanup(func() { close(n.deeds) })
	if err := dbtest.Receive(t, made, "a network namespace"); err != nil {
		unavailable(t, "no network namespace can be made; root can: "+err.Error())
	}
	return n
}

// unavailable skips the test where something is missing, but not in CI: there that would hide that nothing was tested.
func unavailable(t *testing.T, missing string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}

// do runs something there. A deed that hangs ends the test and not the thread.
func (n *network) do(t *testing.T, deed func()) {
	t.Helper()
	done := make(chan struct{})
	n.deeds <- func() {
		defer close(done)
		deed()
	}
	dbtest.Receive(t, done, "what is done in another network namespace")
}

// ip runs the command of that name there: a process begins where the thread is that starts it.
func (n *network) ip(t *testing.T, args ...string) {
	t.Helper()
	n.do(t, func() {
		if out, err := osexec.CommandContext(dbtest.Context(t), "ip", args...).CombinedOutput(); err != nil {
			t.Errorf("ip %v: %v\n%s", args, err, out)
		}
	})
}

func (n *network) listen(t *testing.T) (socket net.Listener) {
	t.Helper()
	var err error
	n.do(t, func() { socket, err = net.Listen("tcp", "10.0.0.1:0") })
	if err != nil {
		t.Fatal(err)
	}
	return socket
}

func (n *network) open(t *testing.T, s *site, recipient string) *client {
	t.Helper()
	var conn net.Conn
	var err error
	n.do(t, func() { conn, err = dial(s.url, request{recipients: []string{recipient}}) })
	if err != nil {
		t.Fatal(err)
	}
	return begin(t, conn)
}
