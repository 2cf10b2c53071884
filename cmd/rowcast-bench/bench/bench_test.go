package bench_test

import (
	"context"
	"errors"
	"fmt"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/cmd/rowcast-bench/bench"
)

// A row that is missing, repeated or not expected is an error.
func TestTallyFailsUnlessExactlyOnce(t *testing.T) {
	t.Parallel()
	type arrival struct {
		stream int
		number int64
	}
	one := bench.Expectation{First: 11, Rows: 3}
	all := bench.Expectation{First: 11, Rows: 2, Everyone: true}
	tests := []struct {
		name     string
		wanted   bench.Expectation
		arrivals []arrival
		want     string
	}{
		{"all rows", one, []arrival{{1, 11}, {0, 12}, {1, 13}}, ""},
		{"in another order", one, []arrival{{1, 13}, {0, 12}, {1, 11}}, ""},
		{"a missing row", one, []arrival{{1, 11}, {1, 13}}, "of 3 arrivals, 1 are missing, 0 were repeated, 0 were not expected"},
		{"a repeated row", one, []arrival{{1, 11}, {0, 12}, {1, 13}, {0, 12}}, "of 3 arrivals, 0 are missing, 1 were repeated, 0 were not expected"},
		{"a row at another stream", one, []arrival{{1, 11}, {1, 12}, {1, 13}}, "of 3 arrivals, 1 are missing, 0 were repeated, 1 were not expected"},
		{"an unexpected row", one, []arrival{{1, 11}, {0, 12}, {1, 13}, {0, 14}}, "of 3 arrivals, 0 are missing, 0 were repeated, 1 were not expected"},
		{"a row of an earlier load", one, []arrival{{1, 11}, {0, 12}, {1, 13}, {0, 10}}, "of 3 arrivals, 0 are missing, 0 were repeated, 1 were not expected"},
		{"rows for everyone", all, []arrival{{0, 11}, {1, 11}, {0, 12}, {1, 12}}, ""},
		{"rows for everyone, one row missing at a stream", all, []arrival{{0, 11}, {1, 11}, {1, 12}}, "of 4 arrivals, 1 are missing, 0 were repeated, 0 were not expected"},
		{"rows for everyone, one row twice at a stream", all, []arrival{{0, 11}, {1, 11}, {0, 12}, {1, 12}, {1, 12}}, "of 4 arrivals, 0 are missing, 1 were repeated, 0 were not expected"},
	}
	for _, tt := range tests {
		tally := bench.NewTally(tt.wanted, 2)
		for _, a := range tt.arrivals {
			tally.Count(a.stream, a.number, time.Now().UnixNano())
		}
		want := ""
		if tt.want != "" {
			want = "not every row arrived exactly once: " + tt.want
		}
		_, _, err := tally.Arrivals()
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && got != want {
			t.Errorf("%s: got the error %v, want %q, or no error if that is empty", tt.name, err, want)
		}
	}
}

func TestTallyPercentiles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tally := bench.NewTally(bench.Expectation{First: 1, Rows: 100}, 1)
		now := time.Now()
		for i := range 100 {
			tally.Count(0, int64(i+1), now.Add(-time.Duration(i+1)*time.Millisecond).UnixNano())
		}
		if p50, p99, err := tally.Arrivals(); p50 != 50 || p99 != 99 || err != nil {
			t.Errorf("got the percentiles %v and %v ms (error: %v), want 50 and 99 ms and no error", p50, p99, err)
		}
	})
}

// The latency of a late row is measured from the time at which the row was due. Otherwise a stall would increase the
// latency of only one row per writer.
func TestLateRowsAreMeasuredFromTheDueTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		if got := bench.AwaitDue(now.Add(-time.Second)); !got.Equal(now.Add(-time.Second)) || !time.Now().Equal(now) {
			t.Errorf("late: got %v, want %v, and a return at once", got, now.Add(-time.Second))
		}
		if got := bench.AwaitDue(now.Add(time.Second)); !got.Equal(now.Add(time.Second)) || !time.Now().Equal(got) {
			t.Errorf("early: got %v, want %v, and a return at this time", got, now.Add(time.Second))
		}
	})
}

