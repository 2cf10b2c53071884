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

// The stream of a client that vanishes without closing its connection is closed after about two heartbeat intervals.
// This holds for an idle stream and in the middle of an event, and whether or not the hub's machine can see that the
// link is down. The two heartbeat intervals begin with the first bytes that the client does not acknowledge. The test
// allows up to 15 intervals, for a busy machine.
func TestAClientThatVanishes(t *testing.T) {
	t.Parallel()
	const heartbeat = time.Second
	failures := map[string][]string{
		"the link is down":    {"link", "set", "client", "down"},
		"the address is gone": {"address", "flush", "dev", "client"},
	}
	for failure, vanish := range failures {
		for _, large := range []bool{false, true} {
			t.Run(failure+map[bool]string{false: ", idle", true: ", in an event"}[large], func(t *testing.T) {
				t.Parallel()
				hub, remote := link(t)
				f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.socket = heartbeat, hub.listen(t) })
				c := remote.open(t, f.site, "alice")
				c.hello()
				f.publish("alice", "message", "1")
				c.wantData("1")
				if large {
					const size = 24 << 20 // more than the buffers of both sockets
					f.publish("alice", "message", text(size))
					c.skipBeats()
					c.expect("data: " + text(size)[:100_000])
				}
				began := time.Now()
				remote.ip(t, vanish...)
				eventually(t, "the stream is closed", func() bool { return f.hub.Stats.Streams.Load() == 0 })
				took := time.Since(began)
				t.Logf("closed after %v", took)
				if took < heartbeat || took > 15*heartbeat {
					t.Errorf("closed after %v, want from 1 to 15 heartbeat intervals of %v", took, heartbeat)
				}
			})
		}
	}
}

// A network is a network namespace. A thread that is used for nothing else executes the actions in it. The namespace
// ends with the test or the process.
type network struct {
	actions chan func()
	thread  int
}

// link returns two networks that are connected by a link. The ends of the link are called hub and client.
func link(t *testing.T) (hub, client *network) {
	t.Helper()
	dbtest.Program(t, "iproute2", "ip")
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
	n := &network{actions: make(chan func())}
	created := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // The thread is never unlocked, so it ends with this goroutine.
		n.thread = unix.Gettid()
		created <- unix.Unshare(unix.CLONE_NEWNET)
		for action := range n.actions {
			action()
		}
	}()
	t.Cleanup(func() { close(n.actions) })
	if err := dbtest.Receive(t, created, "a network namespace"); err != nil {
		if os.Geteuid() != 0 {
			t.Skip("only root can create a network namespace")
		}
		dbtest.Missing(t, "cannot create a network namespace: "+err.Error())
	}
	return n
}

// do executes an action in the network. If the action does not return in time, the test fails.
func (n *network) do(t *testing.T, action func()) {
	t.Helper()
	done := make(chan struct{})
	n.actions <- func() {
		defer close(done)
		action()
	}
	dbtest.Receive(t, done, "an action in a network namespace")
}

// ip runs the command ip in the network. A process is in the network of the thread that starts it.
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
