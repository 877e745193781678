package report

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Baseline is the variant that ratios refer to.
const Baseline = "wireguard-go"

// Result is a run of the benchmark.
type Result struct {
	Machine  Machine   `json:"machine"`
	Options  Options   `json:"options"`
	Variants []Variant `json:"variants"`
	Samples  []Sample  `json:"samples"`
}

// Machine is where and when the run was.
type Machine struct {
	Kernel   string    `json:"kernel"`
	CPU      string    `json:"cpu"`
	Cores    int       `json:"cores"`
	MemoryMB int       `json:"memory_mb"`
	Go       string    `json:"go"`
	Revision string    `json:"revision"`
	Began    time.Time `json:"began"`
	Seconds  float64   `json:"seconds"` // that the run took
}

// Options is what the run was asked to do.
type Options struct {
	Rounds   int     `json:"rounds"`
	Duration float64 `json:"duration_seconds"` // of a TCP sample
	Quick    bool    `json:"quick"`
}

// Variant is one way to connect the two hosts.
type Variant struct {
	Name    string `json:"name"`
	About   string `json:"about"`
	Missing string `json:"missing,omitempty"` // why it was not measured
}

// Sample is one measured value.
type Sample struct {
	Variant string  `json:"variant"`
	Metric  Metric  `json:"metric"`
	Round   int     `json:"round"`
	Value   float64 `json:"value"`
	Foreign float64 `json:"foreign_cores"`     // cores that other programs used meanwhile
	Repeats int     `json:"repeats,omitempty"` // samples thrown away before it for foreign load
}

// Write writes the result as JSON.
func (r *Result) Write(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(r); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// Read reads what Write has written.
func Read(from io.Reader) (*Result, error) {
	r := new(Result)
	if err := json.NewDecoder(from).Decode(r); err != nil {
		return nil, fmt.Errorf("read result: %w", err)
	}
	return r, nil
}

// Stat returns what is known of a variant's metric; false when nothing is.
func (r *Result) Stat(variant string, m Metric) (Stat, bool) {
	pool := m.parts()
	var values []float64
	for _, s := range r.Samples {
		if s.Variant != variant {
			continue
		}
		for _, p := range pool {
			if s.Metric == p {
				values = append(values, s.Value)
			}
		}
	}
	return summarize(values)
}

// Ratio is a variant's median over another's; false when either is unknown or the other's is 0.
func (r *Result) Ratio(variant, other string, m Metric) (float64, bool) {
	a, okA := r.Stat(variant, m)
	b, okB := r.Stat(other, m)
	if !okA || !okB || b.Median == 0 {
		return 0, false
	}
	return a.Median / b.Median, true
}

// has reports whether the run has any sample of the variant.
func (r *Result) has(variant string) bool {
	for _, s := range r.Samples {
		if s.Variant == variant {
			return true
		}
	}
	return false
}
