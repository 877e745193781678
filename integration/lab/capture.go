//go:build linux

package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// maxCapture bounds the bytes that a capture keeps. What comes later is counted.
const maxCapture = 256 << 20

// Frame is one frame that was captured, complete from the destination MAC on, with its VLAN tag in place.
type Frame struct {
	Time time.Time
	Out  bool // sent by the host, and not received
	Data []byte
}

// Capture keeps the frames of one interface.
type Capture struct {
	conn  *socket.Conn
	group sync.WaitGroup

	mu     sync.Mutex
	frames []Frame
	size   int
	lost   int
	more   chan struct{} // closed, and made anew, with each frame
	closed bool
}

// Capture begins to keep the frames that an interface of the host sends and receives, until Close or the lab's end.
func (h *Host) Capture(name string) (*Capture, error) {
	var c *Capture
	err := h.lab.change(fmt.Sprintf("capture %s of %s", name, h.name), func() error {
		conn, err := h.openFrames(name)
		if err != nil {
			return err
		}
		c = &Capture{conn: conn, more: make(chan struct{})}
		c.group.Go(c.read)
		h.lab.own(c)
		return nil
	})
	return c, err
}

// SendFrame puts one frame on an interface of the host.
func (h *Host) SendFrame(name string, frame []byte) error {
	h.lab.mu.Lock()
	conn, err := h.openFrames(name)
	h.lab.mu.Unlock()
	if err != nil {
		return fmt.Errorf("lab: send frame: %w", err)
	}
	_, err = conn.Write(frame)
	if err = errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("lab: send frame by %s of %s: %w", name, h.name, err)
	}
	return nil
}

// openFrames opens a packet socket on an interface that the lab, or a program, has made.
func (h *Host) openFrames(name string) (*socket.Conn, error) {
	if h.lab.err != nil {
		return nil, h.lab.err
	}
	link, err := h.ns.link.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s of %s: %w", name, h.name, err)
	}
	c, err := socket.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0, "packet", &socket.Config{NetNS: h.ns.fd})
	if err != nil {
		return nil, fmt.Errorf("open packet socket on %s: %w", h.name, err)
	}
	_ = c.SetReadBuffer(relayBuffer)
	err = c.SetsockoptInt(unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)
	if err == nil {
		err = c.Bind(&unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: link.Attrs().Index})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind packet socket to %s of %s: %w", name, h.name, err), c.Close())
	}
	return c, nil
}

// read keeps frames until the socket is closed.
func (c *Capture) read() {
	buf, oob := make([]byte, maxFrame), make([]byte, 128)
	for {
		n, oobn, _, from, err := c.conn.Recvmsg(context.Background(), buf, oob, 0)
		if errors.Is(err, unix.ENETDOWN) {
			continue // reported once each time that the interface goes down
		}
		if err != nil {
			return
		}
		out := false
		if ll, ok := from.(*unix.SockaddrLinklayer); ok {
			out = ll.Pkttype == unix.PACKET_OUTGOING
		}
		c.add(Frame{Time: time.Now(), Out: out, Data: withTag(buf[:n], oob[:oobn])})
	}
}

// withTag copies a frame, and puts the VLAN tag back that the kernel has taken out (struct tpacket_auxdata, packet(7)).
func withTag(frame, oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(frame) < 14 {
		return bytes.Clone(frame)
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 {
			continue
		}
		status := binary.NativeEndian.Uint32(m.Data)
		if status&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tci, tpid := binary.NativeEndian.Uint16(m.Data[16:]), uint16(unix.ETH_P_8021Q)
		if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
			tpid = binary.NativeEndian.Uint16(m.Data[18:])
		}
		tagged := make([]byte, 0, len(frame)+4)
		tagged = append(tagged, frame[:12]...)
		tagged = binary.BigEndian.AppendUint16(tagged, tpid)
		tagged = binary.BigEndian.AppendUint16(tagged, tci)
		return append(tagged, frame[12:]...)
	}
	return bytes.Clone(frame)
}

func (c *Capture) add(f Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size+len(f.Data) > maxCapture {
		c.lost++
		return
	}
	c.size += len(f.Data)
	c.frames = append(c.frames, f)
	close(c.more)
	c.more = make(chan struct{})
}

// Close ends the capture. What it holds stays readable.
func (c *Capture) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	err := c.conn.Close()
	c.group.Wait()
	return err
}

// Frames returns what has been captured so far. The frames are shared: do not write to them.
func (c *Capture) Frames() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.frames)
}

// Lost is how many frames came after the capture was full.
func (c *Capture) Lost() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// Count counts the frames so far that match.
func (c *Capture) Count(match func(Frame) bool) int {
	n := 0
	for _, f := range c.Frames() {
		if match(f) {
			n++
		}
	}
	return n
}

// Wait waits for a frame that matches, also one that was captured before.
func (c *Capture) Wait(ctx context.Context, match func(Frame) bool) (Frame, error) {
	for next := 0; ; {
		c.mu.Lock()
		fresh, more := c.frames[next:], c.more
		c.mu.Unlock()
		for _, f := range fresh {
			if match(f) {
				return f, nil
			}
		}
		next += len(fresh)
		select {
		case <-more:
		case <-ctx.Done():
			return Frame{}, fmt.Errorf("lab: none of %d frames is the one that is waited for: %w", next, ctx.Err())
		}
	}
}

// Find returns the first frame that contains needle.
func (c *Capture) Find(needle []byte) (Frame, bool) {
	for _, f := range c.Frames() {
		if bytes.Contains(f.Data, needle) {
			return f, true
		}
	}
	return Frame{}, false
}

// WritePcap writes the frames in the format of libpcap, with microseconds, for tcpdump and Wireshark.
func (c *Capture) WritePcap(w io.Writer) error {
	const linkTypeEthernet = 1
	head := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	head = binary.LittleEndian.AppendUint16(head, 2)
	head = binary.LittleEndian.AppendUint16(head, 4)
	head = append(head, make([]byte, 8)...) // zone, accuracy
	head = binary.LittleEndian.AppendUint32(head, maxFrame)
	head = binary.LittleEndian.AppendUint32(head, linkTypeEthernet)
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("lab: write pcap: %w", err)
	}
	for _, f := range c.Frames() {
		rec := binary.LittleEndian.AppendUint32(nil, uint32(f.Time.Unix()))
		rec = binary.LittleEndian.AppendUint32(rec, uint32(f.Time.Nanosecond()/1000))
		rec = binary.LittleEndian.AppendUint32(rec, uint32(len(f.Data)))
		rec = binary.LittleEndian.AppendUint32(rec, uint32(len(f.Data)))
		if _, err := w.Write(append(rec, f.Data...)); err != nil {
			return fmt.Errorf("lab: write pcap: %w", err)
		}
	}
	return nil
}
