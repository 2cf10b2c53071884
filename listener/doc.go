// Package listener reads what is committed to rowcast.notifications, once each and in causal order, and hands it on.
//
// A [Listener] owns the road from the table: it is woken by NOTIFY while there is little to do and polls while there is much
// (see park.go for the protocol between it and the table's trigger), and it reads the difference between two snapshots
// (fetch.go), so that a row is found however long its transaction was open. A [Replayer] reads for a single subscriber what
// its cursor has not seen (replay.go). What crosses the border are values: [Row], [Batch], [Message] and the cursors in them.
//
// When PostgreSQL goes away, Run reconnects for ever, with backoff and jitter, and goes on from its cursor: nothing is lost
// and nothing is handed out twice. Only if the server itself has taken back what it had committed (a crash without
// synchronous commit, a failover to a standby that lagged) does a Batch say so.
//
// Goroutines: Run is one; while the park lock is waited for or held there is a second, which ends with the session.
package listener
