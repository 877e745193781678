package udp_test

import (
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meshd/peer/udp"
	"meshd/peer/udp/udptest"
)

// served receives by Serve what Receive returns.
type served struct {
	*udp.Socket
	begin  sync.Once
	want   chan []udp.Packet
	got    chan int
	failed chan error
}

func serve(s *udp.Socket) *served {
	return &served{Socket: s, want: make(chan []udp.Packet), got: make(chan int), failed: make(chan error, 1)}
}

func (s *served) Receive(pkts []udp.Packet) (int, error) {
	s.begin.Do(func() {
		go func() {
			in := make([]udp.Packet, len(pkts))
			s.failed <- s.Serve(in, func(in []udp.Packet) {
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
	case s.want <- pkts:
		return <-s.got, nil
	case err := <-s.failed:
		s.failed <- err
		return 0, err
	}
}

// TestServeConforms: Serve hands over what Receive returns.
func TestServeConforms(t *testing.T) {
	for name, opts := range map[string]udp.Options{"everything": {}, "no batches": {NoBatch: true}} {
		t.Run(name, func(t *testing.T) {
			udptest.TestConn(t, func(t *testing.T, v6 bool) (a, b udp.Conn) {
				return serve(listen(t, loopback(v6), opts)), serve(listen(t, loopback(v6), opts))
			})
		})
	}
}

// TestServeWakes: whenever a datagram comes, also while the one before is being handled or just before the wait begins, it is
// handed over without another to wake the socket.
func TestServeWakes(t *testing.T) {
	for name, opts := range map[string]udp.Options{"everything": {}, "no batches": {NoBatch: true}} {
		t.Run(name, func(t *testing.T) {
			a, b := listen(t, loopback(false), opts), listen(t, loopback(false), opts)
			ended := make(chan error, 1)
			go func() {
				ended <- b.Serve(make([]udp.Packet, 8), func(pkts []udp.Packet) {
					if err := b.Send(pkts); err != nil { // back to where they came from
						t.Error(err)
					}
					for until := time.Now().Add(rand.N(20 * time.Microsecond)); time.Now().Before(until); {
					}
				})
			}()
			in, answered := make([]udp.Packet, 8), make(chan struct{})
			go func() {
				for {
					n, err := a.Receive(in)
					if err != nil {
						return
					}
					for range n {
						answered <- struct{}{}
					}
				}
			}()
			out := []udp.Packet{{Addr: b.LocalAddr(), Data: []byte("hello")}}
			for i := range 20_000 {
				if err := a.Send(out); err != nil {
					t.Fatal(err)
				}
				select {
				case <-answered:
				case <-time.After(10 * time.Second):
					t.Fatalf("datagram %d is not answered", i)
				}
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Serve = %v after Close", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("Serve does not end")
			}
		})
	}
}

// TestServeEnds: Close ends Serve and returns, also while each call brings as much as it can, and while none works.
func TestServeEnds(t *testing.T) {
	for name, prepare := range map[string]func(s *udp.Socket, stop chan struct{}){
		"flooded": func(s *udp.Socket, stop chan struct{}) {
			from := listen(t, loopback(false), udp.Options{})
			out := slices.Repeat([]udp.Packet{{Addr: s.LocalAddr(), Data: make([]byte, 1)}}, 64)
			go func() {
				for {
					select {
					case <-stop:
						return
					default:
						_ = from.Send(out) // it ends with the test
					}
				}
			}()
		},
		"no memory": func(s *udp.Socket, _ chan struct{}) { s.Fail(func(uintptr) syscall.Errno { return unix.ENOMEM }) },
	} {
		t.Run(name, func(t *testing.T) {
			s, stop := listen(t, loopback(false), udp.Options{}), make(chan struct{})
			defer close(stop)
			prepare(s, stop)
			begun, ended := make(chan struct{}), make(chan error, 1)
			go func() {
				once := sync.OnceFunc(func() { close(begun) })
				if name == "no memory" {
					once()
				}
				ended <- s.Serve(make([]udp.Packet, 8), func([]udp.Packet) {
					once()
					time.Sleep(time.Millisecond) // more has come meanwhile than a call takes
				})
			}()
			<-begun
			time.Sleep(50 * time.Millisecond)
			closed := make(chan struct{})
			go func() { defer close(closed); _ = s.Close() }()
			select {
			case <-closed:
			case <-time.After(10 * time.Second):
				t.Fatal("Close does not return")
			}
			select {
			case err := <-ended:
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Serve = %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("Serve does not end")
			}
		})
	}
}
