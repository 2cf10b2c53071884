// Package bench measures rowcast on the user's own machine and database. It compares rowcast with a naive design, with
// other designs, and with the cost of the kernel and PostgreSQL alone. Both sides of a comparison are measured in the
// same run, in most comparisons alternately. The report has the ratio of both sides, because absolute times depend on
// the machine.
//
// [Bench.Run] returns a [Report]. It creates its own databases and removes them, also after a failure or an
// interruption. The hub, the naive design's hub, the clients and the writers are child processes, so that their CPU
// time and memory can be measured. Each of these processes runs this program with the arguments "child" and a role. The
// hubs of other designs are child processes with programs of their own. A child process ends when its stdin ends, so it
// does not outlive its parent. All child processes except the hub of rowcast receive commands on stdin, as JSON values.
//
// A scenario fails if an expected row does not arrive. It also fails if, before the last row arrives, a client receives
// a row twice or another client's row. If this happens with a hub of another design, the design is left out instead.
package bench
