//go:build !linux

package listener

import "time"

// nap sleeps. On some systems, it can take a millisecond longer.
func nap(d time.Duration) { time.Sleep(d) }
