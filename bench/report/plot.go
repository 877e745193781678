package report

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
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

// Geometry of a picture, in pixels.
const (
	plotWidth  = 720
	plotLeft   = 150
	plotRight  = 110
	plotTop    = 40
	plotRow    = 24
	plotBar    = 14
	plotBottom = 34
)

// SVG draws the plot: a bar to the median, and a line from the least sample to the most. It is "" when there is nothing
// to draw.
func (r *Result) SVG(p Plot) string {
	var names []string
	var stats []Stat
	most := 0.0
	for _, v := range r.Variants {
		if s, ok := r.Stat(v.Name, p.Metric); ok {
			names, stats = append(names, v.Name), append(stats, s)
			most = max(most, s.Most)
		}
	}
	if len(names) == 0 || most == 0 {
		return ""
	}
	step := tick(most)
	scale := float64(plotWidth-plotLeft-plotRight) / most
	height := plotTop + plotRow*len(names) + plotBottom
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n",
		plotWidth, height, plotWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", plotWidth, height)
	fmt.Fprintf(&b, `<text x="%d" y="22" font-size="14" font-weight="bold">%s</text>`+"\n", 12, escape(p.Title))
	foot := height - plotBottom + 4
	for i := 0; float64(i)*step <= most*1.0001; i++ {
		x := plotLeft + float64(i)*step*scale
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#ddd"/>`+"\n", x, plotTop-4, x, foot)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%g</text>`+"\n", x, foot+16, round(float64(i)*step))
	}
	for i, s := range stats {
		r.bar(&b, names[i], s, plotTop+plotRow*i, scale)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (r *Result) bar(b *strings.Builder, name string, s Stat, y int, scale float64) {
	colour := "#9db4c8"
	switch name {
	case "meshd":
		colour = "#d9742b"
	case Baseline:
		colour = "#4a78a5"
	}
	middle := y + plotRow/2
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", plotLeft-8, middle+4, escape(name))
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", plotLeft, middle-plotBar/2, s.Median*scale, plotBar, colour)
	if s.N > 1 {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#222"/>`+"\n", plotLeft+s.Least*scale, middle, plotLeft+s.Most*scale, middle)
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%d">%s</text>`+"\n", plotLeft+max(s.Median, s.Most)*scale+6, middle+4, number(s.Median))
}

// tick is a round distance of which four to ten make up most.
func tick(most float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(most)))
	switch first := most / power; {
	case first >= 5:
		return power
	case first >= 2:
		return power / 2
	}
	return power / 5
}

// round takes the digits off that the arithmetic has added.
func round(v float64) float64 {
	const digits = 1e6
	return math.Round(v*digits) / digits
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}
