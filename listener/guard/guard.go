// Package guard ties a value to its lock. Other packages can reach the value only through methods that take the lock.
package guard

import "sync"

// A Value has a value of type T, which can be reached only while the lock is held. The zero Value has the zero value of
// T and is unlocked. A Value must not be copied after its first use.
type Value[T any] struct {
	mu    sync.Mutex
	value T
}

// Do calls use while the lock is held. The pointer must not be used after use has returned.
func (v *Value[T]) Do(use func(*T)) {
	defer v.Unlock()
	use(v.Lock())
}

// Lock locks the value and returns it. The pointer must not be used after Unlock.
func (v *Value[T]) Lock() *T {
	v.mu.Lock()
	return &v.value
}

// Unlock unlocks the value.
func (v *Value[T]) Unlock() { v.mu.Unlock() }
