package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/listener/failures"
)

// authenticateFrom authenticates a request that comes from the address remote and has a cookie.
func (a *fakeApp) authenticateFrom(t *testing.T, remote, cookie string, headers ...string) (err error) {
	r := newRequest(t.Context(), append(headers, "Cookie", cookie)...)
	r.RemoteAddr = remote
	_, err = a.Authenticate(r)
	return err
}

// slowAnswer is the time that a slow app takes to answer.
const slowAnswer = 2 * time.Second

// answerSlowly makes the app wait for the time slowAnswer before it answers.
func (a *fakeApp) answerSlowly() {
	a.answer = func(cookie string) string {
		time.Sleep(slowAnswer)
		return acceptCookie(cookie)
	}
}

// flood calls authenticate n times at once, each time with another cookie. It returns when all calls wait, either for
// the app or for a slot.
func flood(n int, authenticate func(i int, cookie string)) *sync.WaitGroup {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { authenticate(i, fmt.Sprint("flood ", i)) })
	}
	synctest.Wait()
	return &all
}

// Of a hundred requests from one address or one IPv6 network, eight run at once, and the others wait. A request from
// another address or network does not wait.
func TestShareOfAnAddress(t *testing.T) {
	t.Parallel()
	same := func(address string) func(int) string { return func(int) string { return address } }
	for name, tt := range map[string]struct {
		remote    func(i int) string // the addresses of the hundred requests
		forwarded string             // the X-Forwarded-For header of the hundred requests
		other     string             // the address of the other request
	}{
		"IPv4":              {same("192.0.2.1:1"), "", "192.0.2.2:1"},
		"an IPv6 network":   {func(i int) string { return fmt.Sprintf("[2001:db8::%x]:1", i+1) }, "", "[2001:db8:0:1::1]:1"},
		"a forged header":   {same("192.0.2.1:1"), "192.0.2.2", "192.0.2.2:1"},
		"no address at all": {same("@"), "", "192.0.2.2:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newFakeApp(acceptCookie)
				a.answerSlowly()
				many := flood(100, func(i int, cookie string) {
					_ = a.authenticateFrom(t, tt.remote(i), cookie, "X-Forwarded-For", tt.forwarded)
				})
				if got := a.requests.Load(); got != 8 {
					t.Errorf("%d requests of one address are running, want 8", got)
				}
				began := time.Now()
				err := a.authenticateFrom(t, tt.other, "alice")
				if took := time.Since(began); err != nil || took != slowAnswer {
					t.Errorf("the request from the other address took %v and returned %v, want %v and no error", took, err, slowAnswer)
				}
				many.Wait()
				if got := a.requests.Load(); got != 8*3+1 { // the flood sends 8 at 0, 2 and 4 s, before the Timeout of 5 s
					t.Errorf("%d requests were sent, want 25", got)
				}
				if len(a.slots.addresses) != 0 {
					t.Errorf("%d addresses without a request are kept, want none", len(a.slots.addresses))
				}
			})
		})
	}
}

// If a client disconnects while its request waits for a slot, the request is given up, so that such requests cannot fill
// the memory. A request that another client shares continues, and a request that was sent runs to its end. A client that
// returns shares it.
func TestClientsDisconnectWhileTheyWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeApp(acceptCookie)
		a.mayAnswer = make(chan struct{})
		ctx, disconnect := context.WithCancel(t.Context())
		var shared, returned sync.WaitGroup
		shared.Go(func() { _, _ = a.Authenticate(newRequest(ctx, "Cookie", "sent")) })
		synctest.Wait()
		gone := flood(100, func(_ int, cookie string) {
			if _, err := a.Authenticate(newRequest(ctx, "Cookie", cookie)); !errors.Is(err, context.Canceled) {
				t.Errorf("a client that disconnected: got %v, want %v", err, context.Canceled)
			}
		})
		wantUser := func(user string) {
			if grant, err := a.withCookie(t, user); err != nil || grant.User != user {
				t.Errorf("got %+v, %v, want the user %s", grant, err, user)
			}
		}
		shared.Go(func() { _, _ = a.Authenticate(newRequest(ctx, "Cookie", "alice")) })
		shared.Go(func() { wantUser("alice") })
		synctest.Wait()
		disconnect()
		gone.Wait()
		synctest.Wait()
		for _, own := range a.slots.addresses {
			if own.requests != maxPerAddress+1 {
				t.Errorf("%d requests of the address run or wait, want %d: 8 that were sent, and the shared one", own.requests, maxPerAddress+1)
			}
		}
		returned.Go(func() { wantUser("sent") })
		for range 2 {
			returned.Go(func() { wantUser("new") })
		}
		synctest.Wait()
		close(a.mayAnswer)
		shared.Wait()
		returned.Wait()
		synctest.Wait()
		if got := a.requests.Load(); got != maxPerAddress+2 {
			t.Errorf("%d requests were sent, want %d: 8, and one each for alice and new", got, maxPerAddress+2)
		}
		if n := len(a.opening.callers) + len(a.slots.addresses); n != 0 || a.Failures.Of(failures.AuthURL).Total != 0 {
			t.Errorf("%d requests or addresses are kept, and %d failures are counted, want none", n, a.Failures.Of(failures.AuthURL).Total)
		}
	})
}

// Requests for new streams do not delay renewals, even if a request has the address and the cookie of the stream that
// is renewed.
func TestNewStreamsDoNotDelayRenewals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeApp(acceptCookie)
		grant, err := a.withCookie(t, "alice")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(grant.Expires))
		a.answerSlowly()
		many := flood(100, func(i int, cookie string) { _ = a.authenticateFrom(t, fmt.Sprintf("198.51.100.%d:1", i), cookie) })
		own := flood(100, func(_ int, cookie string) { _, _ = a.withCookie(t, strings.Replace(cookie, "flood 99", "alice", 1)) })
		began := time.Now()
		if _, ok := grant.Renew(t.Context()); !ok || time.Since(began) != slowAnswer {
			t.Errorf("Renew returned %v after %v, want true after %v", ok, time.Since(began), slowAnswer)
		}
		many.Wait()
		own.Wait()
	})
}

// At most 32 requests run at once, renewals included.
func TestRenewalsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeApp(acceptCookie)
		a.mayAnswer = make(chan struct{})
		a.once.Do(a.init)
		c := func(cookie string) credentials { return credentials{cookie: cookie} }
		many := flood(100, func(_ int, cookie string) { a.renew(c(cookie), nil, answer{})(t.Context()) })
		if got := a.requests.Load(); got != 32 {
			t.Errorf("%d renewals are running, want 32", got)
		}
		opening := flood(10, func(_ int, cookie string) { _ = a.authenticateFrom(t, "192.0.2.1:1", "new"+cookie) })
		if got := a.requests.Load(); got != 32 {
			t.Errorf("%d requests are running, want 32", got)
		}
		many.Wait()
		opening.Wait()
	})
}
