package bench

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"text/tabwriter"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// writeCurves writes the points of the curves as a table.
func writeCurves(out *bytes.Buffer, curves []Curve) {
	out.WriteString("\n")
	columns := tabwriter.NewWriter(out, 0, 0, 0, ' ', 0)
	fmt.Fprint(columns, "| rows per second \t")
	for _, c := range curves {
		fmt.Fprintf(columns, "| %s \t", c.Name)
	}
	fmt.Fprint(columns, "|\n| ---:\t")
	for range curves {
		fmt.Fprint(columns, "| ---\t")
	}
	fmt.Fprint(columns, "|\n")
	for i, p := range curves[0].Points {
		fmt.Fprintf(columns, "| %s \t", amount(p.Rate))
		for _, c := range curves {
			fmt.Fprintf(columns, "| %s \t", c.Points[i].cell())
		}
		fmt.Fprint(columns, "|\n")
	}
	_ = columns.Flush()
	out.WriteString("\nEach cell has p50 / p99 from INSERT to client in ms, and then CPU of the hub + CPU of PostgreSQL's sessions in µs per row. " +
		"If at most 90 % of the wanted rate was reached, the cell has the reached rate instead of p50 / p99.\n")
}

func (p Point) cell() string {
	cpu := fmt.Sprintf("%s + %s", amount(p.CPU), amount(p.ServerCPU))
	if !p.held() {
		return fmt.Sprintf("only %s per second; %s", amount(p.Reached), cpu)
	}
	return fmt.Sprintf("%s / %s; %s", amount(p.P50), amount(p.P99), cpu)
}

// A panel is a part of the plot. It shows one figure of the points.
type panel struct {
	title, label string
	figure       func(Point) float64
	needsHeld    bool
}

var panels = []panel{
	{"INSERT to client, median", "milliseconds", func(p Point) float64 { return p.P50 }, true},
	{"INSERT to client, 99th percentile", "milliseconds", func(p Point) float64 { return p.P99 }, true},
	{"CPU of the hub process", "microseconds per row", func(p Point) float64 { return p.CPU }, false},
}

var colours = []color.RGBA{{0x1f, 0x5f, 0xd0, 0xff}, {0x2c, 0xa0, 0x5a, 0xff}, {0xe0, 0x8a, 0x1e, 0xff}, {0xc0, 0x30, 0x40, 0xff}}

// Plot draws the curves into a file. The extension of the file, .svg or .png, determines the format. Without curves,
// Plot writes no file.
func (r *Report) Plot(file string) error {
	if len(r.Curve) == 0 {
		return nil
	}
	row := make([]*plot.Plot, len(panels))
	for i, p := range panels {
		drawn, err := p.draw(r.Curve, i == len(panels)-1)
		if err != nil {
			return err
		}
		row[i] = drawn
	}
	return saveRow(row, file)
}

func (p panel) draw(curves []Curve, legend bool) (*plot.Plot, error) {
	drawn := plot.New()
	drawn.Title.Text, drawn.Title.Padding = p.title, vg.Points(8)
	drawn.X.Label.Text, drawn.Y.Label.Text = "rows per second", p.label
	drawn.X.Scale, drawn.Y.Scale = plot.LogScale{}, plot.LogScale{}
	drawn.X.Tick.Marker, drawn.Y.Tick.Marker = plainTicks{}, plainTicks{all: true}
	for _, text := range []*font.Font{&drawn.Title.TextStyle.Font, &drawn.X.Label.TextStyle.Font, &drawn.Y.Label.TextStyle.Font, &drawn.X.Tick.Label.Font, &drawn.Y.Tick.Label.Font, &drawn.Legend.TextStyle.Font} {
		text.Variant = "Sans"
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{0xdc}, color.Gray{0xdc}
	drawn.Add(grid)
	for i, c := range curves {
		points := p.points(c)
		if len(points) == 0 {
			continue
		}
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = colours[i%len(colours)], vg.Points(3)
		if i > 0 { // further curves are thin and dashed, so that the first curve stays visible below them
			line.Width = vg.Points(1.5)
			line.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
		}
		marks.Color, marks.Shape, marks.Radius = line.Color, draw.CircleGlyph{}, vg.Points(2.5)
		drawn.Add(line, marks)
		if legend {
			drawn.Legend.Add(c.Name, line, marks)
		}
	}
	rates := curves[0].Points // each panel shows all rates, also rates that no design reached
	drawn.X.Min, drawn.X.Max = rates[0].Rate, rates[len(rates)-1].Rate
	drawn.Y.Min, drawn.Y.Max = drawn.Y.Min/1.2, drawn.Y.Max*1.2
	drawn.Legend.Top, drawn.Legend.Left, drawn.Legend.Padding = true, true, vg.Points(3)
	drawn.Legend.XOffs = 1.6 * vg.Inch
	return drawn, nil
}

func (p panel) points(c Curve) (xys plotter.XYs) {
	for _, at := range c.Points {
		y := p.figure(at)
		if math.IsNaN(y) || y <= 0 || p.needsHeld && !at.held() {
			continue
		}
		xys = append(xys, plotter.XY{X: at.Rate, Y: y})
	}
	return xys
}
