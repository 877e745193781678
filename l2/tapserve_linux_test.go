package l2_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"meshd/l2"
	"meshd/l2/l2test"
)

// served reads by ServeQueue what Read returns.
type served struct {
	*l2.TAP
	begin  sync.Once
	want   chan []l2.Frame
	got    chan int
	failed chan error
}

func (s *served) Read(frames []l2.Frame) (int, error) {
	s.begin.Do(func() {
		go func() {
			s.failed <- s.ServeQueue(0, make([]l2.Frame, 128), func(in []l2.Frame) {
				for len(in) > 0 {
					out := <-s.want
					n := copy(out, in)
					for i := range out[:n] {
						out[i].Data = append([]byte(nil), out[i].Data...)
					}
					in = in[n:]
					s.got <- n
				}
			})
		}()
	})
	select {
	case s.want <- frames:
		return <-s.got, nil
	case err := <-s.failed:
		s.failed <- err
		return 0, err
	}
}

func TestTAPServeConforms(t *testing.T) {
	l2test.Conform(t, func(t *testing.T) (l2.Device, l2test.Host) {
		n := newNetwork(t)
		tap := openTAP(t, n, l2.TAPConfig{Name: "mesh0", MAC: macA})
		s := &served{TAP: tap, want: make(chan []l2.Frame), got: make(chan int), failed: make(chan error, 1)}
		return s, newWire(t, n, "mesh0", ofTest)
	})
}

// TestTAPServeWakes: whenever a frame comes, also while the one before is being handled or just before the wait begins, it is
// handed over without another to wake the queue.
func TestTAPServeWakes(t *testing.T) {
	n := newNetwork(t)
	tap := openTAP(t, n, l2.TAPConfig{Name: "mesh0", MAC: macA})
	host := newWire(t, n, "mesh0", ofTest)
	seen, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- tap.ServeQueue(0, make([]l2.Frame, 128), func(frames []l2.Frame) {
			for _, f := range frames {
				if ofTest(f.Data) {
					seen <- struct{}{}
				}
			}
			for until := time.Now().Add(rand.N(20 * time.Microsecond)); time.Now().Before(until); {
			}
		})
	}()
	for i := range uint32(10_000) {
		host.Inject(l2test.Frame(macB, macA, i, 60))
		select {
		case <-seen:
		case <-time.After(patience):
			t.Fatalf("frame %d is not handed over", i)
		}
	}
	tap.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("ServeQueue = %v after Close", err)
		}
	case <-time.After(patience):
		t.Fatal("ServeQueue does not end")
	}
}
