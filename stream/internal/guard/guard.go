// Package guard ties a value to the lock that guards it. The compiler then keeps other packages from the value unless
// they lock it.
package guard

import "sync"

// A Value is a T that is reached only by locking it. The zero Value holds the zero T and is unlocked. It must not be
// copied.
type Value[T any] struct {
	mu    sync.Mutex
	value T
}

// Lock locks the value and returns it. The caller must not use it after Unlock.
func (v *Value[T]) Lock() *T {
	v.mu.Lock()
	return &v.value
}

// Unlock unlocks the value.
func (v *Value[T]) Unlock() { v.mu.Unlock() }
