package hotpath

import "testing"

// BenchmarkHotPath is what callgrind counts, in time: a batch through both nodes.
func BenchmarkHotPath(b *testing.B) {
	r, err := New(b.Context(), 2)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			b.Error(err)
		}
	}()
	for _, w := range ways() {
		for name, drive := range map[string]func(int){
			"out":     func(n int) { r.Out(w.frames, n) },
			"through": func(n int) { r.Through(w.frames, n) },
		} {
			b.Run(w.name+"/"+name, func(b *testing.B) {
				drive(b.N)
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(w.frames)), "ns/frame")
			})
		}
	}
}
