package mesh

import "testing"

// TestParallel: one queue on one and two processors, several on more.
func TestParallel(t *testing.T) {
	for processors, want := range map[int]int{1: 1, 2: 1, 3: 2, 4: 2, 6: 3, 15: 8, 16: 8, 64: 8} {
		if got := parallelOn(processors); got != want {
			t.Errorf("%d processors: %d queues, want %d", processors, got, want)
		}
	}
}
