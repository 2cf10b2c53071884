package server

import (
	"fmt"
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
	if s.noLimit = err; err != nil {
		return err
	}
	s.Hub.Limits.Streams, s.idle = d.streams, newIdleConns(d.idle)
	s.Hub.Polling = s.beginPoll
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
	if d.streams+replays-1 < 1 { // too few, even with a single connection for replays
		return division{}, fmt.Errorf("this process may have only %d open files, which leaves none for streams: %s", all, howToRaise)
	}
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
