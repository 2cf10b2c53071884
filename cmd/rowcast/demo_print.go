package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// progress tells what takes time, a line a step; on a terminal the line of a download is written over and over.
type progress struct {
	w        io.Writer
	terminal bool
	percent  int64
}

func newProgress(w io.Writer) *progress {
	return &progress{w: w, terminal: isTerminal(w), percent: -1}
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (p *progress) step(text string) { fmt.Fprintln(p.w, text, "…") }

// download is told the bytes that have come, and how many there are or -1.
func (p *progress) download(done, total int64) {
	const step = 10 // percent, where lines stay
	percent := done >> 20
	if total > 0 {
		percent = 100 * done / total
	}
	if percent == p.percent || !p.terminal && percent/step == p.percent/step && p.percent >= 0 {
		return
	}
	p.percent = percent
	text := fmt.Sprintf("downloading PostgreSQL … %d MB", done>>20)
	if total > 0 {
		text += fmt.Sprintf(" of %d (%d %%)", total>>20, percent)
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

// printDemo says where the demo is and what to try.
func printDemo(w io.Writer, page string, database *demoDatabase) {
	bold, quiet, plain := "", "", ""
	if isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		bold, quiet, plain = "\x1b[1m", "\x1b[2m", "\x1b[0m"
	}
	fmt.Fprintf(w, "\n%srowcast demo%s\n\n", bold, plain)
	fmt.Fprintf(w, "  Alice   %s%s/?uid=alice%s\n", bold, page, plain)
	fmt.Fprintf(w, "  Bob     %s%s/?uid=bob%s\n\n", bold, page, plain)
	for _, command := range database.commands() {
		fmt.Fprintf(w, "  %s%s:%s\n\n    %s\n\n", quiet, command.Title, plain, strings.ReplaceAll(command.Text, "\n", "\n    "))
	}
	fmt.Fprintf(w, "  %s%s%s\n", quiet, database.about, plain)
	fmt.Fprintf(w, "  %sCtrl-C stops the demo.%s\n\n", quiet, plain)
}
