package offload

import "encoding/binary"

const (
	// maxHeader bounds the headers of a super-frame: Ethernet, tags, IP with its
	// options or extension headers, TCP.
	maxHeader = 512
	// minSegment is the least payload worth a segment. A path that leaves less is
	// not asked for.
	minSegment = 64
)

// Cutter makes frames of what a host hands over: segments of super-frames, and
// smaller segments where a path needs them. It can be asked for one frame after the
// other, so that a super-frame may have any number. The zero value is ready for
// Begin.
//
// Checksums that the host has left out stay out where the receiver can tell where
// they belong (CsumStart), until Complete is called. Others are filled in.
//
// It works in place. The headers of a segment are written over the end of the
// segment before, which has gone by then: nothing is copied but headers.
type Cutter struct {
	data   []byte
	header [maxHeader]byte // of the super-frame; what differs between segments is zero
	frame  []byte          // the last that Next has returned
	pkt    packet
	start  int  // CsumStart
	cut    bool // else data is the one frame
	done   bool
	mss    int // payload of each segment but the last
	at     int // payload that has gone
	seq    uint32
	id     uint16
	flags  uint8

	// Sums of what is the same in all segments: the IPv4 header; the
	// pseudo-header, and the transport header unless its checksum stays out.
	ipSum, fixed uint64
}

// Begin takes a frame as the host handed it over. It belongs to the Cutter until
// Next has reported the end. TCP segments are made no larger than limit (0: as the
// host says); what may not be cut stays as large as it is.
//
// It reports false when the header does not fit the frame: it is to be dropped, and
// Next has nothing.
func (c *Cutter) Begin(f Frame, limit int) bool {
	c.data, c.frame, c.start, c.at, c.cut, c.done = f.Data, nil, 0, 0, false, false
	ok := c.accept(f, limit)
	c.done = !ok
	return ok
}

func (c *Cutter) accept(f Frame, limit int) bool {
	switch f.gso() {
	case GSONone:
		return c.beginWhole(f, limit)
	case GSOTCPv4, GSOTCPv6:
		return f.Flags&FlagNeedsCsum != 0 && c.locate(f, protoTCP) && c.beginTCP(int(f.GSOSize), limit)
	case GSOUDP:
		return f.Flags&FlagNeedsCsum != 0 && c.locate(f, protoUDP) && c.begin(int(f.GSOSize))
	}
	return false
}

// locate finds the headers of a super-frame. Where the transport header is, the
// host says: it may be behind extension headers.
func (c *Cutter) locate(f Frame, proto uint8) bool {
	b, p := f.Data, &c.pkt
	p.l3, p.v6 = network(b)
	p.l4, p.proto = int(f.CsumStart), proto
	if p.l3 == 0 {
		return false
	}
	if p.v6 {
		if p.l4 < p.l3+ip6Len || f.gso() == GSOTCPv4 {
			return false
		}
	} else {
		ipLen := int(b[p.l3]&15) * 4
		if ipLen < ip4Len || p.l4 != p.l3+ipLen || b[p.l3+9] != proto || f.gso() == GSOTCPv6 {
			return false
		}
	}
	if proto == protoUDP {
		p.end = p.l4 + udpLen
		return f.CsumOffset == csumOfUDP && p.end <= len(b)
	}
	if f.CsumOffset != csumOfTCP || p.l4+tcpLen > len(b) {
		return false
	}
	p.end = p.l4 + tcpHeaderLen(b[p.l4:])
	return p.end >= p.l4+tcpLen && p.end <= len(b)
}

// beginTCP needs pkt.
func (c *Cutter) beginTCP(mss, limit int) bool {
	p := &c.pkt
	if fit := limit - p.end; limit > 0 && fit < mss && fit >= minSegment && c.unfragmented() && sizable(c.data[p.l4:]) {
		mss = fit
	}
	return c.begin(mss)
}

// unfragmented reports that identifications mean nothing (RFC 6864), so that there
// may be more segments than the host has set some apart for.
func (c *Cutter) unfragmented() bool { return c.pkt.v6 || c.data[c.pkt.l3+6]&ip4DF != 0 }

// begin starts to cut what pkt describes.
func (c *Cutter) begin(mss int) bool {
	p, b := &c.pkt, c.data
	if mss <= 0 || p.end > maxHeader {
		return false
	}
	copy(c.header[:], b[:p.end])
	c.cut, c.mss = true, mss
	ip, transport := c.header[p.l3:p.l4], c.header[p.l4:p.end]
	if !p.v6 {
		c.id = binary.BigEndian.Uint16(ip[4:])
		clear(ip[2:6])
		clear(ip[10:12])
		c.ipSum = uint64(fold(sum(ip, 0)))
	}
	if p.proto == protoTCP {
		c.seq, c.flags = binary.BigEndian.Uint32(transport[4:]), transport[13]
		clear(transport[4:8])
		transport[13] = 0
		clear(transport[csumOfTCP : csumOfTCP+2])
	} else {
		clear(transport[4:8])
	}
	c.fixed = addresses(b, p.l3, p.v6, p.proto)
	if p.plain(b) {
		c.start = p.l4
	} else {
		c.fixed = uint64(fold(sum(transport, c.fixed)))
	}
	return true
}

