package listener_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// An attack is an INSERT that a role can try: a statement with some equal rows.
type attack struct {
	text     []byte // a string in data, and a key
	exponent int    // of the numbers in data
	numbers  uint8
	depth    uint16 // of arrays around all that
	rows     uint8
	inEvent  bool // text is also part of the event
	inName   bool // text is also part of the recipient
}

// data returns the JSON.
func (a *attack) data() string {
	var b strings.Builder
	depth := int(a.depth % 4096)
	b.WriteString(strings.Repeat("[", depth))
	text := quote(a.text)
	b.WriteString(`{"x` + text + `": "` + text + `", "numbers": [0`)
	for range a.numbers % 128 {
		fmt.Fprintf(&b, ",1e%d", a.exponent)
	}
	b.WriteString("]}")
	b.WriteString(strings.Repeat("]", depth))
	return b.String()
}

// quote makes any bytes the inside of a JSON string, as far as an encoding allows them.
func quote(text []byte) string {
	var b strings.Builder
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ':
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// A target is a database with a listener, and a session that attacks it.
type target struct {
	*listener.Listener
	conn *pgx.Conn
	rows chan feed.Row
	base uint64        // the size of the heap before
	peak atomic.Uint64 // the most that it took
	last int
}

// newTarget runs a listener on a database until the test ends.
func newTarget(t testing.TB, dsn string) *target {
	t.Helper()
	target := &target{Listener: newListener(t, dsn), conn: connectRaw(t, dsn), rows: make(chan feed.Row, 1<<10)}
	target.Logger = slog.New(slog.DiscardHandler) // a fuzz target must not use the logger of its F
	target.MaxData, target.PageBytes = targetData, targetPage
	runtime.GC()
	target.base = heap()
	begun := make(chan struct{})
	target.Deliver = func(b feed.Batch) {
		select {
		case <-begun:
		default:
			close(begun)
		}
		target.peak.Store(max(target.peak.Load(), heap()))
		for _, row := range b.Rows {
			row.Size, row.Data = int64(len(row.Data)), bytes.Clone(row.Data[:min(len(row.Data), 20)])
			target.rows <- row
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = target.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	receive(t, "the listener's beginning", begun)
	return target
}

// grown returns by how many bytes the heap has grown at most.
func (v *target) grown() uint64 { return max(v.peak.Load(), v.base) - v.base }

// connectRaw opens a session that sends any bytes.
func connectRaw(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["client_encoding"] = "SQL_ASCII"
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// What the listener of a target may read at once, see Listener.
const (
	targetData = 1 << 20
	targetPage = 1 << 16
)

// maxHeap bounds what a target adds to the heap. By the formula of the README it is 12 MiB for the process, and three
// copies of the largest data beside a page, twice because a test has no GOGC of its own: 18 MiB. The fuzzing engine
// adds up to 12 MiB in its workers.
const maxHeap = 12<<20 + 2*(3*targetData+targetPage) + 24<<20

// heap returns the bytes of live and dead objects.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// survive runs an attack and checks that the next row of another recipient comes soon. It reports whether the INSERT
// was accepted.
func (v *target) survive(t *testing.T, a attack) (accepted bool) {
	t.Helper()
	recipient, event := "mallory", "e"
	if a.inName {
		recipient += string(a.text)
	}
	if a.inEvent {
		event += string(a.text)
	}
	const insert = `INSERT INTO rowcast.notifications (recipient, event, data) SELECT $1, $2, $3::text::jsonb FROM generate_series(1, $4::int)`
	before := v.Stats.Unreadable.Load()
	if _, err := v.conn.Exec(limited(t), insert, recipient, event, a.data(), a.rows%64); err != nil {
		return false
	}
	v.last++
	exec(t, v.conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('bob', to_jsonb($1::int))", v.last)
	var delivered, announced int64
	for deadline := time.After(patience); ; {
		select {
		case row := <-v.rows:
			if row.Recipient == "bob" && string(row.Data) == strconv.Itoa(v.last) {
				skipped := v.Stats.Unreadable.Load() - before - announced
				if delivered+skipped != int64(a.rows%64) {
					t.Errorf("%d rows were delivered and %d were skipped, want %d", delivered, skipped, a.rows%64)
				}
				if grown := v.grown(); grown > maxHeap {
					t.Errorf("the heap has grown by %d KiB, the limit is %d", grown>>10, maxHeap>>10)
				}
				return true
			}
			delivered++
			if row.Unreadable != "" {
				announced++
			}
		case <-deadline:
			t.Fatalf("bob's row was not delivered; %d of %d rows before it were", delivered, a.rows%64)
		}
	}
}

// attacks are those that once stopped a listener, or come near it.
var attacks = []attack{
	{text: []byte("hi"), rows: 1},
	{text: []byte("caf\xe9"), rows: 2},
	{text: []byte("caf\xe9"), rows: 1, inEvent: true},
	{text: []byte("caf\xe9"), rows: 3, inName: true},
	{text: []byte("\x7f\x80\xff\xed\xa0\x80"), rows: 1},
	{exponent: 131071, numbers: 127, rows: 3},
	{exponent: 131071, numbers: 1, rows: 63},
	{exponent: -16383, numbers: 31, rows: 20},
	{exponent: 308, numbers: 31, depth: 1000, rows: 2},
	{text: []byte(strings.Repeat("a", 10_000)), rows: 5},
	{text: []byte("é\n\r\x00\"\\"), rows: 1, inEvent: true, inName: true},
}

// unbounded makes a database that may hold data of any length, as it may from before there were bounds.
func unbounded(t testing.TB) string {
	t.Helper()
	dsn := dbtest.Database(t)
	dropDataConstraints(t, connect(t, dsn))
	return dsn
}

// Whatever an INSERT accepts, the next row of another recipient comes soon, and the listener's memory stays within
// its bound.
func FuzzRows(f *testing.F) {
	for _, a := range attacks {
		for _, odd := range []bool{false, true} {
			f.Add(odd, a.text, a.exponent, a.numbers, a.depth, a.rows, a.inEvent, a.inName)
		}
	}
	targets := map[bool]*target{false: newTarget(f, unbounded(f)), true: newTarget(f, odd(f, "SQL_ASCII"))}
	f.Fuzz(func(t *testing.T, odd bool, text []byte, exponent int, numbers uint8, depth uint16, rows uint8, inEvent, inName bool) {
		targets[odd].survive(t, attack{text, exponent, numbers, depth, rows, inEvent, inName})
	})
}

// The same with random rows, always the same. The test is not parallel, because it measures the heap of the whole
// process.
func TestRandomRows(t *testing.T) {
	for name, dsn := range map[string]func(testing.TB) string{
		"UTF8":      dbtest.Database,
		"old rows":  unbounded,
		"SQL_ASCII": func(t testing.TB) string { return odd(t, "SQL_ASCII") },
		"EUC_TW":    func(t testing.TB) string { return odd(t, "EUC_TW") },
	} {
		t.Run(name, func(t *testing.T) {
			target := newTarget(t, dsn(t))
			random := rand.New(rand.NewPCG(1, 2))
			var accepted int
			const all = 60
			for range all {
				if target.survive(t, randomAttack(random)) {
					accepted++
				}
			}
			t.Logf("%d of %d were accepted, %d rows could not be read, the heap has grown by %d KiB at most", accepted, all,
				target.Stats.Unreadable.Load(), target.grown()>>10)
			if accepted < all/3 || accepted == all || target.Stats.Sessions.Load() != 1 {
				t.Errorf("%d of %d were accepted, %d sessions", accepted, all, target.Stats.Sessions.Load())
			}
		})
	}
}

// randomAttack draws an attack. Most are accepted: numbers that fit a double, deep arrays, and long text that is
// control characters or compresses well. The others have numbers of any length, or bytes that no encoding may allow.
func randomAttack(random *rand.Rand) attack {
	a := attack{
		text: randomText(random), exponent: random.IntN(600) - 300, numbers: uint8(random.IntN(32)), depth: uint16(random.IntN(100)),
		rows: uint8(random.IntN(24)), inEvent: random.IntN(4) == 0, inName: random.IntN(4) == 0,
	}
	switch random.IntN(4) {
	case 0:
		a.exponent, a.numbers = random.IntN(140_000)-17_000, uint8(random.IntN(8))
	case 1:
		a.depth = uint16(random.IntN(4096))
	case 2:
		a.text = bytes.Repeat(append(a.text, 'a'), random.IntN(4000))
		a.inEvent, a.inName = false, false // those are short
	}
	return a
}

// randomText draws a few bytes of ASCII, of control characters, or with the high bit set.
func randomText(random *rand.Rand) []byte {
	text := make([]byte, random.IntN(12))
	low, size := 1, 127
	switch random.IntN(4) {
	case 0:
		size = 31
	case 1:
		low, size = 128, 128
	}
	for i := range text {
		text[i] = byte(low + random.IntN(size))
	}
	return text
}
