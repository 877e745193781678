package l2_test

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// network is a fresh network namespace; do runs in it.
type network struct {
	t      *testing.T
	handle netns.NsHandle
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace and a TAP")
	}
	n := &network{t: t}
	n.onThread(func() (err error) {
		n.handle, err = netns.New()
		return err
	})
	t.Cleanup(func() { n.handle.Close() })
	return n
}

// onThread runs f on a thread of its own that ends with it, whatever f does to it.
func (n *network) onThread(f func() error) {
	n.t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is not used again
		result <- f()
	}()
	if err := <-result; err != nil {
		n.t.Fatal(err)
	}
}

func (n *network) do(f func() error) {
	n.t.Helper()
	n.onThread(func() error { return errors.Join(netns.Set(n.handle), f()) })
}

// wire is a packet socket on an interface: the host's side of a TAP, below its
// protocols. It sees one EtherType and only what arrives.
type wire struct {
	file   *os.File
	raw    syscall.RawConn
	t      *testing.T
	frames chan []byte
}

func newWire(t *testing.T, n *network, name string, wanted func(frame []byte) bool) *wire {
	t.Helper()
	w := &wire{t: t, frames: make(chan []byte, 4096)}
	n.do(func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		fd, err := packetSocket(ifi.Index)
		if err != nil {
			return err
		}
		w.file = os.NewFile(uintptr(fd), "packet:"+name)
		w.raw, err = w.file.SyscallConn()
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.listen(wanted)
	}()
	t.Cleanup(func() {
		w.file.Close()
		<-done
	})
	return w
}

func packetSocket(index int) (int, error) {
	all := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: index}),
	)
	return fd, err
}

// Inject sends frame out of the interface, as the host would.
func (w *wire) Inject(frame []byte) {
	w.t.Helper()
	if _, err := w.file.Write(frame); err != nil {
		w.t.Errorf("inject: %v", err)
	}
}

func (w *wire) Frames() <-chan []byte { return w.frames }

func (w *wire) listen(wanted func([]byte) bool) {
	buf, aux := make([]byte, 16<<10), make([]byte, 256)
	for {
		var n, auxLen int
		var err error
		if w.raw.Read(func(fd uintptr) bool {
			n, auxLen, _, _, err = unix.Recvmsg(int(fd), buf, aux, 0)
			return err != unix.EAGAIN
		}) != nil {
			return
		}
		if err == unix.ENETDOWN {
			continue
		}
		if err != nil {
			w.t.Errorf("recvmsg: %v", err)
			return
		}
		if frame := untouched(buf[:n], aux[:auxLen]); wanted(frame) {
			w.frames <- frame
		}
	}
}

// untouched puts the outer tag back that the kernel has moved into the auxiliary data
// (struct tpacket_auxdata).
func untouched(frame, aux []byte) []byte {
	frame = slices.Clone(frame)
	messages, err := unix.ParseSocketControlMessage(aux)
	if err != nil || len(messages) == 0 || len(messages[0].Data) < 20 {
		return frame
	}
	data := messages[0].Data
	if binary.NativeEndian.Uint32(data)&unix.TP_STATUS_VLAN_VALID == 0 {
		return frame
	}
	tag := binary.BigEndian.AppendUint16(nil, binary.NativeEndian.Uint16(data[18:])) // tp_vlan_tpid
	tag = binary.BigEndian.AppendUint16(tag, binary.NativeEndian.Uint16(data[16:]))  // tp_vlan_tci
	return slices.Insert(frame, 12, tag...)
}
