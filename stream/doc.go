// Package stream sends notifications to browsers as Server-Sent Events, and lets clients resume without a gap and
// without a repetition.
//
// A [Hub] receives committed rows by [Hub.Publish] and NOTIFY messages by [Hub.Send]. [Hub.Serve] answers an HTTP
// request with a stream. The Hub reads rows that it no longer has in memory through a [Source]. The package knows HTTP
// and streams, and no database.
//
// A slow client does not delay other clients and does not miss a row. Events that its connection does not accept wait
// in a backlog. If the backlog would exceed its limit, the stream is closed, and the client reconnects and resumes
// from its cursor.
//
// These terms are used in the code:
//
//   - A cursor describes which rows a client has received. Each event of a row has a cursor as its id. See package
//     rowcast/listener/cursor.
//   - The anchor of a cursor is a row of the highest transaction that the cursor has seen. If the cursor has seen no
//     row, its anchor is the database. A cursor of an earlier epoch is valid if its anchor still exists.
//   - A stream is joining while it sends the events that its client has missed since the client's cursor. After that it
//     is live and receives events as they are published.
//   - The memory of a Hub holds the events of recent rows, so that most clients resume without a query.
//   - The backlog of a stream holds pending events: they have been published, and the client has not accepted them.
//   - An epoch is a stretch of the server's history without a restart, crash recovery, failover or restore. Within an
//     epoch, the server loses no committed row.
//   - A frame is an encoded event. A run is one or more frames that are written together to the same streams.
//   - A lease records when the grant of a stream ends.
//
// [Hub.Run] is one goroutine. It sends heartbeats and ends the streams whose grants have expired. On Linux, one
// goroutine notices when clients of plain HTTP/1.1 streams disconnect. Each other stream has a goroutine for this, for
// example over TLS or HTTP/2, or on another system. A stream has further goroutines only while it is joining, while it
// has a backlog, and while its grant is being renewed. An event for many streams is written by up to one goroutine for
// each processor, and Publish and Send wait for these goroutines. All goroutines end with the streams or with Run.
package stream
