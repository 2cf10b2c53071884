package bench

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"rowcast/cmd/internal/private"
)

// progress shows the progress of a scenario. If w is a terminal, it shows a bar. At the end, it writes a line.
type progress struct {
	w     io.Writer
	name  string
	began time.Time
	steps int
	bar   *progressbar.ProgressBar // nil if w is not a terminal
}

func newProgress(w io.Writer, name string) *progress {
	p := &progress{w: w, name: name, began: time.Now()}
	if private.IsTerminal(w) {
		p.bar = progressbar.NewOptions(1, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(fmt.Sprintf("%-12s", name)),
			progressbar.OptionSetWidth(30), progressbar.OptionSetPredictTime(false), progressbar.OptionClearOnFinish())
		_ = p.bar.RenderBlank()
	}
	return p
}

// plan adds steps to the number of steps that the bar expects.
func (p *progress) plan(steps int) {
	p.steps += steps
	if p.bar != nil {
		p.bar.ChangeMax(p.steps)
	}
}

// step reports that a step has finished.
func (p *progress) step() {
	if p.bar != nil {
		_ = p.bar.Add(1)
	}
}

// clear removes the bar.
func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

// end removes the bar and writes a line with the result.
func (p *progress) end(err error) {
	p.clear()
	if err != nil {
		fmt.Fprintf(p.w, "%-12s failed after %.0f s: %v\n", p.name, time.Since(p.began).Seconds(), err)
		return
	}
	fmt.Fprintf(p.w, "%-12s %.0f s\n", p.name, time.Since(p.began).Seconds())
}
