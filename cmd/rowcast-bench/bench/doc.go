// Package bench measures rowcast on the user's own machine and database. It compares rowcast with a naive design, and with the cost of the
// kernel and PostgreSQL alone. The two sides of a comparison run alternately in one run, and the report has their ratios, because absolute
// times depend on the machine.
//
// [Bench.Run] takes a connection string and returns a [Report]. It creates its own databases and removes them in every case, unless the
// process is killed. The hub, the naive design's hub, the clients and the writers are processes of their own, so that their CPU time and
// memory can be measured. They are this program with the name of a role as argument. They receive commands as JSON lines on stdin, and end
// when stdin ends, so no child process outlives its parent.
//
// If a row is lost, repeated or sent to the wrong client, the scenario fails.
package bench
