package stream_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	osexec "os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"rowcast/listener/feed"
)

// clientsVariable names an environment variable. If the variable is set, this test binary only runs clients. Tests
// start the binary as a second process, so that they measure the resources of the hub without the clients.
const clientsVariable = "ROWCAST_TEST_CLIENTS"

// runClients requests streams, and reads and ignores what they receive. It prints a line after the last request, and
// returns when its standard input ends. The arguments are a URL and the number of streams.
func runClients(arguments string) error {
	url, count, _ := strings.Cut(arguments, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	for range n {
		stream, err := openStream(url)
		if err != nil {
			return err
		}
		go func() {
			var buffer [4 << 10]byte
			for {
				if _, err := stream.Read(buffer[:]); err != nil {
					return
				}
			}
		}()
	}
	fmt.Println("open")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// openStream requests a stream over a new connection. With TLS, client and server negotiate the protocol.
func openStream(url string) (io.Reader, error) {
	if !strings.HasPrefix(url, "https") {
		conn, err := dial(url, request{recipients: []string{"alice"}})
		if err != nil {
			return nil, err
		}
		return conn, conn.SetDeadline(time.Time{})
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	response, err := (&http.Client{Transport: transport}).Get(url + "?recipient=alice")
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// startClients starts a process that runs n clients, and waits until their streams are live.
func startClients(t testing.TB, f *fakeFeed, n int) {
	t.Helper()
	clients := osexec.Command(os.Args[0])
	clients.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", clientsVariable, f.url, n))
	in, err := clients.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := clients.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := clients.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = clients.Process.Kill(); _ = clients.Wait() })
	limit := time.AfterFunc(2*patience, func() { _ = clients.Process.Kill() })
	defer limit.Stop()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "open\n" {
		t.Fatalf("the clients printed %q (%v), want open", line, err)
	}
	f.allLive(t, n)
}

// allLive waits until n streams are live. It sends messages to everyone until a message reaches n streams, and then
// sets Stats.Sent to 0.
func (f *fakeFeed) allLive(t testing.TB, n int) {
	t.Helper()
	eventually(t, "all streams are live", func() bool {
		before := f.hub.Stats.Sent.Load()
		f.hub.Send(feed.Message{Recipient: everyone, Data: []byte("1")})
		return f.hub.Stats.Sent.Load()-before == int64(n)
	})
	f.hub.Stats.Sent.Store(0)
}
