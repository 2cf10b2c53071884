package bench

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// A Report has the results of a run.
type Report struct {
	Server string // the version of PostgreSQL
	Quick  bool
	Curve  []Curve

	sections []*section
}

// A section is the part of a report for a scenario.
type section struct {
	title   string
	figures []figure
	notes   []string
	curves  []Curve
}

// A figure has a value, and may compare it with a baseline. A value that was not measured is NaN.
type figure struct {
	what   string
	unit   string
	ours   float64 // usually of rowcast
	with   string  // the name of the baseline; if empty, there is none
	theirs float64
	ratio  float64 // the median of the ratios of pairs; 0 means the ratio of the two values
	limit  limit
}

// A limit is the target of a figure.
type limit struct {
	least    bool // the limit is a minimum, not a maximum
	value    float64
	absolute bool // the limit is for figure.ours, not for the ratio
}

func atMost(ratio float64) limit        { return limit{value: ratio} }
func atLeast(ratio float64) limit       { return limit{least: true, value: ratio} }
func atMostItself(figure float64) limit { return limit{value: figure, absolute: true} }

func (r *Report) begin(title string) { r.sections = append(r.sections, &section{title: title}) }

func (r *Report) last() *section { return r.sections[len(r.sections)-1] }

func (r *Report) add(f ...figure) { r.last().figures = append(r.last().figures, f...) }

func (r *Report) note(format string, args ...any) {
	r.last().notes = append(r.last().notes, fmt.Sprintf(format, args...))
}

func (r *Report) fail(err error) { r.note("**Failed**: %v", err) }

// Table writes the report in Markdown, with aligned columns.
func (r *Report) Table(w io.Writer) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "`rowcast-bench`: PostgreSQL %s, %d CPUs, %s/%s, %s\n", r.Server, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	if r.Quick {
		out.WriteString("\nThis was a quick run, to check that everything works. Its figures mean nothing.\n")
	}
	for _, s := range r.sections {
		s.write(&out, !r.Quick)
	}
	_, err := w.Write(out.Bytes())
	return err
}

func (s *section) write(out *bytes.Buffer, verdicts bool) {
	fmt.Fprintf(out, "\n### %s\n", s.title)
	if len(s.figures) > 0 {
		out.WriteString("\n")
		columns := tabwriter.NewWriter(out, 0, 0, 0, ' ', 0)
		fmt.Fprint(columns, "| \t| rowcast \t| baseline \t| ratio \t| target \t| \t|\n| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t|\n")
		for _, f := range s.figures {
			fmt.Fprintf(columns, "| %s \t| %s \t| %s \t| %s \t| %s \t| %s \t|\n", f.cells(verdicts)...)
		}
		_ = columns.Flush()
	}
	if len(s.curves) > 0 {
		writeCurves(out, s.curves)
	}
	for _, note := range s.notes {
		fmt.Fprintf(out, "\n%s\n", note)
	}
}

func (f figure) cells(verdicts bool) []any {
	theirs, ratio, wanted, verdict := "", "", "", ""
	if f.with != "" {
		theirs = f.with + ": " + amount(f.theirs)
		ratio = amount(f.quotient())
	}
	if f.limit != (limit{}) {
		wanted = "≤ "
		if f.limit.least {
			wanted = "≥ "
		}
		wanted += strconv.FormatFloat(f.limit.value, 'g', -1, 64)
		if f.limit.absolute {
			wanted += " " + f.unit
		}
		if verdicts {
			verdict = f.verdict()
		}
	}
	return []any{f.what + ", " + f.unit, amount(f.ours), theirs, ratio, wanted, verdict}
}

func (f figure) quotient() float64 {
	if f.ratio != 0 {
		return f.ratio
	}
	if f.theirs == 0 { // the baseline is too small to be measured
		return math.NaN()
	}
	return f.ours / f.theirs
}

func (f figure) verdict() string {
	value := f.quotient()
	if f.limit.absolute {
		value = f.ours
	}
	switch {
	case math.IsNaN(value):
		return ""
	case f.limit.least == (value >= f.limit.value), value == f.limit.value:
		return "met"
	}
	return "**missed**"
}

// amount formats a number, with fewer decimals for a larger number. From 1,000 on, commas separate the thousands. NaN is
// "not measured".
func amount(x float64) string {
	switch {
	case math.IsNaN(x):
		return "not measured"
	case math.Abs(x) >= 1000:
		digits := strconv.FormatFloat(x, 'f', 0, 64)
		for at := len(digits) - 3; at > 0; at -= 3 {
			digits = digits[:at] + "," + digits[at:]
		}
		return digits
	case math.Abs(x) >= 100:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case math.Abs(x) >= 10:
		return strconv.FormatFloat(x, 'f', 1, 64)
	case x != 0 && math.Abs(x) < 0.01:
		return strconv.FormatFloat(x, 'g', 2, 64)
	}
	return strings.TrimSuffix(strconv.FormatFloat(x, 'f', 2, 64), ".00")
}

// median returns the median of values. It does not change their order.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[half-1] + sorted[half]) / 2
	}
	return sorted[half]
}

// medianOf returns the median of one figure over all results.
func medianOf[T any](results []T, figure func(T) float64) float64 {
	var values []float64
	for _, t := range results {
		values = append(values, figure(t))
	}
	return median(values)
}

// compared returns a figure for results that were measured in pairs. The figure has the medians of both sides, and the
// median of the ratios of the pairs.
func compared[T any](what, unit string, ours, theirs []T, with string, of func(T) float64, l limit) figure {
	var ratios []float64
	for i := range ours {
		ratios = append(ratios, of(ours[i])/of(theirs[i]))
	}
	return figure{
		what: what, unit: unit, ours: medianOf(ours, of), with: with, theirs: medianOf(theirs, of), ratio: median(ratios), limit: l,
	}
}
