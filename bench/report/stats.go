package report

import "slices"

// Stat sums up the samples of a metric.
type Stat struct {
	N                   int
	Median, Least, Most float64
}

// Spread is how far the outermost sample is from the median, as a share of it; 0 when the median is 0.
func (s Stat) Spread() float64 {
	if s.Median == 0 {
		return 0
	}
	return max(s.Most-s.Median, s.Median-s.Least) / s.Median
}

// summarize returns false when there are no values.
func summarize(values []float64) (Stat, bool) {
	if len(values) == 0 {
		return Stat{}, false
	}
	sorted := slices.Sorted(slices.Values(values))
	return Stat{N: len(sorted), Median: Quantile(sorted, 0.5), Least: sorted[0], Most: sorted[len(sorted)-1]}, true
}

// Quantile of values in ascending order, with linear interpolation; 0 without any. q is 0 to 1.
func Quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := q * float64(len(sorted)-1)
	below := int(at)
	if below+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	share := at - float64(below)
	return sorted[below]*(1-share) + sorted[below+1]*share
}
