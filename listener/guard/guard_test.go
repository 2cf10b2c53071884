package guard_test

import (
	"sync"
	"testing"

	"rowcast/listener/guard"
)

func TestValueIsUsedByOneGoroutineAtATime(t *testing.T) {
	t.Parallel()
	var v guard.Value[map[int]int]
	v.Do(func(m *map[int]int) { *m = map[int]int{} })
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() { v.Do(func(m *map[int]int) { (*m)[i%10]++ }) })
	}
	all.Wait()
	v.Do(func(m *map[int]int) {
		for i := range 10 {
			if (*m)[i] != 10 {
				t.Errorf("counted %d, want 10", (*m)[i])
			}
		}
	})
}

func TestValueIsUnlockedAfterAPanic(t *testing.T) {
	t.Parallel()
	var v guard.Value[int]
	func() {
		defer func() { _ = recover() }()
		v.Do(func(*int) { panic("in use") })
	}()
	v.Do(func(*int) {}) // waits forever if the value is still locked
}
