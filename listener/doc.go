// Package listener reads the rows that are committed to rowcast.notifications, once each and in causal order, and
// delivers them to a hub.
//
// A [Listener] has two connections. On the first it receives notifications and reads rows. It sleeps in LISTEN while
// there is little to do, and polls while there is much (wakeup.go). A fetch reads the rows that the present snapshot
// shows and the listener's cursor has not seen (page.go, query.go). So it finds a row however long the row's
// transaction was open. On the second connection the listener takes the park lock (parklock.go). A [Replayer] reads
// the rows that the cursor of a single client has not seen (replay.go). A [Retention] deletes old rows. Rows, batches
// and messages are types of the package feed.
//
// When PostgreSQL is unreachable, Run connects again, with growing pauses, and goes on from its cursor. No row is
// lost or delivered twice. If the server has lost rows that it had committed (a crash without synchronous commit, a
// failover to a standby that lagged, a restore), a Batch reports it.
//
// # Terms
//
//   - The park lock is an advisory lock of the database. A hub holds it exclusively while it sleeps. The trigger on the table sends a NOTIFY
//     only if it cannot take the lock shared, that is, while a hub sleeps.
//   - A cursor represents exactly which rows a reader has seen. See the package cursor.
//   - An epoch is a stretch of the server's history without a crash recovery, failover or restore. Each epoch has a random token in the table
//     rowcast.epoch. The table is UNLOGGED, so PostgreSQL empties it in a recovery, and the next listener begins a new epoch.
//   - The anchor of a cursor is a row by which a cursor of an earlier epoch is validated: if the row still exists, the cursor is valid.
//   - A safety poll is a fetch after Look (1 s) without a notification. It finds rows that came without one.
//   - A batch is what one fetch has read. Large batches come in several pages.
//
// # What is tried again
//
// Nothing fails silently. Each failure is counted by its operation (see the package failures; rowcast shows the
// counts as rowcast_failures_total). It is logged, for each kind at most about once in ten seconds. The body of
// /readyz shows each operation that fails at present: the times of its first and its last failure, the number of
// failures, and the SQLSTATE.
//
//	operation     what is tried again                            pauses                        log line
//	connect       opening the first connection                   0.1 s, doubled up to 5 s      cannot connect to PostgreSQL, or before
//	                                                                                           the first success waiting for PostgreSQL
//	park_lock     opening the second connection                  as connect                    cannot connect to PostgreSQL
//	fetch         reading new rows, in a new session             as connect                    cannot read from PostgreSQL, or
//	                                                                                           lost connection to PostgreSQL
//	history       nothing: rowcast.history has lost its row      -                             rowcast.history is empty: run rowcast migrate
//	retention     deleting old rows                              Every (1 min)                 cannot delete old rows
//	replay        reading a page of the rows a client missed     0.1 s, doubled up to 5 s      cannot resume a stream; retrying
//	check_cursor  validating a cursor of another epoch           as replay                     the same
//	catch_up      waiting until the hub has read as much         as replay                     the same
//	park_queue    waiting in the queue for the park lock         until writers overlap again   cannot queue for the park lock
//	unpark        notifying the hubs of a released park lock     none: they notice in 1 s      cannot notify the other hubs
//	disconnect    notifying the other hubs of a disconnect       none: the caller gets 503     cannot notify other hubs to disconnect a recipient
//
// All pauses but Every have jitter: they are between half and one and a half times as long.
//
// The hub itself attempts the first five operations until they succeed. They count as failing until then. The other
// operations are attempted on demand, several at a time. Such an operation counts as failing for 2 minutes after its
// last failure, because there may be no further attempt. If it has succeeded since the failure, it counts as failing
// for 20 seconds: the success may have been another stream's.
//
// Run uses one goroutine. While the park lock is waited for or held, there is a second one, which ends with the
// session.
package listener
