// Package torture holds the test of what rowcast promises: that every committed row reaches every client it is for exactly once, in
// an order that could have been, whatever breaks meanwhile.
//
//	go test ./cmd/internal/torture -run Torture                         half a minute
//	ROWCAST_TORTURE=10m go test ./cmd/internal/torture -timeout 0       longer
//	ROWCAST_TORTURE_SEED=42 go test ./cmd/internal/torture              the same random choices again, though not the same timing
//
// Three hubs, which are real processes, stand before a real PostgreSQL of the test's own. Writers insert in every way there is, and
// note in a log of their own what they have committed, and when. Clients drop their connections at any byte and resume on another
// hub. One thing after another is broken. In the end, when all is quiet and every client has caught up, a judge compares what each
// client was told with the table and with the writers' log.
package torture
