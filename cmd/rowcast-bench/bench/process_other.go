//go:build !linux

package bench

import "time"

func processCPU(int) (time.Duration, error)        { return 0, errUnmeasured }
func processMemory(int) (now, peak int64, _ error) { return 0, 0, errUnmeasured }
func resetPeak(int) error                          { return errUnmeasured }
func isBackend(int, string) bool                   { return false }
