// Package bench measures rowcast on the user's own machine and database against the design that one writes in an afternoon, and
// against what the kernel and PostgreSQL cost without either. It prints ratios of what was measured in one run, in turns: absolute
// times say more of the machine than of a program.
//
// What crosses the border is a connection string on the way in and a [Report] on the way out. Everything happens in scratch
// databases that [Bench.Run] makes and removes, however it ends. Whatever is measured is a process of its own, this program again
// in another role: the hub, the naive design's hub, the clients, the writers. Children are told what to do by JSON lines on stdin
// and end when that does, so none outlives its parent.
//
// A comparison of anything that lost a row, or told one twice, is an error and no figure.
package bench
