package dbtest

import (
	"context"
	"testing"
	"time"
)

// patience is the time limit of a wait in a test. It is long enough for a loaded machine.
const patience = 2 * time.Minute

// Context returns the test's context with a time limit that begins now. A test that waits with this context does not
// hang if the event that it waits for never happens.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// Receive returns the next value from a channel, or the zero value when the channel is closed. After 2 minutes, it
// fails the test with what the test waited for.
func Receive[T any](t testing.TB, channel <-chan T, what string) T {
	t.Helper()
	select {
	case value := <-channel:
		return value
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
		panic("unreachable")
	}
}

// Wait calls wait, such as the Wait of a sync.WaitGroup, and returns when wait returns. After 2 minutes, it fails the
// test with what the test waited for.
func Wait(t testing.TB, wait func(), what string) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		wait()
	}()
	Receive(t, done, what)
}
