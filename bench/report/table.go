package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// column of a table.
type column struct {
	title  string
	metric Metric
}

// group is a table of some columns.
type group struct {
	title   string
	columns []column
}

// groups are the tables, in the order in which they are printed.
func groups() []group {
	tcp := func(version int) []column {
		return []column{
			{"1 stream A to B", TCP(1, version, true)},
			{"1 stream B to A", TCP(1, version, false)},
			{"4 streams A to B", TCP(4, version, true)},
			{"4 streams B to A", TCP(4, version, false)},
		}
	}
	return []group{
		{"TCP over IPv4, Mbit/s", tcp(4)},
		{"TCP over IPv6, Mbit/s", tcp(6)},
		{"What TCP costs, CPU s/GB, and the node", []column{
			{"programs, 1 stream", CPU1},
			{"programs, 4 streams", CPU4},
			{"host in between, 1 stream", CPUMiddle},
			{"whole machine, 1 stream", Machine1},
			{"memory, MiB", Memory},
			{"start to first ping, s", FirstPing},
		}},
		{"Round trip, ms", []column{{"idle, median", RTT}, {"idle, 99th percentile", RTT99}, {"under load, median", RTTLoad}}},
		{"UDP", []column{
			{"64 bytes at 100,000/s: loss, %", Loss64},
			{"the same: CPU s/Mpkt", CPU64},
			{"64 bytes, kpkt/s at < 1 % loss", Rate64},
			{"1200 bytes, Mbit/s", UDP1200},
			{"1472 bytes, Mbit/s", UDP1472},
		}},
		{"All offloads of the veth off: TCP over IPv4, Mbit/s", []column{
			{"1 stream A to B", OffTCP1},
			{"4 streams A to B", OffTCP4},
			{"CPU s/GB, 1 stream", OffCPU1},
		}},
	}
}

// Tables writes all tables as Markdown. A cell is the median, the spread and, in parentheses, the ratio to Baseline.
func (r *Result) Tables(w io.Writer) error {
	var b strings.Builder
	for _, g := range groups() {
		r.table(&b, g)
	}
	r.verdicts(&b, "meshd")
	r.missing(&b)
	r.conditions(&b)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write tables: %w", err)
	}
	return nil
}

func (r *Result) table(b *strings.Builder, g group) {
	rows := [][]string{{g.title}}
	var columns []column // of which there is any value
	for _, c := range g.columns {
		if slices.ContainsFunc(r.Variants, func(v Variant) bool { return r.cell(v.Name, c.metric) != nothing }) {
			columns = append(columns, c)
			rows[0] = append(rows[0], c.title)
		}
	}
	for _, v := range r.Variants {
		row := []string{v.Name}
		some := false
		for _, c := range columns {
			cell := r.cell(v.Name, c.metric)
			some = some || cell != nothing
			row = append(row, cell)
		}
		if some {
			rows = append(rows, row)
		}
	}
	if len(rows) > 1 {
		markdown(b, rows)
	}
}

// nothing stands where there is no value.
const nothing = "-"

func (r *Result) cell(variant string, m Metric) string {
	s, ok := r.Stat(variant, m)
	if !ok {
		return nothing
	}
	cell := number(s.Median)
	if s.N > 1 && s.Median != 0 {
		cell += fmt.Sprintf(" ±%.0f%%", 100*s.Spread())
	}
	if ratio, ok := r.Ratio(variant, Baseline, m); ok && m != Loss64 {
		cell += fmt.Sprintf(" (%.2f)", ratio)
	}
	return cell
}

// number has three digits that count, and all before the point.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func (r *Result) verdicts(b *strings.Builder, variant string) {
	if !r.has(variant) {
		return
	}
	rows := [][]string{{variant + ": numbers to hold", "must", "aim", "measured", "reached"}}
	for _, v := range r.Judge(variant) {
		sign := "at most "
		if v.Least {
			sign = "at least "
		}
		measured := nothing
		if v.Known {
			measured = number(v.Value)
		}
		rows = append(rows, []string{v.What, sign + number(v.Must), number(v.Aim), measured, v.Word()})
	}
	markdown(b, rows)
}

func (r *Result) missing(b *strings.Builder) {
	for _, v := range r.Variants {
		if v.Missing != "" {
			fmt.Fprintf(b, "- %s: not available: %s\n", v.Name, v.Missing)
		}
	}
}

// Quiet is how many cores other programs may use before a sample counts as disturbed.
const Quiet = 0.12

// conditions says where the run was, and how quiet it was there.
func (r *Result) conditions(b *strings.Builder) {
	var loads []float64
	disturbed := 0
	for _, s := range r.Samples {
		loads = append(loads, s.Foreign)
		if s.Foreign >= Quiet {
			disturbed++
		}
	}
	slices.Sort(loads)
	m := r.Machine
	fmt.Fprintf(b, "- %s, revision %s: %d rounds in %.0f s on %d cores of %s, %d MB, Linux %s, %s\n",
		m.Began.Format("2006-01-02 15:04 MST"), m.Revision, r.Options.Rounds, m.Seconds, m.Cores, m.CPU, m.MemoryMB, m.Kernel, m.Go)
	fmt.Fprintf(b, "- other programs used %.2f cores during the median sample and %.2f at the 90th percentile; %d of %d samples had more than %.2f\n",
		Quantile(loads, 0.5), Quantile(loads, 0.9), disturbed, len(loads), Quiet)
}

// markdown writes rows, the first of them the head, with their columns aligned.
func markdown(b *strings.Builder, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for n, row := range rows {
		for i, cell := range row {
			fmt.Fprintf(b, "| %s%s ", cell, strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)))
		}
		b.WriteString("|\n")
		if n == 0 {
			for i := range row {
				b.WriteString("|" + strings.Repeat("-", width[i]+2))
			}
			b.WriteString("|\n")
		}
	}
	b.WriteString("\n")
}
