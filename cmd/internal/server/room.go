package server

import "fmt"

// manyDescriptors stands for no limit.
const manyDescriptors = 1 << 20

// ownConnections are the connections to PostgreSQL besides replays: two of the listener, one of retention and one of /disconnect.
const ownConnections = 4

// LimitStreams limits the streams to a number, or with 0 to as many as the limit of open files allows. Replays must be set before.
func (s *Server) LimitStreams(streams int) error {
	r, err := shareOut(descriptors(), streams, s.Replays)
	if err != nil {
		return err
	}
	s.Hub.Limits.Streams, s.lobby = r.streams, newLobby(r.lobby)
	return nil
}

// A room says how the file descriptors of the process are used. The rest is for the database, the listening sockets and connections
// that are being closed.
type room struct {
	streams int
	lobby   int // connections that are no stream
}

// shareOut divides the descriptors for a number of streams, or with 0 for as many streams as possible.
func shareOut(descriptors uint64, streams, replays int) (room, error) {
	all := int(min(descriptors, manyDescriptors))
	rest := min(64, all/4) + replays + ownConnections
	r := room{lobby: min(max(all/8, 16), 4096)}
	r.streams = all - rest - r.lobby
	if r.streams < 1 {
		return room{}, fmt.Errorf("--replays: with %d connections for replays, the open files that this process may have (%d) leave none for streams: lower --replays, or raise the limit (ulimit -n, or LimitNOFILE= of systemd)",
			replays, all)
	}
	if streams > r.streams {
		return room{}, fmt.Errorf("--max-connections: for %d streams this process may have too few files open, %d: raise the limit by %d (ulimit -n, or LimitNOFILE= of systemd)",
			streams, all, streams-r.streams)
	}
	if streams > 0 {
		r.streams = streams
	}
	return r, nil
}
