// Package torture contains a test of rowcast's main promise: every committed row reaches every client of its recipient
// exactly once and in causal order, whatever fails meanwhile. A client that receives rowcast.reset must load the
// existing rows again.
//
//	go test ./cmd/internal/torture -run Torture                         half a minute
//	ROWCAST_TORTURE=10m go test ./cmd/internal/torture -timeout 0       ten minutes
//	ROWCAST_TORTURE_SEED=42 go test ./cmd/internal/torture              the same random choices again, but not the same timing
//
// Three hubs, each a process of its own, read from a private PostgreSQL server. Writers insert rows in many ways, and
// record their transactions and the times in a journal. Clients close their connections at any byte and resume at a
// random hub. Meanwhile hubs, connections and the server are killed, stopped and restarted. At the end nothing is
// written any more, and the clients catch up. A checker then compares the events that they have received with the table
// and with the journal.
package torture
