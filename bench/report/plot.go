package report

import (
	"fmt"
	"image/color"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Plot is a picture of one metric over all variants.
type Plot struct {
	Name   string // of the file, without its suffix
	Title  string
	Metric Metric
}

// Plots are the pictures of a run.
func Plots() []Plot {
	return []Plot{
		{"tcp1", "TCP over IPv4, 1 stream (Mbit/s, more is better)", TCP1},
		{"tcp4", "TCP over IPv4, 4 streams (Mbit/s, more is better)", TCP4},
		{"cpu", "CPU seconds per GB, both ends, 1 stream (less is better)", CPU1},
		{"rtt", "Round trip, idle, median (ms, less is better)", RTT},
		{"rtt-load", "Round trip beside one TCP stream, median (ms, less is better)", RTTLoad},
		{"udp64", "64-byte datagrams at less than 1 % loss (thousand/s, more is better)", Rate64},
		{"udp1472", "1472-byte datagrams at less than 1 % loss (Mbit/s, more is better)", UDP1472},
		{"memory", "Memory of a node after the floods (MiB, less is better)", Memory},
		{"tcp1-off", "TCP over IPv4, 1 stream, veth offloads off (Mbit/s, more is better)", OffTCP1},
	}
}

// Geometry of a picture.
const (
	plotWidth  = 18 * vg.Centimeter
	plotHead   = 2.6 * vg.Centimeter
	plotRow    = 0.65 * vg.Centimeter
	plotBar    = 0.4 * vg.Centimeter
	plotMargin = 1.15 // of the axis over the largest value, for the numbers beside the bars
)

// Colours of bars and lines: meshd's, the baseline's, all others', and of the grid.
const (
	own      = 0xd9742b
	baseline = 0x4a78a5
	others   = 0x9db4c8
	grey     = 0xdddddd
)

// rgb is a colour as in HTML.
func rgb(c uint32) color.Color {
	return color.RGBA{byte(c >> 16), byte(c >> 8), byte(c), 0xff}
}

// spread is the points and error bars of a plot.
type spread struct {
	plotter.XYs
	plotter.XErrors
}

// newPlot is an empty picture in the fonts of all.
func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.Title.Padding = title, vg.Points(8)
	for _, style := range []*text.Style{
		&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle,
	} {
		style.Font.Variant = "Sans"
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = rgb(grey), rgb(grey)
	p.Add(grid)
	return p
}

// SVG draws the plot: a bar to the median, and a line from the least sample to the most. It is "" when there is nothing
// to draw.
func (r *Result) SVG(p Plot) (string, error) {
	var names []string
	var points spread
	var labels plotter.XYLabels
	canvas := newPlot(p.Title)
	most := 0.0
	for i := len(r.Variants) - 1; i >= 0; i-- { // the first is at the top
		v := r.Variants[i]
		s, ok := r.Stat(v.Name, p.Metric)
		if !ok {
			continue
		}
		bar, err := plotter.NewBarChart(plotter.Values{s.Median}, plotBar)
		if err != nil {
			return "", fmt.Errorf("draw %s: %w", p.Name, err)
		}
		row := float64(len(names))
		bar.Horizontal, bar.XMin, bar.Color, bar.LineStyle.Width = true, row, colourOf(v.Name), 0
		canvas.Add(bar)
		names, most = append(names, v.Name), max(most, s.Most)
		points.XYs = append(points.XYs, plotter.XY{X: s.Median, Y: row})
		points.XErrors = append(points.XErrors, struct{ Low, High float64 }{s.Least - s.Median, s.Most - s.Median})
		labels.XYs = append(labels.XYs, plotter.XY{X: max(s.Median, s.Most), Y: row})
		labels.Labels = append(labels.Labels, number(s.Median))
	}
	if most == 0 {
		return "", nil
	}
	errorBars, err := plotter.NewXErrorBars(points)
	if err != nil {
		return "", fmt.Errorf("draw %s: %w", p.Name, err)
	}
	values, err := plotter.NewLabels(labels)
	if err != nil {
		return "", fmt.Errorf("draw %s: %w", p.Name, err)
	}
	values.Offset = vg.Point{X: vg.Points(4)}
	for i := range values.TextStyle {
		values.TextStyle[i].Font.Variant, values.TextStyle[i].YAlign = "Sans", text.YCenter
	}
	canvas.Add(errorBars, values)
	canvas.NominalY(names...)
	canvas.X.Min, canvas.X.Max = 0, plotMargin*most
	return svg(canvas, plotHead+plotRow*font.Length(len(names)))
}

// colourOf is that of a variant's bar.
func colourOf(variant string) color.Color {
	switch variant {
	case "meshd":
		return rgb(own)
	case Baseline:
		return rgb(baseline)
	}
	return rgb(others)
}

// svg draws a picture of some height, with a margin for fonts that are wider than those it was measured with.
func svg(p *plot.Plot, height vg.Length) (string, error) {
	const margin = 0.3 * vg.Centimeter
	canvas := vgsvg.New(plotWidth, height)
	p.Draw(draw.Crop(draw.New(canvas), margin, -margin, margin, -margin))
	var b strings.Builder
	if _, err := canvas.WriteTo(&b); err != nil {
		return "", fmt.Errorf("draw %q: %w", p.Title.Text, err)
	}
	return b.String(), nil
}
