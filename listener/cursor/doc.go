// Package cursor represents exactly which rows a reader has seen, in a form that fits into the id of a Server-Sent
// Event.
//
// Row ids are assigned at INSERT, but transactions commit in any order, so "id > last" loses rows. Instead, a [Cursor]
// is a PostgreSQL snapshot: an xmax, at or above which no transaction has been seen, and a list of the transactions
// below it that were in flight. In addition, a cursor can have one transaction in the middle of which the reader has
// stopped. This transaction is called half-delivered.
//
// The package only computes. It knows a row by its transaction number (xid) and its id, and never uses a database.
//
// # Terms
//
// A batch consists of the rows that a new snapshot shows and an old cursor has not seen. The rows are delivered in the
// order of [Cursor.Compare]. A cursor claims a transaction if its reader would not receive the rows of the transaction
// again. To clamp a cursor means to remove the lost transactions from it ([Cursor.Clamp]). A cursor is whole if it is
// not in the middle of a transaction.
//
// A stream is live once it receives rows as the hub reads them. Before that, a replay reads the rows that the client
// has missed. A beat is the event rowcast.beat, which a hub sends to an idle stream.
//
// An epoch is a stretch of the server's history without a restart, crash recovery, failover or restore.
//
// The anchor of a cursor is a row of the highest transaction that the cursor claims. The anchor carries a tag, a hash
// of the row's id and created_at. If the row still exists, the server has not lost that transaction, and does not
// assign the number of that transaction or a lower number again. If the reader has seen no row, the anchor carries the
// tag of the database.
//
// # Rules
//
// Each rule prevents wrong rows: rows that are lost, repeated, not due or out of order. The model test
// (model_rules_test.go) plays random histories of a database, hubs and clients. It leaves out one rule at a time, and
// expects that clients then receive wrong rows. Comments in the code cite a rule by its number. The brackets after a
// rule name the code that keeps it.
//
// The cursor of a row in a batch:
//
//  1. A cursor lists the transactions in flight, because an xmax alone is not enough. [Cursor]
//  2. Below the transaction of the row, the cursor has not seen what the new snapshot does not show. [inFlight]
//  3. Above the transaction of the row, the cursor has not seen what the old cursor had not seen. [inFlight]
//  4. The xmax does not fall back to the transaction of the row. [Steps.After]
//  5. The xmax does not advance to the xmax of the new snapshot. [Steps.After]
//  6. If the half-delivered transaction is at the xmax, it is below the xmax once the next transaction is delivered. [Cursor.finished]
//
// Hubs and streams:
//
//  7. The rest of a half-delivered transaction is delivered before all other rows. [Cursor.Compare, listener.fetchQuery, listener.replayQuery]
//  8. The id of a replayed row is computed for the client that receives it. [listener.Replayer.Page, package stream]
//  9. A hub catches up with a client that is ahead of it before the stream becomes live. [package stream]
//  10. A stream becomes live only where a transaction ends. [package stream]
//  11. A stream becomes live together with the rows that the hub has received during the replay. [package stream]
//  12. A batch of a hub ends only where a transaction ends. [listener.session.readAll]
//  13. The pages of a batch are read from the same snapshot. [listener.reader.fetch]
//  14. A beat has an id only if no event is pending for the stream. [package stream]
//  15. The id of a beat comes after the last row that was delivered. [package stream]
//
// Web pages and crashes:
//
//  16. The cursor of a web page has not seen the transactions that began after the page's snapshot and before the page's own transaction got its number. [rowcast.cursor in package sql]
//  17. A cursor claims no transaction above the highest one of which a row was read. [Cursor.Reached]
//  18. A cursor of another epoch is valid only if its anchor exists. [listener.isAnchorValid]
//  19. A crash recovery begins another epoch. [rowcast.epoch in package sql]
//  20. After a recovery, a cursor claims no transaction that was lost. [Cursor.Clamp]
//  21. The cursor of a client is clamped for every recovery since its epoch. [package stream]
//  22. A cursor is clamped to a row only if the listener still has a record of each transaction above that row that it has delivered. [listener.deliveredRows]
//  23. A new epoch removes the rows that a hub keeps in memory. [package stream]
//  24. A hub clamps no cursor of a client that has seen more than the hub has delivered. [package stream]
//
// Rows with the number of another transaction:
//
//  25. A row is delivered only if its number had been assigned when the row was written. [Assigned in package sql]
//  26. A row that is written with the number of another transaction loses that number. [the trigger in package sql]
package cursor
