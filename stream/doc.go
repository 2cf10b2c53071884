// Package stream sends notifications to browsers as Server-Sent Events, and lets clients resume without a gap and
// without a repetition.
//
// A [Hub] receives committed rows by [Hub.Publish] and NOTIFY messages by [Hub.Send]. [Hub.Serve] answers an HTTP
// request with a stream. The Hub reads rows that it no longer has in memory through a [Source]. The package knows HTTP
// and streams, and no database.
//
// A slow client does not delay other clients and does not miss an event. Events that its connection does not accept
// wait in a backlog. When the backlog reaches its limit, the stream is closed, and the client reconnects and resumes
// from its cursor.
//
// These terms are used in the code:
//
//   - A cursor describes which rows a client has received. Its text is the id of each event. See package rowcast/listener/cursor.
//   - The stream is joining while it sends what its client has missed since its cursor. After that it is live and receives events as
//     they are published.
//   - The memory of a Hub holds recent events, so that most clients resume without a query.
//   - The backlog of a stream holds the events that are pending: they are published, and the client has not accepted them.
//   - An epoch is a period in which the server lost no committed row. A crash recovery or a failover begins the next one.
//   - A frame is an encoded event. A run is several frames for the same streams, which are written together.
//   - A lease is the end of a stream's grant.
//
// [Hub.Run] is one goroutine. It sends heartbeats and ends the streams whose grants have expired. One more goroutine
// notices when clients disconnect. For streams over TLS or HTTP/2, and on systems other than Linux, each stream has a
// goroutine for that. A stream has further goroutines only while it is joining, while it has a backlog, and while its
// grant is being renewed. An event for many streams is written by one goroutine for each processor, and Publish and
// Send wait for these. All goroutines end with the streams or with Run.
package stream
