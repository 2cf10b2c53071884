package bench

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// saveRow draws plots side by side into a file.
func saveRow(row []*plot.Plot, file string) error {
	const width, height = 13 * vg.Inch, 4 * vg.Inch
	canvas, err := draw.NewFormattedCanvas(width, height, strings.TrimPrefix(filepath.Ext(file), "."))
	if err != nil {
		return fmt.Errorf("plot %s: %w", file, err)
	}
	tiles := draw.Tiles{
		Rows: 1, Cols: len(row), PadX: vg.Points(18),
		PadTop: vg.Points(8), PadBottom: vg.Points(8), PadLeft: vg.Points(8), PadRight: vg.Points(12),
	}
	page := draw.New(canvas)
	for i, p := range row {
		p.Draw(tiles.At(page, i, 0))
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(out); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// plainTicks are ticks at 1, 2 and 5 times each power of ten. Labels of 0.0001 and more have no exponents. If all is
// false, only powers of ten have a label.
type plainTicks struct{ all bool }

func (t plainTicks) Ticks(low, high float64) (ticks []plot.Tick) {
	for power := math.Pow(10, math.Floor(math.Log10(low))); power <= high; power *= 10 {
		for _, step := range []float64{1, 2, 5} {
			at := power * step
			if at < low*0.999 || at > high*1.001 {
				continue
			}
			label := ""
			if t.all || step == 1 {
				label = strconv.FormatFloat(at, 'g', 6, 64)
				if at >= 1000 {
					label = amount(at)
				}
			}
			ticks = append(ticks, plot.Tick{Value: at, Label: label})
		}
	}
	return ticks
}
