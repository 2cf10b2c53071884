// Package stream sends notifications to browsers as Server-Sent Events, and lets them resume exactly.
//
// A [Hub] is given what was committed ([Hub.Publish]) and serves one stream a request ([Hub.Serve]). What crosses the borders are
// values: [feed.Batch] and [feed.Message] come in, bytes go out; what is no longer in memory it reads back through a [Source]. It knows
// subscribers and HTTP, and no database.
//
// A subscriber that cannot keep up never slows another down and never loses an event: what its socket does not take waits
// in a bounded backlog; when that overflows the stream is closed and the client resumes from its cursor.
//
// Goroutines: Run is one, for heartbeats and the ends of grants. One more watches all plain HTTP/1.1 connections, while there are any,
// for those whose client goes; elsewhere than on Linux, and over TLS, one a stream does. A stream has one that brings it forward from
// its cursor to the present, one that drains its backlog and one that asks whether its grant is renewed, each only meanwhile. A
// broadcast to many is written by one for each processor, which Publish and Send wait for. All end with the streams, or with Run.
package stream
