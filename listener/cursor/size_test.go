package cursor_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"rowcast/listener/cursor"
)

// The text of a cursor with a thousand transactions in flight has fewer than 7,500 bytes, however these transactions
// are distributed. So the text fits into a header line of a proxy.
func TestLongest(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		distances []uint64
		limit     int
	}{
		"neighbours":           {slices.Repeat([]uint64{1}, most), 4000},
		"spread over the span": {slices.Repeat([]uint64{widest / most}, most), 7500},
		"gaps of five and six digits": {
			slices.Concat(slices.Repeat([]uint64{1<<25 + 1}, 31), slices.Repeat([]uint64{1<<20 + 1}, most-31)), 7500,
		},
	} {
		c := largest(test.distances)
		text := c.String()
		if got, err := cursor.Parse(text); err != nil || !equal(got, c) {
			t.Errorf("%s: parsed the text: got error %v and a cursor that is equal: %t; want no error and an equal cursor", name, err, equal(got, c))
		}
		t.Logf("%s: %d bytes", name, len(text))
		if len(text) >= test.limit {
			t.Errorf("%s: %d bytes, want less than %d", name, len(text), test.limit)
		}
	}
	rng := rand.New(rand.NewPCG(9, 10))
	for name, shape := range shapes {
		for range 40 {
			c := largest(spread(rng, shape))
			if span := c.Xmax - c.Xip[0]; len(c.Xip) > most || span > widest {
				t.Fatalf("%s: the test made %d transactions in flight over a span of %d, want at most %d over at most %d", name, len(c.Xip), span, most, uint64(widest))
			}
			if found := len(c.String()); found >= 7500 {
				t.Errorf("%s: %d bytes, want less than 7500", name, found)
			}
		}
	}
}

const (
	most   = 1000    // transactions in flight
	widest = 1 << 31 // the largest distance from xmax to one of them: PostgreSQL stops before 32-bit numbers repeat
)

// Parse accepts MaxInFlight transactions in flight, and refuses one more.
func TestMostInFlight(t *testing.T) {
	t.Parallel()
	c := largest(slices.Repeat([]uint64{2}, cursor.MaxInFlight))
	if got, err := cursor.Parse(c.String()); err != nil || !equal(got, c) {
		t.Errorf("%d in flight: got error %v and a cursor that is equal: %t; want no error and an equal cursor", cursor.MaxInFlight, err, equal(got, c))
	}
	tooMany := largest(slices.Repeat([]uint64{2}, cursor.MaxInFlight+1)).String()
	if _, err := cursor.Parse(tooMany); !errors.Is(err, cursor.ErrMalformed) {
		t.Errorf("%d in flight: got %v, want %v", cursor.MaxInFlight+1, err, cursor.ErrMalformed)
	}
}

// spread distributes at most 1,000 transactions over a span of at most widest, and returns the distances between them.
// The function shape decides how they are distributed.
func spread(rng *rand.Rand, shape func(rng *rand.Rand, i, n int) float64) []uint64 {
	n, span := most, uint64(widest)
	if rng.IntN(2) == 0 {
		n = 1 + rng.IntN(most)
	}
	if rng.IntN(2) == 0 {
		span = uint64(n) + rng.Uint64N(widest-uint64(n))
	}
	parts, sum := make([]float64, n), 0.0
	for i := range parts {
		parts[i] = shape(rng, i, n)
		sum += parts[i]
	}
	distances := make([]uint64, n)
	for i, part := range parts {
		distances[i] = 1 + uint64(part/sum*float64(span-uint64(n)))
	}
	return distances
}

// shapes are functions that return the relative size of distance i of n distances. spread scales all distances to the
// span.
var shapes = map[string]func(rng *rand.Rand, i, n int) float64{
	"equal":       func(*rand.Rand, int, int) float64 { return 1 },
	"random":      func(rng *rand.Rand, _, _ int) float64 { return rng.Float64() },
	"exponential": func(rng *rand.Rand, _, _ int) float64 { return rng.ExpFloat64() },
	"heavy tails": func(rng *rand.Rand, _, _ int) float64 { return math.Exp(rng.Float64() * 30) },
	"growing":     func(_ *rand.Rand, i, n int) float64 { return math.Exp(float64(i) / float64(n) * 20) },
	"two lumps":   func(_ *rand.Rand, i, n int) float64 { return oneIf(i == n/2) },
	"one far off": func(_ *rand.Rand, i, n int) float64 { return oneIf(i == n-1) },
	"lumps":       func(rng *rand.Rand, i, _ int) float64 { return oneIf(i == 0 || rng.IntN(30) == 0) },
}

func oneIf(condition bool) float64 {
	if condition {
		return 1
	}
	return 0
}

// largest returns a cursor whose xmax, xid and ids have 19 digits. Its transactions in flight have the given distances
// from each other, from the xmax downwards.
func largest(distances []uint64) cursor.Cursor {
	c := cursor.Cursor{
		Xmax: math.MaxInt64, Xid: math.MaxInt64, ID: math.MaxInt64, Epoch: math.MaxUint32,
		Anchor: cursor.Anchor{ID: math.MaxInt64 - 1, Tag: math.MaxUint32},
	}
	at := c.Xmax
	for _, distance := range distances {
		at -= distance
		c.Xip = append(c.Xip, at)
	}
	slices.Reverse(c.Xip)
	return c
}

// Ordinary cursors are short. A transaction in flight takes one byte if fewer than 32 other transactions lie between it
// and the next transaction in flight.
func TestCompact(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(11, 12))
	for _, test := range []struct {
		name     string
		inFlight int
		distance func() uint64
		want     int // the largest length in bytes
	}{
		{"none", 0, nil, 40},
		{"one", 1, func() uint64 { return 1 }, 42},
		{"one, a million transactions old", 1, func() uint64 { return 1_000_000 }, 45},
		{"300 neighbours", 300, func() uint64 { return 1 }, 41 + 300},
		{"300 among as many ended transactions", 300, func() uint64 { return 1 + rng.Uint64N(3) }, 41 + 300},
		{"300 among ten times as many ended transactions", 300, func() uint64 { return 1 + rng.Uint64N(20) }, 41 + 300},
	} {
		c := cursor.Cursor{Xmax: 123_456_789, Anchor: cursor.Anchor{ID: 12345678}}
		for at := c.Xmax; len(c.Xip) < test.inFlight; {
			at -= test.distance()
			c.Xip = append(c.Xip, at)
		}
		slices.Reverse(c.Xip)
		if text := c.String(); len(text) > test.want {
			t.Errorf("%s: %d bytes, want at most %d: %s", test.name, len(text), test.want, text)
		}
	}
}
