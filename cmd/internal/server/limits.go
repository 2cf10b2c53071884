package server

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// maxDescriptors is the maximum number of file descriptors that a hub uses, even if the system allows more.
const maxDescriptors = 1 << 20

// ownConnections is the maximum number of connections to PostgreSQL besides those for replays and for the inbox: two
// for the listener, one for retention and one for /disconnect.
const ownConnections = 4

// LimitStreams sets the maximum number of streams. If streams is 0, the maximum is what the limit of open files allows.
// The fields Replays and Inbox must be set before the call.
func (s *Server) LimitStreams(streams int) error {
	own := ownConnections
	if s.Inbox {
		own += inboxConns
	}
	d, err := divideDescriptors(descriptors(), streams, s.Replays, own)
	if err != nil {
		return err
	}
	s.Hub.Limits.Streams, s.idle = d.streams, newIdleConns(d.idle)
	s.Hub.Polling = s.idle.beginPoll
	return nil
}

// A division says how many file descriptors of the process are for streams and how many for idle connections. The
// remaining ones are for other purposes, such as connections to the database and to the app.
type division struct {
	streams int
	idle    int
}

// divideDescriptors divides the file descriptors of the process. If streams is 0, streams get as many as possible.
// own is the number of connections to PostgreSQL besides those for replays.
func divideDescriptors(available uint64, streams, replays, own int) (division, error) {
	const howToRaise = "raise the limit (ulimit -n, or LimitNOFILE= in a systemd unit)"
	all := int(min(available, maxDescriptors))
	rest := min(64, all/4) + replays + own
	d := division{idle: min(max(all/8, 16), 4096)}
	d.streams = all - rest - d.idle
	if d.streams < 1 {
		return division{}, fmt.Errorf("--replays: %d connections for replays leave no open files for streams, because this process may have only %d: "+
			"lower --replays, or %s", replays, all, howToRaise)
	}
	switch {
	case streams > d.streams && all == maxDescriptors:
		return division{}, fmt.Errorf("--max-connections: a hub uses at most %d open files, which is enough for %d streams, not for %d: "+
			"lower --max-connections, and start more hubs", all, d.streams, streams)
	case streams > d.streams:
		return division{}, fmt.Errorf("--max-connections: this process may have %d open files, which is enough for %d streams, not for %d: "+
			"lower --max-connections, or %s", all, d.streams, streams, howToRaise)
	}
	if streams > 0 {
		d.streams = streams
	}
	return d, nil
}

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
		debug.SetMemoryLimit(min(debug.SetMemoryLimit(-1), s.maxMemory()))
	}
}

// maxMemory returns the most memory that the server should use, in bytes. The sum has four parts: an empty process, the
// events and streams that the server may hold, half as much as these for garbage, and the inbox.
func (s *Server) maxMemory() int64 {
	events := 1.2*float64(s.Hub.Memory) + 1.125*float64(s.Hub.Pending) + 3*float64(s.Listener.MaxData)*float64(1+s.Replays)
	streams := 3000 * float64(s.Hub.Limits.Streams)
	most := int64(12e6 + 1.5*(events+streams))
	if s.Inbox {
		most += 64<<20 + inboxConns*50e6
	}
	return most
}

// DefaultPending returns the default of Hub.Pending for a memory limit: a quarter of it, but at most 256 MiB.
func DefaultPending(limit int64) int { return int(min(limit/4, 256<<20)) }
