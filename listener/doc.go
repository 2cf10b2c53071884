// Package listener reads what is committed to rowcast.notifications, once each and in causal order, and hands it on.
//
// A [Listener] owns the road from the table: it is woken by NOTIFY while there is little to do and polls while there is much
// (see park.go for the protocol between it and the table's trigger), and it reads the difference between two snapshots
// (fetch.go), so that a row is found however long its transaction was open. A [Replayer] reads for a single subscriber what
// its cursor has not seen (replay.go). Rows, batches and messages are types of the package feed.
//
// When PostgreSQL goes away, Run reconnects for ever, with backoff and jitter, and goes on from its cursor: nothing is lost
// and nothing is handed out twice. Only if the server itself has taken back what it had committed (a crash without
// synchronous commit, a failover to a standby that lagged) does a Batch say so.
//
// # What is tried again
//
// Nothing fails silently. Each failure is counted by its operation (see the package failures; rowcast shows the counts as
// rowcast_failures_total), and is logged, but not more often than about once in ten seconds for each kind. The body of /readyz shows
// each operation that fails at present: since when, when it last failed, how often in between, and the SQLSTATE.
//
//	operation   what is tried again                          pauses                         log line
//	connect     the listener's connection                    0.1 s, doubled up to 5 s       cannot connect to PostgreSQL, or before
//	                                                                                        the first one waiting for PostgreSQL
//	park_lock   its second connection, for the park lock     as connect                     cannot connect to PostgreSQL
//	fetch       reading new rows, in a new session           as connect                     cannot read from PostgreSQL, or
//	                                                                                        lost connection to PostgreSQL
//	history     nothing: somebody has emptied the table      -                              rowcast.history is empty: run rowcast migrate
//	retention   deleting old rows                            Every (1 min)                  old rows could not be deleted
//	replay      reading a page of what a client missed       0.1 s, doubled up to 5 s       cannot resume a stream; retrying
//	check_cursor  checking a cursor of another epoch         as replay                      the same
//	catch_up    waiting until the hub has seen as much       as replay                      the same
//	park_queue  waiting for the park lock                    until writers overlap again    cannot queue for the park lock
//	unpark      telling the other hubs to park again         none: they find out in 1 s     cannot notify the other hubs
//	disconnect  telling the other hubs whom to disconnect    none: the caller is told 503   other hubs were not told to disconnect
//
// All pauses but Every have jitter, from half to one and a half times their length.
//
// The first five operations are attempted by the hub itself until they succeed: they are failing until then. The others are attempted
// when there is occasion, and several at a time. Each of them is failing until 2 minutes have passed since its last failure, because
// perhaps nobody attempts it again. If it has succeeded since, 20 seconds are enough: then the success may be another stream's.
//
// Goroutines: Run is one; while the park lock is waited for or held there is a second, which ends with the session.
package listener
