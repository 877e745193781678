package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"meshd/integration/lab"
)

const (
	udpPort   = 5999
	udpBatch  = 64      // datagrams per system call, at most
	udpBuffer = 8 << 20 // of each socket
	udpStep   = 100 * time.Microsecond
	udpLinger = 100 * time.Millisecond // without an arrival: nothing is under way any longer
	udpDrain  = 5 * time.Second        // at most, for what is under way when the sender stops
)

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
}

// batch is datagrams for one system call. Each begins with the number of the flood that it belongs to.
type batch struct {
	messages [udpBatch]message
	vectors  [udpBatch]unix.Iovec
	buffers  [udpBatch][2048]byte
}

func newBatch(size int) *batch {
	b := new(batch)
	for i := range b.messages {
		b.vectors[i].Base = &b.buffers[i][0]
		b.vectors[i].SetLen(size)
		b.messages[i].header.Iov = &b.vectors[i]
		b.messages[i].header.SetIovlen(1)
	}
	return b
}

// exchange sends or receives up to n datagrams.
func (b *batch) exchange(call uintptr, fd, n, flags int) (int, error) {
	done, _, errno := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&b.messages[0])), uintptr(n), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(done), nil
}

// flooder sends datagrams from one host to another, and counts those that arrive.
type flooder struct {
	out, in int // sockets
	number  uint32
	current atomic.Uint32 // the flood whose datagrams count
	arrived atomic.Int64
	last    atomic.Int64 // when any arrived, in nanoseconds since began
	began   time.Time
	stop    atomic.Bool
	group   sync.WaitGroup
}

// newFlooder opens the sockets; to is an address of the host that receives.
func newFlooder(from, at *lab.Host, to netip.Addr) (*flooder, error) {
	f := &flooder{out: -1, in: -1, began: time.Now()}
	var err error
	if err = at.Do(func() (err error) { f.in, err = udpSocket(to, unix.Bind); return err }); err != nil {
		return nil, fmt.Errorf("open socket that receives: %w", err)
	}
	if err = from.Do(func() (err error) { f.out, err = udpSocket(to, unix.Connect); return err }); err != nil {
		unix.Close(f.in)
		return nil, fmt.Errorf("open socket that sends: %w", err)
	}
	f.group.Go(f.receive)
	return f, nil
}

func udpSocket(addr netip.Addr, attach func(int, unix.Sockaddr) error) (int, error) {
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: udpPort, Addr: addr.Unmap().As4()})
	if addr.Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: udpPort, Addr: addr.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, udpBuffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
		attach(fd, sa),
	)
	if family == unix.AF_INET { // what does not fit is cut by the host, as it would be for any program that asks for nothing
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Close ends the counting and closes the sockets.
func (f *flooder) Close() error {
	f.stop.Store(true)
	f.group.Wait()
	return errors.Join(unix.Close(f.in), unix.Close(f.out))
}

func (f *flooder) receive() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer hurry()()
	b := newBatch(len(batch{}.buffers[0]))
	for !f.stop.Load() {
		n, err := b.exchange(unix.SYS_RECVMMSG, f.in, udpBatch, unix.MSG_WAITFORONE)
		if err != nil {
			continue // nothing for a while
		}
		want, got := f.current.Load(), int64(0)
		for i := range n {
			if binary.BigEndian.Uint32(b.buffers[i][:]) == want {
				got++
			}
		}
		f.arrived.Add(got)
		f.last.Store(int64(time.Since(f.began)))
	}
}

// flood is what has come of one.
type flood struct {
	sent, arrived int64
	wall          time.Duration // that it was sent in
	drained       time.Duration // until the last one arrived
	rate          float64       // that was asked for, per second
}

// loss is the share of what was sent that did not arrive.
func (f flood) loss() float64 {
	if f.sent == 0 {
		return 1
	}
	return max(0, 1-float64(f.arrived)/float64(f.sent))
}

