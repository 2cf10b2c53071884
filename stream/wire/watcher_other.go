//go:build !linux

package wire

// A poller watches no sockets on this system. Instead, a goroutine waits for each client.
type poller[T any] struct{}

func (*poller[T]) add(*socket, T, func(T)) bool { return false }
