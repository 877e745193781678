package wireguard

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestDataPathDoesNotAllocate(t *testing.T) {
	a, b := newPair(t, Options{PersistentKeepalive: time.Minute}, Options{})
	connect(t, a, b, testStart)
	from, to := a.session, b.session.SendKey()
	buf := make([]byte, 2048)
	now := testStart.Add(time.Second)
	n := testing.AllocsPerRun(1000, func() {
		now = now.Add(time.Microsecond)
		kp := from.SendKey()
		packet, err := kp.Seal(buf[:0], buf[HeaderSize:HeaderSize+1400])
		if err != nil || kp.MarkSent(now) {
			t.Fatal("no packet, or a tick wanted", err)
		}
		if _, err := to.Open(packet); err != nil || to.MarkReceived(now, false) {
			t.Fatal("packet refused, or a tick wanted", err)
		}
		if _, err := to.Open(packet); err == nil {
			t.Fatal("refused packets must be cheap as well")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for each packet", n)
	}
}

// Many goroutines on one key: no counter twice, no packet accepted twice. With
// -race it is also the test of what may be called at any time.
func TestConcurrentDataPath(t *testing.T) {
	a, b := newPair(t, Options{}, Options{})
	connect(t, a, b, testStart)
	from, to := a.session, b.session.SendKey()
	const workers, each = 4, 500
	var accepted, refused atomic.Int64
	packets := make(chan []byte, 2*workers*each)
	var senders, receivers sync.WaitGroup
	for range workers {
		senders.Go(func() {
			for range each {
				kp := from.SendKey()
				packet, err := kp.Seal(nil, make([]byte, 100))
				if err != nil {
					t.Error(err)
				}
				kp.MarkSent(testStart)
				again := append([]byte(nil), packet...) // Open works in place
				packets <- packet
				packets <- again
			}
		})
		receivers.Go(func() {
			for p := range packets {
				switch _, err := to.Open(p); {
				case err == nil:
					accepted.Add(1)
					to.MarkReceived(testStart, false)
				case errors.Is(err, ErrReplay):
					refused.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	for range 100 { // the owner of the Session, meanwhile
		a.tick(testStart)
		a.session.Stats()
	}
	senders.Wait()
	close(packets)
	receivers.Wait()
	if accepted.Load() != workers*each || refused.Load() != workers*each {
		t.Errorf("%d accepted and %d refused of %d sent twice", accepted.Load(), refused.Load(), workers*each)
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{64, 1420} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			x, y := newPair(b, Options{}, Options{})
			connect(b, x, y, testStart)
			kp, buf := x.session.SendKey(), make([]byte, 2048)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := kp.Seal(buf[:0], buf[HeaderSize:HeaderSize+size]); err != nil {
					b.Fatal(err)
				}
				kp.MarkSent(testStart)
			}
		})
	}
}

func BenchmarkSealAndOpen(b *testing.B) {
	for _, size := range []int{64, 1420} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			x, y := newPair(b, Options{}, Options{})
			connect(b, x, y, testStart)
			from, to, buf := x.session.SendKey(), y.session.SendKey(), make([]byte, 2048)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				packet, err := from.Seal(buf[:0], buf[HeaderSize:HeaderSize+size])
				if err != nil {
					b.Fatal(err)
				}
				if _, err := to.Open(packet); err != nil {
					b.Fatal(err)
				}
				to.MarkReceived(testStart, false)
			}
		})
	}
}

// What a stranger with our public key can make us compute.
func BenchmarkInitiationKey(b *testing.B) {
	x, y := newPair(b, Options{}, Options{})
	x.initiate(testStart)
	msg := x.messages()[0]
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := y.local.InitiationKey(msg); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckMACs(b *testing.B) {
	for _, load := range []bool{false, true} {
		b.Run(fmt.Sprintf("load=%v", load), func(b *testing.B) {
			x, y := newPair(b, Options{}, Options{})
			x.initiate(testStart)
			msg := x.messages()[0]
			for b.Loop() {
				y.local.CheckMACs(msg, []byte("source"), load, testStart)
			}
		})
	}
}
