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

// crowdVariable makes this test binary a crowd of clients: what they cost is then not the hub's.
const crowdVariable = "ROWCAST_TEST_CROWD"

// beCrowd opens as many streams as it is told, says so, and reads and looks at nothing until its input ends.
func beCrowd(told string) error {
	url, count, _ := strings.Cut(told, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	for range n {
		stream, err := join(url)
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
	fmt.Println("here")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// join opens a stream over a connection of its own, with TLS by the protocol on which the two agree.
func join(url string) (io.Reader, error) {
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

// startCrowd starts a process of clients and waits until all are live.
func startCrowd(t testing.TB, f *fakeFeed, n int) {
	t.Helper()
	crowd := osexec.Command(os.Args[0])
	crowd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", crowdVariable, f.url, n))
	in, err := crowd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := crowd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := crowd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = crowd.Process.Kill(); _ = crowd.Wait() })
	limit := time.AfterFunc(2*patience, func() { _ = crowd.Process.Kill() })
	defer limit.Stop()
	if said, err := bufio.NewReader(out).ReadString('\n'); err != nil || said != "here\n" {
		t.Fatalf("wait for the crowd to open its streams: it says %q, %v", said, err)
	}
	f.allLive(t, n)
}

// allLive waits until so many are live: who has come last may still be joining.
func (f *fakeFeed) allLive(t testing.TB, n int) {
	t.Helper()
	eventually(t, "all are live", func() bool {
		before := f.hub.Stats.Sent.Load()
		f.hub.Send(feed.Message{Data: []byte("1")})
		return f.hub.Stats.Sent.Load()-before == int64(n)
	})
	f.hub.Stats.Sent.Store(0)
}
