// Package listener reads the rows that are committed to rowcast.notifications, once each and in causal order, and
// delivers them to a hub.
//
// A [Listener] has two connections. On the first it receives notifications and reads rows. It sleeps in LISTEN while
// there is little to do, and polls while there is much (wakeup.go). A fetch reads the rows that the present snapshot
// shows and the listener's cursor has not seen (page.go, query.go). So the listener finds a row however long the row's
// transaction was open. On the second connection the listener takes the park lock (parklock.go). With PollOnly, a
// listener has only the first connection, and always polls. A [Replayer] reads the rows that the cursor of a single
// client has not seen (replay.go). A [Retention] deletes old rows. Rows, batches and messages are types of the package
// feed.
//
// When PostgreSQL is unreachable, Run connects again, with growing pauses, and continues from its cursor, so no row is
// lost or delivered twice. There are two exceptions: the server has lost delivered rows (in a crash without synchronous
// commit, a failover to a standby that lagged, or a restore), or retention has deleted rows before Run read them. Run
// may then have to continue from another cursor, and the next Batch has a Clamp or a Reset.
//
// # Terms
//
//   - The park lock is an advisory lock of the database. While hubs sleep, one of them normally holds it exclusively.
//     The trigger on the table sends a NOTIFY only if it cannot take the lock shared, that is, while a hub holds the
//     lock or waits for it.
//   - A cursor represents exactly which rows a reader has seen. See the package cursor.
//   - An epoch is a stretch of the server's history without a restart, crash recovery, failover or restore. It is
//     identified by the server, the database, the start time of the server, and a random token in the table
//     rowcast.epoch. The table is UNLOGGED, so PostgreSQL empties it in a crash recovery, and the next listener inserts
//     a new token.
//   - The anchor of a cursor is a row by which a cursor of an earlier epoch is validated: if the row still exists, the
//     cursor is valid. If the reader has seen no row, the anchor is the database.
//   - A safety poll is a fetch without a notification. A sleeping listener makes one each second (Look). It finds rows
//     that came without a notification.
//   - A batch, in this package and in cursor, consists of the rows that a fetch reads from one snapshot. A large batch
//     is read page by page. Each page is delivered as a feed.Batch, so a feed.Batch can end in the middle of a
//     transaction.
//
// # Failures
//
// The failures of each operation below are counted (see the package failures; rowcast shows the counts as
// rowcast_failures_total) and logged. Each kind of log line is limited to five lines at once, and then one line in ten
// seconds; "waiting for PostgreSQL" is limited to three lines at once, and then one line in 30 seconds. The body of
// /readyz shows each operation that fails at present: the seconds since its first and its last failure, the number of
// failures, and the SQLSTATE if PostgreSQL sent one.
//
//	operation     what fails                                     pause before a retry          log line
//	connect       opening the first connection                   0.1 s, doubled up to 5 s      cannot connect to PostgreSQL; while rowcast
//	                                                                                           starts: waiting for PostgreSQL
//	park_lock     opening or keeping the second connection       like connect                  cannot connect to PostgreSQL, or
//	                                                                                           lost connection to PostgreSQL
//	fetch         reading rows, or keeping the first connection  like connect                  cannot read from PostgreSQL, or
//	                                                                                           lost connection to PostgreSQL
//	history       reading the row of rowcast.history             none: each fetch reads it     rowcast.history is empty: run rowcast migrate; …
//	retention     deleting old rows                              Every (1 min)                 cannot delete old rows
//	replay        reading a page of the rows a client missed     0.1 s, doubled up to 5 s      cannot resume a stream; retrying
//	check_cursor  validating a cursor of another epoch           like replay                   like replay
//	catch_up      waiting for the hub to catch up with a client  like replay                   like replay
//	park_queue    waiting in the queue for the park lock         0.25 s, doubled up to 8 s     cannot queue for the park lock
//	unpark        notifying the hubs of a released park lock     no retry: the hubs notice it  cannot notify the other hubs of the released park lock
//	disconnect    notifying the other hubs of a disconnect       no retry: the app gets 503    cannot notify other hubs to disconnect a recipient
//
// The pauses of connect, park_lock, fetch, replay, check_cursor and catch_up have jitter, which makes each of them from
// half to one and a half times as long.
//
// The hub itself attempts the first five operations again and again. Such an operation counts as failing from its first
// failure until it succeeds. The other operations are attempted only when they are needed, some of them for several
// streams at a time. Such an operation counts as failing for 2 minutes after its last failure, because there may be no
// further attempt. If it has succeeded since its last failure, it counts as failing for 20 seconds after that failure.
// The success alone does not prove that the cause is gone, because another stream may have succeeded.
//
// Run reads and delivers in one goroutine. While the second connection waits, for example for the lock, another
// goroutine uses it (parklock.go). That goroutine ends before the session ends.
package listener
