package private

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// A Progress prints the steps of a start, one per line. On a terminal, a download overwrites its line.
type Progress struct {
	w        io.Writer
	terminal bool
	percent  int64
}

// NewProgress returns a Progress that prints to w.
func NewProgress(w io.Writer) *Progress {
	return &Progress{w: w, terminal: IsTerminal(w), percent: -1}
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Step prints the next step.
func (p *Progress) Step(text string) { fmt.Fprintln(p.w, text, "…") }

// Download prints how many bytes of total have been downloaded. total is -1 if it is unknown.
func (p *Progress) Download(done, total int64) {
	// If the output is not a terminal, a line is printed every 10 percent, or every 10 MB if the total is unknown.
	const step = 10
	const megabyte = 1_000_000
	percent := done / megabyte // the megabytes, if the total is unknown
	if total > 0 {
		percent = 100 * done / total
	}
	if percent == p.percent || !p.terminal && percent/step == p.percent/step && p.percent >= 0 {
		return
	}
	p.percent = percent
	text := fmt.Sprintf("downloading PostgreSQL … %d MB", done/megabyte)
	if total > 0 {
		text += fmt.Sprintf(" of %d (%d %%)", total/megabyte, percent)
	}
	switch {
	case !p.terminal:
		fmt.Fprintln(p.w, text)
	case done == total:
		fmt.Fprintf(p.w, "\r%s\n", text)
	default:
		fmt.Fprintf(p.w, "\r%s", text)
	}
}
