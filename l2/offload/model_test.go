package offload

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// The slow and obvious model: packets are built field by field, and checksums are
// added up one word after the other.

// segment is a TCP or UDP packet in a frame.
type segment struct {
	dst, src byte // of the MAC addresses
	tags     []uint16
	v6, udp  bool
	from, to byte // of the IP addresses
	sport    uint16
	dport    uint16
	tos, ttl byte
	df       bool
	id       uint16
	ipOpts   []byte // IPv4 options or IPv6 extension headers with the first's type in ext
	ext      byte
	seq, ack uint32
	window   uint16
	flags    byte
	tcpOpts  []byte
	noSum    bool // UDP without a checksum
	payload  []byte
}

func slowSum(parts ...[]byte) uint16 {
	var acc uint32
	for _, b := range parts {
		for i := range b {
			if i%2 == 0 {
				acc += uint32(b[i]) << 8
			} else {
				acc += uint32(b[i])
			}
		}
		for acc > 0xffff {
			acc = acc>>16 + acc&0xffff
		}
	}
	return uint16(acc)
}

// pseudo is the pseudo-header of RFC 793 and RFC 8200, 8.1.
func (s segment) pseudo(size int) []byte {
	from, to := s.addrs()
	return slices.Concat(from, to, []byte{0, s.proto(), byte(size >> 8), byte(size)})
}

func (s segment) proto() byte {
	if s.udp {
		return 17
	}
	return 6
}

func (s segment) addrs() (from, to []byte) {
	if s.v6 {
		from, to = make([]byte, 16), make([]byte, 16)
		from[0], from[15], to[0], to[15] = 0xfd, s.from, 0xfd, s.to
		return from, to
	}
	return []byte{10, 0, 0, s.from}, []byte{10, 0, 0, s.to}
}

// transport is the transport header and payload with the given checksum.
func (s segment) transport(csum uint16) (b []byte) {
	b = binary.BigEndian.AppendUint16(b, s.sport)
	b = binary.BigEndian.AppendUint16(b, s.dport)
	if s.udp {
		b = binary.BigEndian.AppendUint16(b, uint16(8+len(s.payload)))
		b = binary.BigEndian.AppendUint16(b, csum)
		return append(b, s.payload...)
	}
	b = binary.BigEndian.AppendUint32(b, s.seq)
	b = binary.BigEndian.AppendUint32(b, s.ack)
	b = append(b, byte((20+len(s.tcpOpts))/4<<4), s.flags)
	b = binary.BigEndian.AppendUint16(b, s.window)
	b = binary.BigEndian.AppendUint16(b, csum)
	b = append(b, 0, 0) // urgent pointer
	return append(append(b, s.tcpOpts...), s.payload...)
}

// headers is everything before the transport header.
func (s segment) headers(size int) (b []byte) {
	b = append(b, 2, 0, 0, 0, 0, s.dst, 2, 0, 0, 0, 0, s.src)
	for _, tag := range s.tags {
		b = binary.BigEndian.AppendUint16(append(b, 0x81, 0), tag)
	}
	from, to := s.addrs()
	if s.v6 {
		b = append(b, 0x86, 0xdd, 0x60|s.tos>>4, s.tos<<4|3, 0x12, 0x34)
		b = binary.BigEndian.AppendUint16(b, uint16(len(s.ipOpts)+size))
		next := s.proto()
		if len(s.ipOpts) > 0 {
			next = s.ext
		}
		return slices.Concat(b, []byte{next, s.ttl}, from, to, s.ipOpts)
	}
	ip := []byte{byte(0x40 | (20+len(s.ipOpts))/4), s.tos}
	ip = binary.BigEndian.AppendUint16(ip, uint16(20+len(s.ipOpts)+size))
	ip = binary.BigEndian.AppendUint16(ip, s.id)
	ip = append(ip, 0, 0, s.ttl, s.proto(), 0, 0)
	if s.df {
		ip[6] = 0x40
	}
	ip = slices.Concat(ip, from, to, s.ipOpts)
	binary.BigEndian.PutUint16(ip[10:], ^slowSum(ip))
	return slices.Concat(b, []byte{8, 0}, ip)
}

// frame is the segment as it is on a wire.
func (s segment) frame() []byte {
	csum := uint16(0)
	if !s.noSum {
		body := s.transport(0)
		csum = ^slowSum(s.pseudo(len(body)), body)
		if s.udp && csum == 0 {
			csum = 0xffff
		}
	}
	body := s.transport(csum)
	return append(s.headers(len(body)), body...)
}

// super is the segment as a host hands it over that leaves checksum and
// segmentation (size not 0) to its network card.
func (s segment) super(size int) Frame {
	body := s.transport(0)
	body = s.transport(slowSum(s.pseudo(len(body))))
	head := s.headers(len(body))
	h := Header{Flags: FlagNeedsCsum, CsumStart: uint16(len(head)), CsumOffset: 16, GSOSize: uint16(size)}
	h.HdrLen = uint16(len(head) + len(body)) // as useless as it may be
	if s.udp {
		h.CsumOffset = 6
	}
	switch {
	case size == 0:
	case s.udp:
		h.GSOType = GSOUDP
	case s.v6:
		h.GSOType = GSOTCPv6
	default:
		h.GSOType = GSOTCPv4
	}
	return Frame{Data: append(head, body...), Header: h}
}

// slowCut is what a network card makes of a super-frame.
func (s segment) slowCut(size int) (frames [][]byte) {
	for at := 0; at == 0 || at < len(s.payload); at += size {
		part, end := s, min(at+size, len(s.payload))
		part.payload = s.payload[at:end]
		part.seq += uint32(at)
		part.id += uint16(at / size)
		if at > 0 {
			part.flags &^= flagCWR
		}
		if end < len(s.payload) {
			part.flags &^= flagFIN | flagPSH
		}
		frames = append(frames, part.frame())
	}
	return frames
}

// slowParse is the inverse of segment.super, for frames that Merger may have made.
func slowParse(f Frame) (s segment, ok bool) {
	b := f.Data
	s.dst, s.src = b[5], b[11]
	at := 12
	for ; binary.BigEndian.Uint16(b[at:]) == 0x8100; at += 4 {
		s.tags = append(s.tags, binary.BigEndian.Uint16(b[at+2:]))
	}
	s.v6 = binary.BigEndian.Uint16(b[at:]) == 0x86dd
	ip := b[at+2:]
	if s.v6 {
		s.tos, s.ttl, s.udp = ip[0]<<4|ip[1]>>4, ip[7], ip[6] == 17
		s.from, s.to = ip[23], ip[39]
		ip = ip[40:]
	} else {
		s.tos, s.ttl, s.udp = ip[1], ip[8], ip[9] == 17
		s.id, s.df = binary.BigEndian.Uint16(ip[4:]), ip[6] == 0x40
		s.from, s.to = ip[15], ip[19]
		ip = ip[20:]
	}
	s.sport, s.dport = binary.BigEndian.Uint16(ip), binary.BigEndian.Uint16(ip[2:])
	if s.udp {
		s.payload = ip[8:]
	} else {
		s.seq, s.ack = binary.BigEndian.Uint32(ip[4:]), binary.BigEndian.Uint32(ip[8:])
		s.flags, s.window = ip[13], binary.BigEndian.Uint16(ip[14:])
		s.tcpOpts, s.payload = ip[20:int(ip[12]>>4)*4], ip[int(ip[12]>>4)*4:]
	}
	again := s.super(int(f.GSOSize))
	again.HdrLen = f.HdrLen
	return s, bytes.Equal(again.Data, f.Data) && again.Header == f.Header
}
