// Package failures records what fails and is tried again, so that nothing fails silently: a count for metrics, a state that an operator
// can read, and a log line that does not come too often.
package failures

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"rowcast/listener/loglimit"
)

// An Operation is something that is tried again until it succeeds.
type Operation string

// The operations.
const (
	Connect    Operation = "connect"    // the listener's first connection
	ParkLock   Operation = "park_lock"  // its second connection, for the park lock
	ParkQueue  Operation = "park_queue" // waiting for the park lock while a transaction that has inserted stays open
	Unpark     Operation = "unpark"     // telling the other hubs that this one has given up the park lock
	Fetch      Operation = "fetch"      // reading new rows
	Replay     Operation = "replay"     // reading a page of what a client missed
	Stands     Operation = "stands"     // checking a cursor of another epoch
	CatchUp    Operation = "catch_up"   // waiting until the hub has seen what a client has
	History    Operation = "history"    // reading rowcast.history, which somebody has emptied
	Retention  Operation = "retention"  // deleting old rows
	Disconnect Operation = "disconnect" // telling the other hubs whom to disconnect
	JWKS       Operation = "jwks"       // reading the keys of --jwks-url
	AuthURL    Operation = "auth_url"   // asking the app who a client is
	Accept     Operation = "accept"     // accepting connections of clients
)

// All are the operations, for a metric that shows each from the beginning.
var All = []Operation{
	Connect, ParkLock, ParkQueue, Unpark, Fetch, Replay, Stands, CatchUp, History, Retention, Disconnect,
	JWKS, AuthURL, Accept,
}

// A single loop of the hub attempts each of these operations again and again, until the operation succeeds. So the last attempt says
// how things are. All other operations are attempted when a client, the app or another hub gives occasion, and often by several
// goroutines at a time: some of them may succeed while the others fail.
var steady = []Operation{Connect, ParkLock, Fetch, History, Retention, JWKS}

// An operation that only some occasion repeats is failing for this long after its last failure. The times are longer than the longest
// pause between two attempts and an attempt.
const (
	Remembered = 2 * time.Minute  // when nothing is heard of it any more
	Recovering = 20 * time.Second // when it has succeeded since
)

// A Record remembers failures by their operations. The zero value is ready to use, by several goroutines.
type Record struct {
	mu  sync.Mutex
	all map[Operation]*entry
}

type entry struct {
	State
	warnings loglimit.Limit
}

// A State is what is known of an operation that has failed.
type State struct {
	Total     int64     // failures in all
	Failures  int64     // failures since Since
	Since     time.Time // the first failure of those that Failing reports, or last reported
	Last      time.Time // the last failure
	Err       error     // the last error
	Succeeded bool      // the operation has succeeded since Last

	steady bool
}

// Failing reports whether the operation fails at present, as far as that is known.
func (s State) Failing() bool {
	switch {
	case s.Err == nil:
		return false
	case s.steady:
		return !s.Succeeded
	case s.Succeeded:
		return time.Since(s.Last) < Recovering
	}
	return time.Since(s.Last) < Remembered
}

// Failed records a failure.
func (r *Record) Failed(of Operation, err error) { r.failed(of, err) }

func (r *Record) failed(of Operation, err error) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.all[of]
	if e == nil {
		if r.all == nil {
			r.all = make(map[Operation]*entry)
		}
		e = &entry{State: State{steady: slices.Contains(steady, of)}}
		r.all[of] = e
	}
	now := time.Now()
	if !e.Failing() {
		e.Since, e.Failures = now, 0
	}
	e.Total++
	e.Failures++
	e.Last, e.Err, e.Succeeded = now, err, false
	return e
}

// Warn records a failure and logs it, unless that was done too often of late.
func (r *Record) Warn(to *slog.Logger, of Operation, err error, message string, attributes ...any) {
	if logger, ok := r.failed(of, err).warnings.Allow(to); ok {
		logger.Warn(message, append(attributes, "error", err)...) //nolint:sloglint // each caller gives a constant
	}
}

// Succeeded records that an operation has succeeded.
func (r *Record) Succeeded(of Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.all[of]; e != nil {
		e.Succeeded = true
	}
}

// Of returns the state of an operation.
func (r *Record) Of(of Operation) State {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.all[of]; e != nil {
		return e.State
	}
	return State{}
}

// Failing returns the operations that fail at present, in order.
func (r *Record) Failing() []Operation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(r.all)), func(of Operation) bool { return !r.all[of].Failing() })
}
