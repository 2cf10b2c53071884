package server

import (
	"errors"
	"log/slog"
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// memoryShare is the part of the cgroup's memory that the Go runtime may use. The rest is for what it does not count.
const memoryShare = 0.9

// LimitMemory sets the limit that makes the Go runtime collect garbage earlier before the kernel kills the process: GOMEMLIMIT, or
// else a share of the cgroup's limit. It returns the limit in bytes, or math.MaxInt64 if there is none.
func LimitMemory(logger *slog.Logger) int64 {
	// Most of a hub's heap is remembered events, which the collector need not look into. So garbage may be half as much as the heap.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	limit, err := memlimit.Set(memlimit.WithRatio(memoryShare))
	switch {
	case errors.Is(err, memlimit.ErrNoCgroup), errors.Is(err, memlimit.ErrCgroupsNotSupported):
	case err != nil:
		logger.Warn("cannot read the memory limit of the cgroup; GOMEMLIMIT sets one by hand", "error", err)
	case limit < math.MaxInt64:
		logger.Info("memory limit of the Go runtime", "bytes", limit)
	}
	return limit
}

// DefaultPending returns the default of Hub.Pending: a quarter of the memory limit, at most 256 MiB.
func DefaultPending(limit int64) int { return int(min(limit/4, 256<<20)) }
