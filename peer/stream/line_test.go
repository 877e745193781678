package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"meshd/peer/udp"
)

// Attempts that fail are few, and a stream that worked is back at once.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCarrier(t)
		var attempts atomic.Int64
		addr := c.Open("dead", func(context.Context) (io.ReadWriteCloser, error) {
			attempts.Add(1)
			return nil, errNone
		})
		if c.Open("dead", noDial) != addr {
			t.Error("the same line is opened twice")
		}
		time.Sleep(time.Minute - time.Nanosecond)
		synctest.Wait()
		before := attempts.Load()
		if before < 3 || before > 5 {
			t.Errorf("%d attempts in the first minute", before)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := attempts.Load() - before; n < 9 || n > 11 {
			t.Errorf("%d attempts in ten minutes", n)
		}
		if err := c.Await(t.Context(), addr); !errors.Is(err, errNone) {
			t.Errorf("got %v", err)
		}
		c.Hang(addr)
		synctest.Wait()
		before = attempts.Load()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if attempts.Load() != before {
			t.Error("a line that was hung up is dialled")
		}
		if err := c.Await(t.Context(), addr); !errors.Is(err, ErrNoStream) {
			t.Errorf("got %v", err)
		}

		var far net.Conn
		good := c.Open("good", func(context.Context) (io.ReadWriteCloser, error) {
			near, other := net.Pipe()
			far = other
			go func() { _, _ = io.Copy(io.Discard, other) }()
			go func() {
				for { // it says that it is there
					if _, err := other.Write([]byte{0, 0}); err != nil {
						return
					}
					time.Sleep(keepaliveEvery)
				}
			}()
			return near, nil
		})
		if err := c.Await(t.Context(), good); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		_ = far.Close()
		synctest.Wait()
		if c.Up(good) {
			t.Error("a stream that has ended is up")
		}
		lost := time.Now()
		time.Sleep(again)
		synctest.Wait()
		if !c.Up(good) {
			t.Errorf("it is not back %v after it was lost", time.Since(lost))
		}
		_ = c.Close()
		time.Sleep(time.Minute)
	})
}

// A dial that hangs does not outlive the carrier.
func TestCloseEndsDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCarrier(t)
		addr := c.Open("slow", func(ctx context.Context) (io.ReadWriteCloser, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		go func() {
			time.Sleep(time.Second)
			_ = c.Close()
		}()
		if err := c.Await(t.Context(), addr); err == nil {
			t.Error("it is up")
		}
		_ = c.Close()
		if _, err := c.Receive(make([]udp.Packet, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
		if err := c.Accept(nopStream{}, Caller{Name: "late"}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a stream is taken after the end: %v", err)
		}
	})
}

type nopStream struct{}

func (nopStream) Read([]byte) (int, error)    { return 0, io.EOF }
func (nopStream) Write(b []byte) (int, error) { return len(b), nil }
func (nopStream) Close() error                { return nil }

// Sending never blocks, whatever the other end does; what does not fit is counted;
// runs come out as the datagrams they are, in order.
func TestSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCarrier(t)
		near, far := net.Pipe()
		addr := c.Open("slow", func(context.Context) (io.ReadWriteCloser, error) { return near, nil })
		if err := c.Await(t.Context(), addr); err != nil {
			t.Fatal(err)
		}
		run := make([]byte, 0, 1400*40)
		for i := range 40 {
			run = append(run, data(i, 1400)...)
		}
		for range 100 {
			if err := c.Send([]udp.Packet{{Addr: addr, Data: run, Seg: 1400}}); err != nil {
				t.Fatal(err)
			}
		}
		if n := c.Dropped(); n < 3000 {
			t.Errorf("%d dropped of 4000 that nobody reads", n)
		}
		if err := c.Send([]udp.Packet{{Addr: addr, Data: make([]byte, maxDatagram+1)}}); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("too large: %v", err)
		}
		if err := c.Send([]udp.Packet{{Addr: c.LocalAddr(), Data: []byte{1}}}); !errors.Is(err, ErrNoStream) {
			t.Errorf("to nobody: %v", err)
		}
		_ = far.Close()
		_ = c.Close()
	})
}
