package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// A design is a table and a hub. Except in the design untriggered, the hub sends the rows of the table to clients.
type design struct {
	name    string
	schema  string   // the schema of its table
	args    []string // the command line of its hub
	program string   // the program of its hub; if empty, this program
	asked   bool     // the hub tells its address on a command; otherwise it logs its address
}

var (
	rowcastDesign = design{name: "rowcast", schema: "rowcast", args: hubCommand()}
	notified      = design{name: "always notified", schema: "rowcast", args: hubCommand("--busy=Inf", "--quiet=Inf")}
	polling       = design{name: "always polling", schema: "rowcast", args: hubCommand("--busy=-1", "--quiet=-1")}
	naiveDesign   = design{name: "naive", schema: "naive", args: []string{ChildArgument, "naive"}, asked: true}
	untriggered   = design{name: "no trigger", schema: "plain", args: hubCommand()}
	watched       = design{name: "watched table", schema: "watched", args: hubCommand()}
)

// hubCommand returns the arguments of a child process that is a hub.
func hubCommand(more ...string) []string { return append([]string{ChildArgument, "hub"}, more...) }

// A stage is the environment of a load: a database, hubs, clients and writers. All clients are connected to the first
// hub.
type stage struct {
	*Bench
	design
	dsn     string
	hubs    []*process
	address string // the address of the first hub
	clients *process
	writers *process
	streams int
}

// A setup has the design and the database of a stage, and the numbers of hubs, streams and writers that newStage
// starts.
type setup struct {
	design
	dsn     string // if empty, the database of the scenario
	hubs    int    // the number of hubs; 0 means 1
	streams int    // the number of streams, each for a different user
	writers int
	open    bool // a transaction stays open during the load; growthOnce opens it, and newStage ignores this field
}

func (b *Bench) newStage(ctx context.Context, want setup) (_ *stage, err error) {
	s := &stage{Bench: b, design: want.design, dsn: want.dsn, streams: want.streams}
	if s.dsn == "" {
		s.dsn = b.dsn
	}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	for range max(1, want.hubs) {
		if err := s.addHub(ctx); err != nil {
			return nil, err
		}
	}
	if want.streams > 0 {
		if _, err := s.connect(ctx, want.streams); err != nil {
			return nil, err
		}
	}
	if want.writers > 0 {
		err = s.addWriters(ctx, openWriters{Connections: want.writers, Schema: want.schema})
	}
	return s, err
}

func (s *stage) addHub(ctx context.Context) error {
	hub, err := s.spawn(ctx, cmp.Or(s.program, s.Program), s.name, s.dsn, s.args...)
	if err != nil {
		return err
	}
	s.hubs = append(s.hubs, hub)
	address := ""
	if s.asked {
		address, err = call[string](hub, "address", nothing{})
	} else {
		address, err = listening(hub)
	}
	if len(s.hubs) == 1 {
		s.address = address
	}
	return err
}

// listening returns the address that a hub logs when it listens.
func listening(hub *process) (string, error) {
	line, err := hub.awaitLine(`"msg":"listening"`)
	if err != nil {
		return "", err
	}
	var logged struct{ Addr string }
	err = json.Unmarshal([]byte(line), &logged)
	return logged.Addr, err
}

// connect starts the clients and returns the seconds until all streams were open.
func (s *stage) connect(ctx context.Context, streams int) (seconds float64, err error) {
	s.streams = streams
	if s.clients, err = s.child(ctx, "clients", s.dsn); err != nil {
		return 0, err
	}
	return call[float64](s.clients, "connect", connectTo{s.address, streams})
}

func (s *stage) addWriters(ctx context.Context, o openWriters) (err error) {
	if s.writers, err = s.child(ctx, "writers", s.dsn); err != nil {
		return err
	}
	_, err = call[nothing](s.writers, "open", o)
	return err
}

// alternate measures one and other alternately, so that other load on the machine affects both sides. pairs is the
// number of measurements of each side.
func alternate[S, T any](b *Bench, pairs int, one, other S, run func(S) (T, error)) (ofOne, ofOther []T, err error) {
	var results [2][]T
	for range pairs {
		for i, side := range [2]S{one, other} {
			t, err := run(side)
			if err != nil {
				return nil, nil, err
			}
			results[i] = append(results[i], t)
			b.steps.step()
		}
	}
	return results[0], results[1], nil
}

// stop ends all processes of the stage.
func (s *stage) stop() {
	if s == nil {
		return
	}
	s.writers.end()
	s.clients.end()
	for _, hub := range s.hubs {
		hub.end()
	}
}

// A result is the result of a load. Times are in milliseconds, and CPU times in microseconds per row. A CPU time that
// was not measured is NaN.
type result struct {
	arrivals
	Rate    float64 // rows per second, from the beginning of the writing until the last row had arrived
	Hub     float64 // the CPU of the processes of the first hub
	Server  float64 // the CPU of all PostgreSQL sessions of the database, including the writers' sessions (see backends)
	Reading float64 // the CPU of the PostgreSQL sessions of all hubs
	Spread  float64 // the time from the first arrival to the last
	Commit  float64 // the 99th percentile of the time until a row is committed (see awaitDue)
}

// run writes a load and waits until it has arrived at the clients.
func (s *stage) run(ctx context.Context, l load) (t result, err error) {
	l.First = s.rows(l.Rows)
	if _, err := call[nothing](s.clients, "expect", expectation{l.First, l.Rows, l.Users == 0}); err != nil {
		return t, err
	}
	hub, server, reading := s.cpu(), s.sessions(ctx, ""), s.sessions(ctx, "rowcast ")
	wrote, err := call[written](s.writers, "write", l)
	if err != nil {
		return t, err
	}
	if t.arrivals, err = call[arrivals](s.clients, "await", nothing{}); err != nil {
		return t, fmt.Errorf("%s: %w", s.name, err)
	}
	each := func(spent time.Duration) float64 { return float64(spent.Nanoseconds()) / 1e3 / float64(l.Rows) }
	t.Hub = hub.until(s.cpu(), each)
	t.Server = server.until(s.sessions(ctx, ""), each)
	t.Reading = reading.until(s.sessions(ctx, "rowcast "), each)
	t.Rate = float64(l.Rows) / (float64(t.Last-wrote.Began) / 1e9)
	t.Spread = float64(t.Last-t.First) / 1e6
	t.Commit = wrote.P99
	return t, nil
}

// warmUp writes some rows and ignores the result.
func (s *stage) warmUp(ctx context.Context) error {
	_, err := s.run(ctx, load{Rows: pick(s.Bench, int64(300), 20), Rate: 1000, Users: int64(s.streams)})
	return err
}

// A reading is a CPU time, or the reason why it could not be measured.
type reading struct {
	spent time.Duration
	err   error
}

// until returns each(t), where t is the CPU time between the readings r and later. It returns NaN if one of the two
// readings has failed.
func (r reading) until(later reading, each func(time.Duration) float64) float64 {
	if errors.Join(r.err, later.err) != nil {
		return math.NaN()
	}
	return each(later.spent - r.spent)
}

func (s *stage) cpu() (r reading) {
	pids := []int{s.hubs[0].pid()}
	if s.program != "" {
		pids, r.err = call[[]int](s.hubs[0], "processes", nothing{})
	}
	for _, pid := range pids {
		spent, err := processCPU(pid)
		r.spent, r.err = r.spent+spent, errors.Join(r.err, err)
	}
	return r
}

func (s *stage) sessions(ctx context.Context, application string) reading {
	spent, err := s.backends(ctx, s.dsn, application)
	return reading{spent, err}
}