// beginWhole is Begin for what is no super-frame: a checksum may be missing, and a
// TCP segment may be too large for the path.
func (c *Cutter) beginWhole(f Frame, limit int) bool {
	partial := f.Flags&FlagNeedsCsum != 0
	if limit > 0 && len(f.Data) > limit {
		p, ok := parse(f.Data)
		if ok && p.proto == protoTCP && limit-p.end >= minSegment && (!partial && p.sound(f.Data, false) || partial && p.leftOut(f)) {
			c.pkt = p
			if c.unfragmented() && sizable(f.Data[p.l4:]) {
				return c.begin(limit - p.end)
			}
		}
	}
	if !partial {
		return true
	}
	if p, ok := parse(f.Data); ok && p.leftOut(f) {
		c.pkt, c.start = p, p.l4
		return true
	}
	return complete(f)
}

// leftOut reports that it is the packet's own checksum that f leaves to us.
func (p packet) leftOut(f Frame) bool {
	return int(f.CsumStart) == p.l4 && int(f.CsumOffset) == p.csumOffset()
}

// complete fills in a checksum that the host left out. It reports false when there
// is no place for it.
func complete(f Frame) bool {
	start, at := int(f.CsumStart), int(f.CsumStart)+int(f.CsumOffset)
	if start < etherLen || at+2 > len(f.Data) {
		return false
	}
	s := ^fold(sum(f.Data[start:], 0)) // the field has the pseudo-header in it
	if f.CsumOffset == csumOfUDP {
		s = noZero(s)
	}
	putSum(f.Data[at:], s)
	return true
}

// noZero is for UDP, where a checksum of zero stands for none (RFC 768).
func noZero(s uint16) uint16 {
	if s == 0 {
		return 0xffff
	}
	return s
}

// CsumStart says of what Next returns where the transport header begins whose
// checksum is left out: its field holds the sum of the pseudo-header. 0: none is.
func (c *Cutter) CsumStart() int { return c.start }

// Complete fills in the checksum of the frame that Next has returned, for a receiver
// that does not do it, and returns the frame.
func (c *Cutter) Complete() []byte {
	if c.start != 0 {
		c.pkt.complete(c.frame)
	}
	return c.frame
}

// Next returns the next frame, valid until the next call, and false when there is
// none left.
func (c *Cutter) Next() ([]byte, bool) {
	if c.done {
		return nil, false
	}
	if !c.cut {
		c.done, c.frame = true, c.data
		return c.data, true
	}
	p := &c.pkt
	end := min(c.at+c.mss, len(c.data)-p.end)
	b := c.data[c.at : p.end+end : p.end+end]
	copy(b, c.header[:p.end])
	c.done = end == len(c.data)-p.end
	c.finish(b)
	c.at, c.frame = end, b
	return b, true
}

// finish sets what differs between the segments, and adds only that to the sums.
func (c *Cutter) finish(b []byte) {
	p := &c.pkt
	if p.v6 {
		binary.BigEndian.PutUint16(b[p.l3+4:], uint16(len(b)-p.l3-ip6Len))
	} else {
		ip, total := b[p.l3:p.l4], uint16(len(b)-p.l3)
		binary.BigEndian.PutUint16(ip[2:], total)
		binary.BigEndian.PutUint16(ip[4:], c.id)
		putSum(ip[10:], ^fold(c.ipSum+word(total)+word(c.id)))
		c.id++
	}
	size := uint16(len(b) - p.l4)
	acc := c.fixed + word(size)
	if c.start == 0 {
		acc = uint64(fold(sum(b[p.end:], acc)))
	}
	if p.proto == protoTCP {
		c.finishTCP(b[p.l4:], acc)
		return
	}
	udp := b[p.l4:]
	binary.BigEndian.PutUint16(udp[4:], size)
	if c.start != 0 {
		putSum(udp[csumOfUDP:], fold(acc))
		return
	}
	putSum(udp[csumOfUDP:], noZero(^fold(acc+word(size))))
}

// finishTCP: CWR is for the first segment (RFC 3168, 6.1.2), FIN and PSH are for
// the last. acc is the sum of all else that the checksum is of.
func (c *Cutter) finishTCP(tcp []byte, acc uint64) {
	seq, flags := c.seq+uint32(c.at), c.flags
	if c.at > 0 {
		flags &^= flagCWR
	}
	if !c.done {
		flags &^= flagFIN | flagPSH
	}
	binary.BigEndian.PutUint32(tcp[4:], seq)
	tcp[13] = flags
	if c.start != 0 {
		putSum(tcp[csumOfTCP:], fold(acc))
		return
	}
	putSum(tcp[csumOfTCP:], ^fold(acc+word(uint16(seq>>16))+word(uint16(seq))+word(uint16(flags))))
}
