package l2test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"meshd/l2"
)

// EtherType is one of the two for local experiments (IEEE 802, 0x88b5). Host implementations of
// Conform need not pass on frames of other types, such as those the kernel sends.
const EtherType = 0x88b5

// patience is how long anything may take before a test fails.
const patience = 10 * time.Second

// Host is the other side of a device under test.
type Host interface {
	Inject(frame []byte)
	Frames() <-chan []byte
}

// Frame makes a test frame of the given size, at least 18 bytes, with number in it.
func Frame(dst, src l2.MAC, number uint32, size int) []byte {
	frame := make([]byte, max(size, 18))
	copy(frame, dst[:])
	copy(frame[6:], src[:])
	binary.BigEndian.PutUint16(frame[12:], EtherType)
	binary.BigEndian.PutUint32(frame[14:], number)
	for i := 18; i < len(frame); i++ {
		frame[i] = byte(i + int(number))
	}
	return frame
}

// Tagged returns frame with a tag of the given type and content put in.
func Tagged(frame []byte, tpid, tci uint16) []byte {
	tagged := append([]byte(nil), frame[:12]...)
	tagged = binary.BigEndian.AppendUint16(tagged, tpid)
	tagged = binary.BigEndian.AppendUint16(tagged, tci)
	return append(tagged, frame[12:]...)
}

// Whole makes frames that have nothing left to complete.
func Whole(list ...[]byte) (frames []l2.Frame) {
	for _, b := range list {
		frames = append(frames, l2.Frame{Data: b})
	}
	return frames
}

// Conform checks that a device does what l2.Device promises. open makes a new one;
// Conform closes it.
func Conform(t *testing.T, open func(t *testing.T) (l2.Device, Host)) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, l2.Device, Host){
		"reads what the host sends, in order":      readsInOrder,
		"hands to the host what it is given":       writes,
		"lent frames may be written to":            lends,
		"tags and sizes pass byte by byte":         transparent,
		"write borrows":                            borrows,
		"many may write":                           writesConcurrently,
		"close ends a read that waits":             closeEndsRead,
		"a closed device reads and writes nothing": closedStays,
	} {
		t.Run(name, func(t *testing.T) {
			device, host := open(t)
			defer device.Close()
			test(t, device, host)
		})
	}
}

func station(n byte) l2.MAC { return l2.MAC{2, 0, 0, 0, 0, n} }

// readTest reads until want test frames have come, passing over those of the kernel.
func readTest(t *testing.T, device l2.Device, want int) (got [][]byte) {
	t.Helper()
	overdue := time.AfterFunc(patience, func() { device.Close() })
	defer overdue.Stop()
	frames := make([]l2.Frame, 16)
	for len(got) < want {
		n, err := device.Read(frames)
		if err != nil {
			t.Fatalf("read after %d of %d frames: %v", len(got), want, err)
		}
		if n < 1 || n > len(frames) {
			t.Fatalf("read returned %d frames without an error", n)
		}
		for _, frame := range frames[:n] {
			if h, ok := l2.ParseHeader(frame.Data); ok && h.EtherType == EtherType {
				got = append(got, bytes.Clone(frame.Data))
			}
			for i := range frame.Data { // the reader may write to what it was lent
				frame.Data[i] = 0xff
			}
		}
	}
	return got
}

func next(t *testing.T, host Host) []byte {
	t.Helper()
	select {
	case frame := <-host.Frames():
		return frame
	case <-time.After(patience):
		t.Fatal("the host received nothing")
		return nil
	}
}

func readsInOrder(t *testing.T, device l2.Device, host Host) {
	const count = 300 // more than one batch, less than a TAP's queue
	for i := range uint32(count) {
		host.Inject(Frame(station(1), station(2), i, 64))
	}
	for i, frame := range readTest(t, device, count) {
		if want := Frame(station(1), station(2), uint32(i), 64); !bytes.Equal(frame, want) {
			t.Fatalf("frame %d is\n%x, want\n%x", i, frame, want)
		}
	}
}

func writes(t *testing.T, device l2.Device, host Host) {
	const count = 100
	var batch [][]byte
	for i := range uint32(count) {
		batch = append(batch, Frame(station(1), station(2), i, 64))
	}
	if err := device.Write(Whole(batch...)); err != nil {
		t.Fatal(err)
	}
	for i, want := range batch {
		if frame := next(t, host); !bytes.Equal(frame, want) {
			t.Fatalf("frame %d is\n%x, want\n%x", i, frame, want)
		}
	}
}

