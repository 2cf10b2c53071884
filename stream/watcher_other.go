//go:build !linux

package stream

// A watcher can watch nothing here: a goroutine waits for each client to go.
type watcher struct{ gone func(*subscriber) }

func (*watcher) watch(descriptor, *subscriber) bool { return false }
