// Package guard keeps values that several goroutines use. A value can be reached only while its lock is held.
package guard

import "sync"

// A Value is a value with its lock. The zero Value holds the zero value of T.
type Value[T any] struct {
	mu    sync.Mutex
	value T
}

// Do calls use while the lock is held. The pointer must not be kept after use has returned.
func (v *Value[T]) Do(use func(*T)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	use(&v.value)
}
