// Package failures counts the failures of the hub's operations. For each operation it keeps the number of failures,
// which a metric shows, and whether the operation fails at present, which the operator can see.
package failures

import (
	"log/slog"
	"slices"
	"time"

	"rowcast/listener/guard"
	"rowcast/listener/loglimit"
)

// An Operation is something that the hub attempts and that can fail.
type Operation string

// The operations.
const (
	Connect     Operation = "connect"      // opening the listener's first connection
	ParkLock    Operation = "park_lock"    // opening or keeping the listener's second connection, for the park lock
	ParkQueue   Operation = "park_queue"   // waiting in the queue for the park lock while an open transaction holds it
	Unpark      Operation = "unpark"       // notifying the other hubs that this hub has released the park lock
	Fetch       Operation = "fetch"        // reading new rows, or keeping the listener's first connection
	Replay      Operation = "replay"       // reading a page of the rows that a client missed
	CheckCursor Operation = "check_cursor" // checking whether a cursor of another epoch is valid
	CatchUp     Operation = "catch_up"     // waiting until the hub has read everything that a client has received
	History     Operation = "history"      // reading rowcast.history; fails while the table has no row
	Retention   Operation = "retention"    // deleting old rows
	Disconnect  Operation = "disconnect"   // notifying the other hubs that a recipient's streams must be closed
	JWKS        Operation = "jwks"         // reading the keys of --jwks-url
	AuthURL     Operation = "auth_url"     // asking the app to authenticate a client
	Accept      Operation = "accept"       // accepting connections of clients
	Inbox       Operation = "inbox"        // reading or changing the inbox of a user
)

// All lists the operations, for a metric that shows each of them from the beginning.
var All = []Operation{
	Connect, ParkLock, ParkQueue, Unpark, Fetch, Replay, CheckCursor, CatchUp, History, Retention, Disconnect,
	JWKS, AuthURL, Accept, Inbox,
}

// steady lists the operations that the hub attempts again and again by itself. So the last result that was recorded
// says whether such an operation fails at present. All other operations are attempted only when they are needed, for
// example for a client. Several goroutines may attempt them at the same time, and some may succeed while others fail.
var steady = []Operation{Connect, ParkLock, Fetch, History, Retention, JWKS}

// Kept and Recovering are how long an operation that is not steady counts as failing after its last failure. Each of
// them is longer than the longest pause between two attempts of a replay (7.5 s) and an attempt (10 s) together.
const (
	Kept       = 2 * time.Minute  // if the operation has not succeeded since
	Recovering = 20 * time.Second // if the operation has succeeded since
)

// A Record keeps the failures of each operation. The zero value is ready to use. It is safe for concurrent use.
type Record struct {
	entries guard.Value[map[Operation]*entry]
}

type entry struct {
	State
	warnings loglimit.Limit
}

// A State describes the failures of an operation.
type State struct {
	Total     int64     // the number of all failures
	Failures  int64     // the number of failures since Since
	Since     time.Time // the first failure of the present period of failing, or of the last such period
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
	return time.Since(s.Last) < Kept
}

// Failed records a failure.
func (r *Record) Failed(of Operation, err error) { r.failed(of, err) }

// failed records a failure and returns the limit of the operation's warnings.
func (r *Record) failed(of Operation, err error) (warnings *loglimit.Limit) {
	r.entries.Do(func(entries *map[Operation]*entry) {
		e := (*entries)[of]
		if e == nil {
			if *entries == nil {
				*entries = make(map[Operation]*entry)
			}
			e = &entry{State: State{steady: slices.Contains(steady, of)}}
			(*entries)[of] = e
		}
		e.add(err)
		warnings = &e.warnings
	})
	return warnings
}

// add adds a failure that has happened now.
func (s *State) add(err error) {
	now := time.Now()
	if !s.Failing() {
		s.Since, s.Failures = now, 0
	}
	s.Total++
	s.Failures++
	s.Last, s.Err, s.Succeeded = now, err, false
}

// Warn records a failure. It also logs the failure to logger, unless too many failures of the operation were logged
// shortly before.
func (r *Record) Warn(logger *slog.Logger, of Operation, err error, message string, attributes ...any) {
	if limited, ok := r.failed(of, err).Allow(logger); ok {
		limited.Warn(message, append(attributes, "error", err)...) //nolint:sloglint // each caller gives a constant
	}
}

// Succeeded records that an operation has succeeded.
func (r *Record) Succeeded(of Operation) {
	r.entries.Do(func(entries *map[Operation]*entry) {
		if e := (*entries)[of]; e != nil {
			e.Succeeded = true
		}
	})
}

// Of returns the state of an operation.
func (r *Record) Of(of Operation) (state State) {
	r.entries.Do(func(entries *map[Operation]*entry) {
		if e := (*entries)[of]; e != nil {
			state = e.State
		}
	})
	return state
}
