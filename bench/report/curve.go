package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Curve is what something costs as the number of something else grows.
type Curve struct {
	Name   string  `json:"name"` // what is measured
	Of     string  `json:"of"`   // what grows
	Unit   string  `json:"unit"`
	Points []Point `json:"points"`
}

// Point is the samples at one number.
type Point struct {
	N       int       `json:"n"`
	Samples []float64 `json:"samples"`
}

// Add adds samples at a number.
func (c *Curve) Add(n int, samples ...float64) {
	c.Points = append(c.Points, Point{n, samples})
}

// Growth is the median of the last point over that of the first; 0 without any.
func (c *Curve) Growth() float64 {
	if len(c.Points) == 0 {
		return 0
	}
	first, _ := summarize(c.Points[0].Samples)
	last, _ := summarize(c.Points[len(c.Points)-1].Samples)
	if first.Median == 0 {
		return 0
	}
	return last.Median / first.Median
}

// CurveTable writes curves of one unit as a table: a row each, a column for each number that any has.
func CurveTable(w io.Writer, title string, curves []Curve) error {
	var numbers []int
	for _, c := range curves {
		for _, p := range c.Points {
			numbers = append(numbers, p.N)
		}
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	rows := [][]string{{title}}
	for _, n := range numbers {
		rows[0] = append(rows[0], strconv.Itoa(n))
	}
	rows[0] = append(rows[0], "last over first")
	for _, c := range curves {
		row := []string{c.Name}
		for _, n := range numbers {
			cell := "-"
			if i := slices.IndexFunc(c.Points, func(p Point) bool { return p.N == n }); i >= 0 {
				s, _ := summarize(c.Points[i].Samples)
				cell = fmt.Sprintf("%s ±%.0f%%", number(s.Median), 100*s.Spread())
			}
			row = append(row, cell)
		}
		rows = append(rows, append(row, fmt.Sprintf("%.2f", c.Growth())))
	}
	var b strings.Builder
	markdown(&b, rows)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// CurveSVG draws curves of one unit, over the logarithm of what grows.
func CurveSVG(title, of, unit string, curves []Curve) (string, error) {
	p := newPlot(title)
	p.X.Label.Text, p.Y.Label.Text = of, unit
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Min = 0
	p.Legend.Top, p.Legend.Left = true, true
	colours := []uint32{own, baseline, 0x111111, 0x6a9f58, 0x9067a7, 0xb39b00}
	most := 0.0
	for i, c := range curves {
		var points plotter.XYs
		for _, point := range c.Points {
			s, _ := summarize(point.Samples)
			points = append(points, plotter.XY{X: float64(point.N), Y: s.Median})
			most = max(most, s.Median)
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return "", fmt.Errorf("draw %q: %w", title, err)
		}
		colour := rgb(colours[i%len(colours)])
		line.Color, dots.Color, dots.Shape = colour, colour, draw.CircleGlyph{}
		line.Width = vg.Points(1.5)
		p.Add(line, dots)
		p.Legend.Add(c.Name, line, dots)
	}
	p.Y.Max = 1.5 * most // room for the legend
	return svg(p, curveHeight)
}

const curveHeight = 9 * vg.Centimeter
