package listener_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
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

// An attack describes an INSERT of equal rows that a role may try.
type attack struct {
	text     []byte // a string in the object in data, and part of the key of this string
	exponent int    // the exponent of the numbers in data
	numbers  uint8  // modulo 128: how many numbers with this exponent are in data
	depth    uint16 // modulo 4096: the number of nested arrays around the object in data
	rows     uint8  // modulo 64: the number of rows
	inEvent  bool   // text is also part of the event
	inName   bool   // text is also part of the recipient
}

// digits returns about how many digits the numbers of all rows have, if PostgreSQL accepts them.
func (a *attack) digits() int {
	return int(a.rows%64) * int(a.numbers%128) * min(max(a.exponent, -a.exponent, 0), 1<<17)
}

// data returns the text of the column data, as JSON.
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

// quote returns text as the inside of a JSON string. Bytes that are not UTF-8 stay as they are, because some encodings
// of a database allow them.
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
	base uint64        // the size of the live heap, in bytes, before the listener began
	peak atomic.Uint64 // the largest size of the live heap, in bytes, at a call of Deliver
	last int           // the data of the last row for bob, which follows an attack (see survive)
}

// newTarget runs a listener on a database until the test ends.
func newTarget(t testing.TB, dsn string) *target {
	t.Helper()
	target := &target{Listener: newListener(t, dsn), conn: connectRaw(t, dsn), rows: make(chan feed.Row, 1<<10)}
	target.Logger = slog.New(slog.DiscardHandler) // inside a fuzz target, testing.F must not be used for output
	target.MaxData, target.PageBytes = targetData, targetPage
	target.base = watchHeap(t)
	begun := make(chan struct{})
	target.Deliver = func(b feed.Batch) {
		select {
		case <-begun:
		default:
			close(begun)
		}
		target.peak.Store(max(target.peak.Load(), liveHeap()))
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

// grown returns the largest growth of the live heap so far, in bytes.
func (v *target) grown() uint64 { return max(v.peak.Load(), v.base) - v.base }

// connectRaw opens a session that can send text that is not valid UTF-8.
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

// MaxData and PageBytes of the listener of a target, in bytes.
const (
	targetData = 1 << 20
	targetPage = 1 << 16
)

// maxHeap is the number of bytes by which the live heap may grow: 12 MiB for the process, a page and three copies of
// the largest data for the listener, and 12 MiB for a worker of the fuzzing engine.
const maxHeap = 12<<20 + 3*targetData + targetPage + 12<<20

// watchHeap makes garbage collections frequent until the test ends, so that liveHeap is never old. It returns the size
// of the live heap.
func watchHeap(t testing.TB) uint64 {
	t.Helper()
	usual := debug.SetGCPercent(20)
	t.Cleanup(func() { debug.SetGCPercent(usual) })
	runtime.GC()
	return liveHeap()
}

// liveHeap returns how many bytes of the heap the last garbage collection found in use. The present size of the heap
// would be a worse measure: it includes the garbage since then, and on a busy machine a collection takes long.
func liveHeap() uint64 { return metric("/gc/heap/live:bytes") }

// collections returns how many garbage collections have ended.
func collections() uint64 { return metric("/gc/cycles/total:gc-cycles") }

// metric returns a value that package runtime/metrics describes.
func metric(name string) uint64 {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// survive runs an attack and checks that the next row, for another recipient, is delivered. It also checks that each
// row of the attack was delivered or skipped, and that the live heap has not grown too much. It reports whether
// PostgreSQL accepted the INSERT of the attack.
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
					t.Errorf("%d rows were delivered and %d were skipped, want %d in total", delivered, skipped, a.rows%64)
				}
				if grown := v.grown(); grown > maxHeap {
					t.Errorf("the live heap has grown by %d KiB, want at most %d KiB", grown>>10, maxHeap>>10)
				}
				return true
			}
			delivered++
			if row.Unreadable != "" {
				announced++
			}
		case <-deadline:
			t.Fatalf("waited %v for bob's row; %d of the %d rows before it were delivered", patience, delivered, a.rows%64)
		}
	}
}

// attacks has an ordinary row, and attacks that once stopped a listener or that resemble such an attack.
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

// unbounded returns a database without the constraints for the size of data. A database may have rows from before these
// constraints.
func unbounded(t testing.TB) string {
	t.Helper()
	dsn := dbtest.Database(t)
	dropDataConstraints(t, connect(t, dsn))
	return dsn
}

// Whatever rows an INSERT adds, the next row for another recipient is delivered, and the live heap grows by at most
// maxHeap.
func FuzzRows(f *testing.F) {
	for _, a := range attacks {
		for _, odd := range []bool{false, true} {
			f.Add(odd, a.text, a.exponent, a.numbers, a.depth, a.rows, a.inEvent, a.inName)
		}
	}
	targets := map[bool]*target{false: newTarget(f, unbounded(f)), true: newTarget(f, odd(f, "SQL_ASCII"))}
	f.Fuzz(func(t *testing.T, odd bool, text []byte, exponent int, numbers uint8, depth uint16, rows uint8, inEvent, inName bool) {
		a := attack{text, exponent, numbers, depth, rows, inEvent, inName}
		if a.digits() > 64<<20 {
			t.Skip("on a busy machine, this input could take more than 10 s, and the engine would end the worker")
		}
		targets[odd].survive(t, a)
	})
}

// TestRandomRows checks the same as FuzzRows, with random rows from a fixed seed. The test is not parallel, because it
// measures the heap of the whole process.
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
			t.Logf("%d of %d attacks were accepted, %d rows could not be read, the live heap has grown by %d KiB at most", accepted, all,
				target.Stats.Unreadable.Load(), target.grown()>>10)
			if accepted < all/3 || accepted == all || target.Stats.Sessions.Load() != 1 {
				t.Errorf("%d of %d attacks were accepted in %d sessions, want at least a third, not all, and 1 session", accepted, all, target.Stats.Sessions.Load())
			}
		})
	}
}

// randomAttack returns a random attack. Its numbers may have many digits, its arrays may be deeply nested, and its text
// may be long or have bytes that the encoding of the database refuses.
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
		a.inEvent, a.inName = false, false // a recipient and an event must be short
	}
	return a
}

// randomText returns up to 11 random bytes. All are ASCII, all are control characters, or all have the high bit set.
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
