package udp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sockaddr has room for the address of either family.
type sockaddr = unix.RawSockaddrInet6

// putSockaddr encodes ap for a socket of one family and returns the size.
func putSockaddr(sa *sockaddr, ap netip.AddrPort, v6 bool) (uint32, error) {
	a := ap.Addr().Unmap()
	if !a.IsValid() || a.Is6() != v6 {
		return 0, syscall.EAFNOSUPPORT
	}
	if v6 {
		scope, err := scopeID(a.Zone())
		*sa = sockaddr{Family: unix.AF_INET6, Port: networkOrder(ap.Port()), Addr: a.As16(), Scope_id: scope}
		return unix.SizeofSockaddrInet6, err
	}
	sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa)) // the smaller of the two
	*sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: networkOrder(ap.Port()), Addr: a.As4()}
	return unix.SizeofSockaddrInet4, nil
}

// getSockaddr is the reverse of putSockaddr; not ok for any other family. The
// zone of a link-local address is the interface's index, in digits.
func getSockaddr(sa *sockaddr, zones map[uint32]string) (netip.AddrPort, bool) {
	switch sa.Family {
	case unix.AF_INET:
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), networkOrder(sa4.Port)), true
	case unix.AF_INET6:
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.Scope_id != 0 && a.Is6() {
			a = a.WithZone(zoneOf(sa.Scope_id, zones))
		}
		return netip.AddrPortFrom(a, networkOrder(sa.Port)), true
	}
	return netip.AddrPort{}, false
}

// zoneOf remembers the digits, so that a packet from a known link allocates
// nothing. There are as many entries as the host has had interfaces.
func zoneOf(scope uint32, zones map[uint32]string) string {
	zone, ok := zones[scope]
	if !ok {
		zone = strconv.FormatUint(uint64(scope), 10)
		zones[scope] = zone
	}
	return zone
}

// scopeID takes an interface's index in digits, which is what we make
// ourselves, or its name.
func scopeID(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, syscall.ENODEV
	}
	return uint32(ifi.Index), nil
}

// networkOrder turns a port from host to network byte order and back.
func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

// cmsg is a control message with room for one number. Its data follows the
// header at once: the header's size is a multiple of its own alignment.
type cmsg struct {
	hdr  unix.Cmsghdr
	data [8]byte
}

// setSegment makes c the UDP_SEGMENT message (a 16-bit number) and returns its
// size.
func (c *cmsg) setSegment(seg int) int {
	c.hdr.Level = unix.IPPROTO_UDP
	c.hdr.Type = unix.UDP_SEGMENT
	c.hdr.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(c.data[:], uint16(seg))
	return unix.CmsgSpace(2)
}

// segment reads the UDP_GRO message (an int); size is what the kernel filled.
func (c *cmsg) segment(size int) int {
	if size < unix.CmsgLen(4) || c.hdr.Level != unix.IPPROTO_UDP || c.hdr.Type != unix.UDP_GRO {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(c.data[:])))
}
