package l2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshd/l2"
	"meshd/l2/l2test"
)

const patience = 10 * time.Second

var broadcast = l2.MAC{255, 255, 255, 255, 255, 255}

// cable is a port whose other end is a remote of another switch.
type cable struct{ to *l2.RemotePort }

func (c *cable) Send(frame []byte, csumStart int) bool { c.to.Receive(frame, csumStart); return true }
func (c *cable) MaxFrame() int                         { return 0 }
func (c *cable) Flush()                                { c.to.Flush() }

// site is a switch that runs, with its device.
type site[D l2.Device] struct {
	sw  *l2.Switch
	dev D
	mac l2.MAC
}

// mesh runs a switch on every device, with cables between all of them. stop ends it
// and returns what the Runs returned.
func mesh[D l2.Device](devices ...D) (sites []*site[D], stop func() error) {
	for i, dev := range devices {
		mac := l2.MAC{2, 0x11, 0, 0, 0, byte(10 + i)}
		sites = append(sites, &site[D]{l2.NewSwitch(l2.Config{Device: dev, MAC: mac}), dev, mac})
	}
	name := func(i int) string { return fmt.Sprint("site", i) }
	for i, a := range sites {
		for j, b := range sites[:i] {
			toA, toB := &cable{}, &cable{}
			toB.to = b.sw.Connect(name(i), toA, l2.Allow{MAC: a.mac})
			toA.to = a.sw.Connect(name(j), toB, l2.Allow{MAC: b.mac})
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	errs := make([]error, len(sites))
	for i, s := range sites {
		wg.Go(func() { errs[i] = s.sw.Run(ctx) })
	}
	return sites, func() error {
		cancel()
		wg.Wait()
		return errors.Join(errs...)
	}
}

func drain(from <-chan []byte) (frames [][]byte) {
	for {
		select {
		case frame := <-from:
			frames = append(frames, frame)
		default:
			return frames
		}
	}
}

func TestThreeSites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sites, stop := mesh(l2test.NewDevice("a"), l2test.NewDevice("b"), l2test.NewDevice("c"))
		pass := func(from int, frame []byte) (got [3]int) {
			t.Helper()
			sites[from].dev.Inject(frame)
			synctest.Wait()
			for i, s := range sites {
				for _, f := range drain(s.dev.Frames()) {
					if !bytes.Equal(f, frame) {
						t.Errorf("site %d received\n%x, want\n%x", i, f, frame)
					}
					got[i]++
				}
			}
			return got
		}
		a, b := sites[0].mac, sites[1].mac
		for name, test := range map[string]struct {
			frame []byte
			want  [3]int
		}{
			"broadcast, exactly once": {l2test.Frame(broadcast, a, 1, 60), [3]int{0, 1, 1}},
			"to a member":             {l2test.Frame(b, a, 2, 1514), [3]int{0, 1, 0}},
			"tagged":                  {l2test.Tagged(l2test.Frame(b, a, 3, 1514), 0x8100, 42), [3]int{0, 1, 0}},
			"spanning tree":           {l2test.Frame(l2.MAC{1, 0x80, 0xc2}, a, 4, 60), [3]int{}},
		} {
			if got := pass(0, test.frame); got != test.want {
				t.Errorf("%s: delivered %v, want %v", name, got, test.want)
			}
		}
		// The limit holds at the sender; a second of waiting gives 300 more.
		for i := range uint32(2000) {
			sites[0].dev.Inject(l2test.Frame(broadcast, a, i, 60))
		}
		synctest.Wait()
		if n := len(drain(sites[1].dev.Frames())); n < 590 || n > 600 {
			t.Errorf("%d of 2000 broadcasts arrived, want the burst of 600 less what went before", n)
		}
		time.Sleep(time.Second)
		for i := range uint32(2000) {
			sites[0].dev.Inject(l2test.Frame(broadcast, a, i, 60))
		}
		synctest.Wait()
		if n := len(drain(sites[1].dev.Frames())); n != 300 {
			t.Errorf("%d broadcasts arrived a second later, want 300", n)
		}
		if err := stop(); err != nil {
			t.Errorf("Run returned %v on cancellation", err)
		}
	})
}

func TestRunWithoutDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l2.NewSwitch(l2.Config{}).Run(ctx) }()
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("Run ended before its context, with %v", err)
		default:
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestRunEndsWithItsDevice(t *testing.T) {
	dev := l2test.NewDevice("twin0")
	dev.Close()
	if err := l2.NewSwitch(l2.Config{Device: dev}).Run(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Run returned %v, want os.ErrClosed", err)
	}
}

// Ports come and go under traffic from several goroutines. The race detector judges;
// besides, what arrives is in order for each remote.
func TestConcurrentUse(t *testing.T) {
	dev := l2test.NewDevice("twin0")
	own := l2.MAC{2, 0, 0, 0, 0, 0xff}
	sw := l2.NewSwitch(l2.Config{Device: dev, MAC: own})
	ctx, cancel := context.WithCancel(t.Context())
	var running, busy sync.WaitGroup
	running.Go(func() {
		if err := sw.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	null := &cable{l2.NewSwitch(l2.Config{}).Connect("", nil, l2.Allow{})}
	const count = 1000
	for n := range byte(4) {
		mac := l2.MAC{2, 0, 0, 0, 0, n}
		r := sw.Connect(fmt.Sprint(n), null, l2.Allow{MAC: mac})
		busy.Go(func() {
			for i := range uint32(count) {
				r.Receive(l2test.Frame(own, mac, i, 64), 0)
				if i%7 == 0 {
					r.Flush()
				}
			}
			r.Flush()
		})
		busy.Go(func() {
			for range count / 10 {
				r.Flush()
			}
		})
	}
	busy.Go(func() {
		for i := range uint32(count) {
			sw.Connect("x", null, l2.Allow{MAC: l2.MAC{2, 0, 0, 0, 1, byte(i)}}).Receive(l2test.Frame(broadcast, l2.MAC{2, 0, 0, 0, 2, 2}, i, 64), 0)
			dev.Inject(l2test.Frame(broadcast, own, i, 64))
			sw.Disconnect("x")
			if i%100 == 0 {
				sw.Hosts()
				sw.Counters()
				sw.SetOwn(l2.Allow{MAC: own})
			}
		}
	})
	busy.Wait()
	cancel()
	running.Wait()
	due := map[byte]uint32{}
	for _, frame := range drain(dev.Frames()) {
		if frame[10] != 0 {
			continue // of the port that comes and goes
		}
		from := frame[11]
		if want := l2test.Frame(own, l2.MAC{2, 0, 0, 0, 0, from}, due[from], 64); !slices.Equal(frame, want) {
			t.Fatalf("remote %d: received\n%x, want\n%x", from, frame, want)
		}
		due[from]++
	}
	for n := range byte(4) {
		if due[n] != count {
			t.Errorf("%d frames of remote %d, want %d", due[n], n, count)
		}
	}
}
