package offload

import "encoding/binary"

// Features are the offloads of a device.
type Features uint8

// Without Checksum there are none of the others (linux/if_tun.h).
const (
	Checksum Features = 1 << iota // checksums of TCP and UDP are left to the other side
	TSO4                          // segmentation of TCP over IPv4
	TSO6                          // and over IPv6
	USO                           // of runs of UDP datagrams, over both

	None Features = 0
	All           = Checksum | TSO4 | TSO6 | USO
)

// Has reports whether all of other are in f.
func (f Features) Has(other Features) bool { return f&other == other }

// String lists f, as in "csum tso4 tso6".
func (f Features) String() string {
	text := ""
	for i, name := range [...]string{"csum", "tso4", "tso6", "uso"} {
		if f&(1<<i) != 0 {
			text += " " + name
		}
	}
	if text == "" {
		return "none"
	}
	return text[1:]
}

// Header is struct virtio_net_hdr (virtio 1.2, 5.1.6). Its zero value says that a
// frame is whole: there is nothing to cut and no checksum to complete.
//
//	 0       1          2         4          6            8             10
//	+-------+----------+---------+----------+------------+-------------+
//	| flags | gso type | hdr len | gso size | csum start | csum offset |
//	+-------+----------+---------+----------+------------+-------------+
//
// Numbers have the byte order of the machine, as it is for a TAP.
type Header struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16 // a hint that forwarded frames have wrong: not used
	GSOSize    uint16 // bytes of payload in each segment
	CsumStart  uint16 // where the transport header begins, from the start of the frame
	CsumOffset uint16 // of the checksum, from there
}

// HeaderLen is the size of a Header.
const HeaderLen = 10

// Values of Header (linux/virtio_net.h).
const (
	FlagNeedsCsum = 1 // the checksum field holds the sum of the pseudo-header and nothing else

	GSONone  = 0
	GSOTCPv4 = 1
	GSOTCPv6 = 4
	GSOUDP   = 5    // VIRTIO_NET_HDR_GSO_UDP_L4
	GSOECN   = 0x80 // beside a TCP type: the first segment has CWR
)

// ParseHeader reads what stands before a frame. It reports false when b is too short.
func ParseHeader(b []byte) (h Header, ok bool) {
	if len(b) < HeaderLen {
		return Header{}, false
	}
	order := binary.NativeEndian
	return Header{
		Flags: b[0], GSOType: b[1],
		HdrLen: order.Uint16(b[2:]), GSOSize: order.Uint16(b[4:]),
		CsumStart: order.Uint16(b[6:]), CsumOffset: order.Uint16(b[8:]),
	}, true
}

// Put writes h into the first HeaderLen bytes of b.
func (h Header) Put(b []byte) {
	_ = b[HeaderLen-1]
	b[0], b[1] = h.Flags, h.GSOType
	order := binary.NativeEndian
	order.PutUint16(b[2:], h.HdrLen)
	order.PutUint16(b[4:], h.GSOSize)
	order.PutUint16(b[6:], h.CsumStart)
	order.PutUint16(b[8:], h.CsumOffset)
}

// gso is the type without the mark for ECN.
func (h Header) gso() uint8 { return h.GSOType &^ GSOECN }

// Frame is an Ethernet frame, whole or a super-frame as its header says.
type Frame struct {
	Data []byte // without header and FCS
	Header
}

// MaxSuper is the largest super-frame: 65,535 bytes of IP behind an Ethernet header
// and two tags.
const MaxSuper = 65535 + etherLen + maxTags*tagLen

// WireSize is the size of the largest frame that the host has in mind: that of
// a segment when f is a super-frame.
func (f Frame) WireSize() int {
	if f.gso() == GSONone {
		return len(f.Data)
	}
	end := int(f.CsumStart)
	if f.gso() == GSOUDP {
		end += udpLen
	} else if end+tcpLen <= len(f.Data) {
		end += tcpHeaderLen(f.Data[end:])
	}
	return min(len(f.Data), end+int(f.GSOSize))
}