// lends relies on readTest, which overwrites what it was lent.
func lends(t *testing.T, device l2.Device, host Host) {
	for i := range uint32(400) { // around any arena of buffers and again
		want := Frame(station(1), station(2), i, 100)
		host.Inject(want)
		if got := readTest(t, device, 1)[0]; !bytes.Equal(got, want) {
			t.Fatalf("frame %d is\n%x, want\n%x", i, got, want)
		}
	}
}

func transparent(t *testing.T, device l2.Device, host Host) {
	full := l2.DefaultMTU + 14
	for name, frame := range map[string][]byte{
		"small":            Frame(station(1), station(2), 1, 18),
		"full":             Frame(station(1), station(2), 2, full),
		"broadcast":        Frame(l2.MAC{255, 255, 255, 255, 255, 255}, station(2), 3, 60),
		"tagged":           Tagged(Frame(station(1), station(2), 4, 60), 0x8100, 0x6064),
		"tagged, full":     Tagged(Frame(station(1), station(2), 5, full), 0x8100, 7),
		"priority tag":     Tagged(Frame(station(1), station(2), 6, 60), 0x8100, 0xe000),
		"service tag":      Tagged(Frame(station(1), station(2), 7, 60), 0x88a8, 9),
		"two tags":         Tagged(Tagged(Frame(station(1), station(2), 8, 60), 0x8100, 9), 0x88a8, 8),
		"multicast to all": Frame(l2.MAC{0x33, 0x33, 0, 0, 0, 1}, station(2), 9, 90),
	} {
		host.Inject(frame)
		if got := readTest(t, device, 1)[0]; !bytes.Equal(got, frame) {
			t.Errorf("%s: read\n%x, want\n%x", name, got, frame)
		}
		if err := device.Write(Whole(frame)); err != nil {
			t.Fatalf("%s: write: %v", name, err)
		}
		if got := next(t, host); !bytes.Equal(got, frame) {
			t.Errorf("%s: the host received\n%x, want\n%x", name, got, frame)
		}
	}
}

func borrows(t *testing.T, device l2.Device, host Host) {
	frame := Frame(station(1), station(2), 1, 64)
	want := bytes.Clone(frame)
	if err := device.Write(Whole(frame)); err != nil {
		t.Fatal(err)
	}
	clear(frame)
	if got := next(t, host); !bytes.Equal(got, want) {
		t.Fatalf("the host received\n%x, want\n%x", got, want)
	}
}

func writesConcurrently(t *testing.T, device l2.Device, host Host) {
	const writers, each = 4, 50
	var wg sync.WaitGroup
	for w := range byte(writers) {
		wg.Go(func() {
			for i := range uint32(each) {
				if err := device.Write(Whole(Frame(station(1), station(w), i, 64))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	due := map[byte]uint32{} // by writer: the number of its next frame
	for range writers * each {
		frame := next(t, host)
		from := frame[11]
		if want := Frame(station(1), station(from), due[from], 64); !bytes.Equal(frame, want) {
			t.Fatalf("writer %d: received\n%x, want\n%x", from, frame, want)
		}
		due[from]++
	}
	wg.Wait()
}

func closeEndsRead(t *testing.T, device l2.Device, _ Host) {
	ended := make(chan error, 1)
	reading := make(chan struct{})
	go func() {
		frames := make([]l2.Frame, 16)
		close(reading)
		for {
			switch n, err := device.Read(frames); {
			case err != nil:
				ended <- err
				return
			case n == 0:
				ended <- errors.New("it returned without a frame")
				return
			}
		}
	}()
	<-reading
	device.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrClosed) {
			t.Fatalf("read ended with %v, want os.ErrClosed", err)
		}
	case <-time.After(patience):
		t.Fatal("read did not end")
	}
}

func closedStays(t *testing.T, device l2.Device, _ Host) {
	if err := device.Close(); err != nil {
		t.Fatal(err)
	}
	if err := device.Close(); err != nil {
		t.Fatalf("closed again: %v", err)
	}
	if n, err := device.Read(make([]l2.Frame, 4)); n != 0 || !errors.Is(err, os.ErrClosed) {
		t.Fatalf("read gave %d, %v, want os.ErrClosed", n, err)
	}
	if err := device.Write(Whole(Frame(station(1), station(2), 0, 64))); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("write gave %v, want os.ErrClosed", err)
	}
}