// shortfall is the share of what should have been sent that did not arrive: a tunnel that leaves the sender no time for it
// does not carry the rate either.
func (f flood) shortfall() float64 {
	return max(0, 1-float64(f.arrived)/(f.rate*f.wall.Seconds()))
}

// received is how many arrived per second.
func (f flood) received() float64 { return float64(f.arrived) / max(f.wall, f.drained).Seconds() }

// kept reports whether the sender kept up with the rate.
func (f flood) kept() bool { return float64(f.sent) >= 0.95*f.rate*f.wall.Seconds() }

// send sends datagrams of so many bytes at a rate for so long, and waits for those under way.
func (f *flooder) send(ctx context.Context, size int, rate float64, d time.Duration) flood {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer hurry()()
	f.number++
	b := newBatch(size)
	for i := range b.buffers {
		binary.BigEndian.PutUint32(b.buffers[i][:], f.number)
	}
	f.arrived.Store(0)
	f.current.Store(f.number)
	began, sent := time.Now(), int64(0)
	elapsed := time.Duration(0)
	for ; elapsed < d && ctx.Err() == nil; elapsed = time.Since(began) {
		due := int64(rate*elapsed.Seconds()) + 1 - sent
		if due <= 0 {
			pause := unix.NsecToTimespec(int64(udpStep))
			_ = unix.Nanosleep(&pause, nil) // woken early, it looks again
			continue
		}
		n, err := b.exchange(unix.SYS_SENDMMSG, f.out, int(min(due, udpBatch)), 0)
		if err != nil {
			n = 1 // refused by a queue on the way: lost
		}
		sent += int64(n)
	}
	f.drain(ctx)
	drained := f.began.Add(time.Duration(f.last.Load())).Sub(began)
	return flood{sent: sent, arrived: f.arrived.Load(), wall: elapsed, drained: drained, rate: rate}
}

// drain waits until nothing arrives any longer. Some tunnels, such as those over TCP, hold seconds of what is sent.
func (f *flooder) drain(ctx context.Context) {
	stopped := time.Since(f.began)
	for {
		now := time.Since(f.began)
		idle := now - max(stopped, time.Duration(f.last.Load()))
		if idle >= udpLinger || now-stopped >= udpDrain || ctx.Err() != nil {
			return
		}
		time.Sleep(udpLinger - idle)
	}
}

// hurry lets the calling thread, which is locked, go before the programs that are measured: what it offers is to be what was
// asked for. It uses little time itself. The function that it returns takes it back.
func hurry() func() {
	const priority = -10
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // else sleeps are 50 µs longer
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), priority)
	return func() { _ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 0) }
}

// mostLoss is how much may be lost at a rate that counts.
const mostLoss = 0.01

// fastest looks for the highest rate at which less than mostLoss is lost, beginning at first: it doubles, or halves, until it
// has a rate that passes and one that does not, and then halves what is between them (by ratio) so many times. A rate that
// fails has a second chance: a pause of the machine is not the tunnel's loss.
func fastest(first float64, narrow int, try func(rate float64) flood) float64 {
	const most, least = 16e6, 100
	best, low, high := 0.0, 0.0, 0.0
	attempt := func(rate float64) (passed, more bool) {
		f := try(rate)
		if f.loss() >= mostLoss || !f.kept() {
			f = try(rate)
		}
		if f.loss() >= mostLoss {
			high = rate
			return false, false
		}
		low = rate
		best = max(best, f.received())
		return true, f.kept()
	}
	passed, more := attempt(first)
	for rate := 2 * first; passed && more && rate < most; rate *= 2 {
		passed, more = attempt(rate)
	}
	if passed { // the sender is at its end
		return best
	}
	for rate := high / 2; low == 0 && rate > least; rate /= 2 {
		attempt(rate)
	}
	for range narrow {
		if low == 0 {
			break
		}
		attempt(math.Sqrt(low * high))
	}
	return best
}
