//go:build !linux

package wire

// A poller can watch nothing here: a goroutine waits for each client.
type poller[T any] struct{}

func (*poller[T]) add(*socket, T, func(T)) bool { return false }
