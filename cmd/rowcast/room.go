package main

import "fmt"

// manyDescriptors stands for no limit.
const manyDescriptors = 1 << 20

// ownConnections are those to the database besides replays: the listener's two, and one each for retention and for /disconnect.
const ownConnections = 4

// A room is how the descriptors that a process may have are shared out. What is left is for the database, the sockets that are
// listened at, and connections that are just being closed.
type room struct {
	streams int
	lobby   int // connections that are no stream
}

// shareOut decides for so many streams, or with 0 for as many as there is room for.
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
