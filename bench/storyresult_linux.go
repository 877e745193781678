package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"meshd/bench/report"
)

// storySample is what was measured of one way at one loss: Mbit/s of TCP from the laptop and to it, and the median round
// trip in ms, without load and beside each.
type storySample struct {
	Way      string  `json:"way"`
	Loss     float64 `json:"loss"` // share, each way
	Up       float64 `json:"up_mbits"`
	Down     float64 `json:"down_mbits"`
	Idle     float64 `json:"idle_ms"`
	PingUp   float64 `json:"ping_up_ms"`
	PingDown float64 `json:"ping_down_ms"`
}

// String is a line for the log.
func (s storySample) String() string {
	return fmt.Sprintf("%s at loss %g: up %.3g Mbit/s with ping %.0f ms, down %.3g with %.0f, idle %.1f",
		s.Way, s.Loss, s.Up, s.PingUp, s.Down, s.PingDown, s.Idle)
}

// storyMove is what a change of the laptop's address did to a ping.
type storyMove struct {
	Way    string  `json:"way"`
	Sent   int     `json:"sent"`
	Lost   int     `json:"lost"`
	Outage float64 `json:"outage_seconds"`
	Back   bool    `json:"back"` // the last of them were answered
}

// storyResult is all that was measured.
type storyResult struct {
	Machine report.Machine `json:"machine"`
	Seconds float64        `json:"seconds"` // of each sample
	Samples []storySample  `json:"samples"`
	Moves   []storyMove    `json:"moves"`
}

// publish writes result and tables into a folder, and prints the tables.
func (r *storyResult) publish(dir string, out io.Writer) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	_, err = io.WriteString(out, r.tables())
	return errors.Join(err, os.WriteFile(filepath.Join(dir, "story.json"), append(text, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "story.md"), []byte(r.tables()), 0o644))
}

// tables are Markdown: over the rounds the median of each figure, of TCP with least and most, then the moves.
func (r *storyResult) tables() string {
	var b strings.Builder
	b.WriteString("| loss each way | way | TCP up, Mbit/s | ping beside it, ms | TCP down, Mbit/s | ping beside it, ms | idle ping, ms |\n|---|---|---|---|---|---|---|\n")
	for _, loss := range storyLosses {
		for _, way := range r.names() {
			m := func(of func(storySample) float64) string {
				return fmt.Sprintf("%.3g", report.Quantile(r.sorted(way, loss, of), 0.5))
			}
			spread := func(of func(storySample) float64) string {
				all := r.sorted(way, loss, of)
				return fmt.Sprintf("%s (%.3g to %.3g)", m(of), report.Quantile(all, 0), report.Quantile(all, 1))
			}
			fmt.Fprintf(&b, "| %g %% | %s | %s | %s | %s | %s | %s |\n", loss*100, way,
				spread(func(s storySample) float64 { return s.Up }), m(func(s storySample) float64 { return s.PingUp }),
				spread(func(s storySample) float64 { return s.Down }), m(func(s storySample) float64 { return s.PingDown }),
				m(func(s storySample) float64 { return s.Idle }))
		}
	}
	b.WriteString("\n| after the laptop's address has changed | pings lost | outage |\n|---|---|---|\n")
	for _, m := range r.Moves {
		outage := fmt.Sprintf("%.2f s", m.Outage)
		if !m.Back {
			outage = "for good"
		}
		fmt.Fprintf(&b, "| %s | %d of %d | %s |\n", m.Way, m.Lost, m.Sent, outage)
	}
	return b.String()
}

// names are those of the ways, in the order of the first round.
func (r *storyResult) names() []string {
	var names []string
	for _, s := range r.Samples {
		if !slices.Contains(names, s.Way) {
			names = append(names, s.Way)
		}
	}
	return names
}

func (r *storyResult) sorted(way string, loss float64, of func(storySample) float64) []float64 {
	var all []float64
	for _, s := range r.Samples {
		if s.Way == way && s.Loss == loss {
			all = append(all, of(s))
		}
	}
	slices.Sort(all)
	return all
}

// redrawStory makes tables of an earlier result.
func redrawStory(path string, out io.Writer) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var r storyResult
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	_, err = io.WriteString(out, r.tables())
	return err
}
