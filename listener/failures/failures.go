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
	Fetch      Operation = "fetch"      // reading new rows
	Replay     Operation = "replay"     // reading a page of what a client missed
	Stands     Operation = "stands"     // checking a cursor of another epoch
	CatchUp    Operation = "catch_up"   // waiting until the hub has seen what a client has
	Retention  Operation = "retention"  // deleting old rows
	Disconnect Operation = "disconnect" // telling the other hubs whom to disconnect
	JWKS       Operation = "jwks"       // reading the keys of --jwks-url
	AuthURL    Operation = "auth_url"   // asking the app who a client is
)

// All are the operations, for a metric that shows each from the beginning.
var All = []Operation{Connect, ParkLock, Fetch, Replay, Stands, CatchUp, Retention, Disconnect, JWKS, AuthURL}

// Remembered is how long after its last failure an operation is said to be failing. It may succeed no more because nobody asks for it.
const Remembered = 30 * time.Minute

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
	Total       int64 // failures
	Since, Last time.Time
	Err         error // the last one; nil once the operation has succeeded
}

// Failing reports whether the operation has failed and not succeeded since.
func (s State) Failing() bool { return s.Err != nil && time.Since(s.Last) < Remembered }

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
		e = &entry{}
		r.all[of] = e
	}
	e.Last = time.Now()
	if e.Err == nil {
		e.Since = e.Last
	}
	e.Total++
	e.Err = err
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
		e.Err = nil
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
