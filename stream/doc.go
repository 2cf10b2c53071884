// Package stream sends notifications to browsers as Server-Sent Events, and lets them resume exactly.
//
// A [Hub] is given what was committed ([Hub.Publish]) and serves one stream a request ([Hub.Serve]). What crosses the borders are
// values: [Batch] and [Event] come in, bytes go out; what is no longer in memory it reads back through a [Source]. It knows
// subscribers and HTTP, and no database.
//
// A subscriber that cannot keep up never slows another down and never loses an event: what its socket does not take waits
// in a bounded backlog; when that overflows the stream is closed and the client resumes from its cursor.
//
// Goroutines: Run is one, for heartbeats. A stream is one that waits for its client to go, plus, only meanwhile, one that
// brings it forward from its cursor to the present and one that drains its backlog. All end with the stream.
package stream
