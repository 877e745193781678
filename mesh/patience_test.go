package mesh

import (
	"testing"
	"time"
)

// TestSigns holds a joiner to waiting while there is progress, and no longer.
func TestSigns(t *testing.T) {
	start := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	type look struct {
		at    float64
		up    bool
		heard float64 // of the entry point, last
	}
	for _, test := range []struct {
		name          string
		hasty, signer bool
		looks         []look
		answers       []float64 // of the signer
		over          float64   // when it gives up
	}{
		{name: "nobody behind the entry point", hasty: true, over: 8},
		{name: "a signer that is there no more", hasty: true, signer: true, over: 20},
		{name: "a signer that is slow", hasty: true, signer: true, looks: []look{{3, false, 2}, {9, true, 8.5}, {15, true, 14}}, over: 34},
		{name: "a signer that lives and does not answer", hasty: true, signer: true, looks: alive(200, func(s float64) look { return look{s, true, s} }), over: 120},
		{name: "an introducer that lives and finds no signer", hasty: true, looks: alive(200, func(s float64) look { return look{s, s > 2, s} }), over: 11},
		{name: "the same, and the signer answers now and then", hasty: true, looks: []look{{2, true, 2}}, answers: []float64{9, 16}, over: 24},
		{name: "what is heard late counts from when it was heard", hasty: true, signer: true, looks: []look{{7, true, 1}}, over: 21},
		{name: "an admin may think", over: -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := signs{began: start, last: start, hasty: test.hasty, signer: test.signer}
			over := -1.0
			for sec := 0.0; sec < 300 && over < 0; sec += 0.5 {
				for _, l := range test.looks {
					if l.at == sec {
						s.look(l.up, time.Time{}, at(l.heard))
					}
				}
				for _, a := range test.answers {
					if a == sec {
						s.hear(at(a))
					}
				}
				if s.over(at(sec)) {
					over = sec
				}
			}
			if over != test.over {
				t.Errorf("it gives up after %v s, want %v", over, test.over)
			}
		})
	}
	s := signs{began: start, last: start, hasty: true}
	if s.lost(true, at(2.9)) || !s.lost(true, at(3)) || !s.lost(false, at(1)) {
		t.Error("an entry point is met again when it is silent for 3 s, or there is no session")
	}
	s.hasty = false
	if s.lost(true, at(600)) {
		t.Error("while an admin thinks nobody need say anything")
	}
}

// alive is a look every second.
func alive[T any](seconds int, of func(s float64) T) (list []T) {
	for s := range seconds {
		list = append(list, of(float64(s+1)))
	}
	return list
}
