package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// A design is a way from a row to its clients.
type design struct {
	name   string
	schema string   // of the table that is written to
	args   []string // of its hub's command line
}

var (
	ours     = design{"rowcast", "rowcast", hubCommand()}
	parked   = design{"always parked", "rowcast", hubCommand("--busy=Inf", "--quiet=Inf")}
	polling  = design{"always polling", "rowcast", hubCommand("--busy=-1", "--quiet=-1")}
	theNaive = design{"naive", "naive", []string{ChildArgument, "naive"}}
)

// hubCommand returns the arguments of a process that is a hub.
func hubCommand(more ...string) []string { return append([]string{ChildArgument, "hub"}, more...) }

// A stage is what a load is put on: a database, hubs, of which the first has all the streams, and writers.
type stage struct {
	*Bench
	design
	dsn     string
	hubs    []*process
	address string // of the first
	clients *process
	writers *process
	streams int
}

// A set says what is on a stage.
type set struct {
	design
	dsn     string // the scratch database if empty
	hubs    int    // 1 if 0
	streams int    // one a user
	writers int
	open    bool // with a transaction that stays open
}

func (b *Bench) set(ctx context.Context, want set) (_ *stage, err error) {
	s := &stage{Bench: b, design: want.design, dsn: want.dsn, streams: want.streams}
	if s.dsn == "" {
		s.dsn = b.dsn
	}
	defer func() {
		if err != nil {
			s.strike()
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
	hub, err := s.spawn(ctx, s.name, s.dsn, s.args...)
	if err != nil {
		return err
	}
	s.hubs = append(s.hubs, hub)
	address := ""
	if s.schema == theNaive.schema {
		address, err = call[string](hub, "address", nothing{})
	} else {
		address, err = listening(hub)
	}
	if len(s.hubs) == 1 {
		s.address = address
	}
	return err
}

// listening returns where a hub says that it listens.
func listening(hub *process) (string, error) {
	line, err := hub.awaitWords(`"msg":"listening"`)
	if err != nil {
		return "", err
	}
	var said struct{ Addr string }
	err = json.Unmarshal([]byte(line), &said)
	return said.Addr, err
}

// connect adds the clients and returns how many seconds it took to connect them.
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

// inTurns plays two sides so often, one after the other, so that whatever else the machine does meets both.
func inTurns[S, T any](b *Bench, pairs int, one, other S, play func(S) (T, error)) (ofOne, ofOther []T, err error) {
	var turns [2][]T
	for range pairs {
		for i, side := range [2]S{one, other} {
			t, err := play(side)
			if err != nil {
				return nil, nil, err
			}
			turns[i] = append(turns[i], t)
			b.steps.step()
		}
	}
	return turns[0], turns[1], nil
}

// strike ends all that is on the stage.
func (s *stage) strike() {
	if s == nil {
		return
	}
	s.writers.end()
	s.clients.end()
	for _, hub := range s.hubs {
		hub.end()
	}
}

// A turn is what a load did. Times are in milliseconds, CPU in microseconds a row; what is not measured is NaN.
type turn struct {
	arrivals
	Rate    float64 // rows a second, until the last had arrived
	Hub     float64 // CPU of the first hub's process
	Server  float64 // of PostgreSQL's sessions
	Reading float64 // of those of the hubs alone
	Spread  float64 // from the first arrival to the last
	Commit  float64 // 99 of a hundred rows were committed within this time
}

// play writes a load and waits for it at the clients.
func (s *stage) play(ctx context.Context, l load) (t turn, err error) {
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

// warmUp writes some rows that are not looked at.
func (s *stage) warmUp(ctx context.Context) error {
	_, err := s.play(ctx, load{Rows: pick(s.Bench, int64(300), 20), Rate: 1000, Users: int64(s.streams)})
	return err
}

// reading is a clock's, if there is one.
type reading struct {
	spent time.Duration
	err   error
}

// until is what was spent since, or NaN.
func (r reading) until(later reading, each func(time.Duration) float64) float64 {
	if errors.Join(r.err, later.err) != nil {
		return math.NaN()
	}
	return each(later.spent - r.spent)
}

func (s *stage) cpu() reading {
	spent, err := processCPU(s.hubs[0].pid())
	return reading{spent, err}
}

func (s *stage) sessions(ctx context.Context, application string) reading {
	spent, err := s.backends(ctx, s.dsn, application)
	return reading{spent, err}
}