func TestReport(t *testing.T) {
	t.Parallel()
	r := &bench.Report{Server: "15.8"}
	r.Add("Speed",
		bench.NewFigure("rows", "per second", 15_000, "naive", 5000, bench.AtLeast(3)),
		bench.NewFigure("fewer", "per second", 14_999, "naive", 5000, bench.AtLeast(3)),
		bench.NewFigure("time", "ms", 1.5, "naive", 1, bench.AtMost(1.5)),
		bench.NewFigure("longer", "ms", 151, "naive", 100, bench.AtMost(1.5)),
		bench.NewFigure("memory", "KB", 4.5, "naive", 30, bench.AtMostItself(5)),
		bench.NewFigure("more", "KB", 5.25, "naive", 30, bench.AtMostItself(5)),
		bench.NewFigure("unknown", "KB", math.NaN(), "naive", 30, bench.AtMostItself(5)),
		bench.NewFigure("alone", "s", 12, "", 0, bench.Limit{}),
	)
	r.Add("Loss")
	r.Fail(errors.New("loss: 1 lost"))
	got := table(t, r)
	_, got, _ = strings.Cut(got, "\n\n")
	const want = `### Speed

|                   | rowcast      | baseline     | ratio        | target |            |
| ---               | ---          | ---          | ---          | ---    | ---        |
| rows, per second  | 15,000       | naive: 5,000 | 3            | ≥ 3    | met        |
| fewer, per second | 14,999       | naive: 5,000 | 3            | ≥ 3    | **missed** |
| time, ms          | 1.50         | naive: 1     | 1.50         | ≤ 1.5  | met        |
| longer, ms        | 151          | naive: 100   | 1.51         | ≤ 1.5  | **missed** |
| memory, KB        | 4.50         | naive: 30.0  | 0.15         | ≤ 5 KB | met        |
| more, KB          | 5.25         | naive: 30.0  | 0.17         | ≤ 5 KB | **missed** |
| unknown, KB       | not measured | naive: 30.0  | not measured | ≤ 5 KB |            |
| alone, s          | 12.0         |              |              |        |            |

### Loss

**Failed**: loss: 1 lost
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	r.Quick = true
	if got := table(t, r); strings.Contains(got, "met  ") || strings.Contains(got, "missed") || !strings.Contains(got, "Its figures mean nothing") {
		t.Errorf("the report of a quick run has verdicts, or does not warn that its figures mean nothing:\n%s", got)
	}
}

func table(t *testing.T, r *bench.Report) string {
	t.Helper()
	var out strings.Builder
	if err := r.Table(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestPlotWritesAPicture(t *testing.T) {
	t.Parallel()
	r := &bench.Report{}
	for _, name := range []string{"rowcast", "naive"} {
		r.Curve = append(r.Curve, bench.Curve{Name: name, Points: []bench.Point{
			{Rate: 10, Reached: 10, P50: 0.5, P99: 1, CPU: 100, ServerCPU: math.NaN()},
			{Rate: 1000, Reached: 1000, P50: 1, P99: 3, CPU: math.NaN(), ServerCPU: math.NaN()},
			{Rate: 20_000, Reached: 5000, P50: 1000, P99: 3000, CPU: 20, ServerCPU: 300},
		}})
	}
	file := filepath.Join(t.TempDir(), "curve.png")
	if err := r.Plot(file); err != nil {
		t.Fatal(err)
	}
	drawn, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer drawn.Close()
	picture, err := png.Decode(drawn)
	if err != nil {
		t.Fatal(err)
	}
	colours := map[any]bool{}
	for x := range picture.Bounds().Dx() {
		for y := range picture.Bounds().Dy() {
			colours[picture.At(x, y)] = true
		}
	}
	if len(colours) < 4 {
		t.Errorf("the picture has %d colours, want at least 4", len(colours))
	}
}

func TestUnknownCommandsAndRoles(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	err := bench.Child(t.Context(), []string{"writers"}, strings.NewReader(`{"Do": "sing", "With": {}} {"Do": "open", "With": 7}`), &out, nil)
	const want = `{"Error":"no such command: \"sing\"","Result":null}
{"Error":"json: cannot unmarshal number into Go value of type bench.openWriters","Result":null}
`
	if err != nil || out.String() != want {
		t.Errorf("got %q, %v, want %q and no error", &out, err, want)
	}
	if err := bench.Child(context.Background(), []string{"singer"}, nil, nil, nil); err == nil || !strings.HasPrefix(err.Error(), `no such role: "singer"`) {
		t.Errorf(`got %v, want an error that begins with no such role: "singer"`, err)
	}
}

func TestChildrenGetTheDatabaseAndNoFlags(t *testing.T) {
	t.Parallel()
	got := bench.ChildEnvironment([]string{"PATH=/bin", "ROWCAST_LISTEN=:80", "DATABASE_URL=a", "PGPASSWORD=b"}, "c")
	if want := []string{"DATABASE_URL=c", "PATH=/bin", "PGPASSWORD=b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWithDatabase(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]string{
		"postgres://u:p@h:1/app?sslmode=disable":     "postgres://u:p@h:1/x?sslmode=disable",
		"postgresql:///app?host=/tmp&dbname=another": "postgresql:///x?host=%2Ftmp",
		"host=/tmp dbname=app":                       "host=/tmp dbname=app dbname=x",
		"":                                           " dbname=x",
	} {
		if got := bench.WithDatabase(dsn, "x"); got != want {
			t.Errorf("%q: got %q, want %q", dsn, got, want)
		}
	}
}

func TestTooFewDescriptors(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not limit the number of open files")
	}
	err := bench.CheckDescriptors(math.MaxInt32)
	const want = "2147483647 streams need as many file descriptors and 50 more, but a process may have only "
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want an error that begins with %q", err, want)
	}
}
