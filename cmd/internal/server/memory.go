package server

import (
	"errors"
	"log/slog"
	"math"
	"net/http"
	"os"
	"runtime/debug"
	"sync"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// memoryShare is the part of the cgroup's memory limit that the Go runtime may use, unless the environment variable
// AUTOMEMLIMIT sets another. The rest is for memory that the runtime does not count.
const memoryShare = 0.9

// LimitMemory sets the memory limit of the Go runtime. Near the limit, the runtime collects garbage more often, so that
// the kernel does not kill the process. The limit is GOMEMLIMIT or, if that is not set, a share of the cgroup's limit.
// LimitMemory returns the limit in bytes, or math.MaxInt64 if there is none.
func LimitMemory(logger *slog.Logger) int64 {
	limit, err := memlimit.Set(memlimit.WithRatio(memoryShare))
	switch {
	case errors.Is(err, memlimit.ErrNoCgroup), errors.Is(err, memlimit.ErrCgroupsNotSupported):
	case err != nil:
		logger.Warn("cannot set a memory limit from the limit of the cgroup; set GOMEMLIMIT instead", "error", err)
	case limit < math.MaxInt64:
		logger.Info("memory limit of the Go runtime", "bytes", limit)
	}
	return limit
}

// LowerMemoryLimit lowers the memory limit of the Go runtime to the most memory that the server should use, as
// cmd/rowcast/README.md says, unless GOMEMLIMIT is set. A server that uses much less collects garbage as seldom as Go
// programs usually do. The fields of the server must be set before the call.
func (s *Server) LowerMemoryLimit() {
	if os.Getenv("GOMEMLIMIT") == "" {
		s.memory.set(debug.SetMemoryLimit(-1), s.maxMemory())
	}
}

// connectionMemory is the most memory of a connection that net/http serves, in bytes: a poll, or a connection without a
// stream. The header of a request can take 20 KB of it.
const connectionMemory = 50_000

// maxMemory returns the most memory that the server should use without polls, in bytes. The sum has four parts: an
// empty process, the events and connections that the server may hold, garbage of half their size, and the inbox.
func (s *Server) maxMemory() int64 {
	events := 1.2*float64(s.Hub.Memory) + 1.125*float64(s.Hub.Pending) + 3*float64(s.Listener.MaxData)*float64(1+s.Replays)
	connections := 3000*float64(s.Hub.Limits.Streams) + connectionMemory*float64(s.idle.max)
	most := int64(12e6 + 1.5*(events+connections))
	if s.Inbox {
		most += 64<<20 + inboxConns*50e6
	}
	return most
}

// beginPoll is called when a poll begins. The caller must call answering before it sends the end of the answer.
func (s *Server) beginPoll(r *http.Request) (answering func()) {
	count, end := s.idle.beginPoll(r), s.memory.begin()
	return func() {
		end()
		count()
	}
}

// A memoryLimit is the memory limit of the Go runtime. It grows with the number of polls, and does not shrink.
type memoryLimit struct {
	mu            sync.Mutex
	base, highest int64 // the limit without polls, and the upper bound of the limit; both are 0 until set is called
	polls         int64 // the number of polls that are open
	room          int64 // the number of polls for which the limit has room
}

// set sets the limit, and lets it grow up to highest. If set is not called, the limit of the runtime does not change.
func (m *memoryLimit) set(highest, base int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.highest, m.base = highest, base
	debug.SetMemoryLimit(min(highest, base))
}

// begin counts a poll. The caller must call end when the poll has ended. A change of the limit stops the program for a
// moment. To change it seldom, begin makes room for a quarter more polls than are open, and for another 100.
func (m *memoryLimit) begin() (end func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.polls++; m.polls > m.room {
		m.room = m.polls + m.polls/4 + 100
		if m.highest > 0 {
			debug.SetMemoryLimit(min(m.highest, m.base+m.room*connectionMemory*3/2))
		}
	}
	return m.end
}

func (m *memoryLimit) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.polls--
}

// DefaultPending returns the default of Hub.Pending for a memory limit: a quarter of it, but at most 256 MiB.
func DefaultPending(limit int64) int { return int(min(limit/4, 256<<20)) }
