// Package frames makes the frames by which tests say what hosts, routers and thieves say.
package frames

import (
	"net"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

const headerLen = 14

var (
	// Source is the Ethernet source of all frames that From has not given another.
	Source = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	// Elsewhere is a station that nobody has.
	Elsewhere = net.HardwareAddr{2, 0, 0, 0, 0, 9}
)

// ARP makes an ARP frame whose sender is mac at ip.
func ARP(mac net.HardwareAddr, ip string, op uint16) []byte {
	return Serialize(
		&layers.Ethernet{SrcMAC: Source, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: op,
			SourceHwAddress: mac, SourceProtAddress: net.ParseIP(ip).To4(), DstHwAddress: make([]byte, 6), DstProtAddress: []byte{10, 0, 0, 9},
		})
}

// ND makes a neighbour discovery frame from src with the given body.
func ND(src string, kind uint8, body gopacket.SerializableLayer) []byte {
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.ParseIP(src), DstIP: net.ParseIP("ff02::1")}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}
	if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
		panic(err)
	}
	return Serialize(&layers.Ethernet{SrcMAC: Source, DstMAC: net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, EthernetType: layers.EthernetTypeIPv6}, ip, icmp, body)
}

// Serialize completes lengths and checksums.
func Serialize(layer ...gopacket.SerializableLayer) []byte {
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, layer...); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// Option is a link-layer address option (RFC 4861, 4.6.1).
func Option(kind layers.ICMPv6Opt, mac net.HardwareAddr) layers.ICMPv6Options {
	return layers.ICMPv6Options{{Type: kind, Data: mac}}
}

// Edit returns frame with its byte at i set to v.
func Edit(frame []byte, i int, v byte) []byte {
	frame[i] = v
	return frame
}

// Extended puts extension headers of 8 bytes, all of kind, between the IPv6 header of
// an untagged frame and what follows.
func Extended(frame []byte, kind byte, count int) []byte {
	out := append([]byte(nil), frame[:54]...)
	next := out[20]
	if count > 0 {
		out[20] = kind
	}
	for i := range count {
		header := make([]byte, 8)
		header[0] = kind
		if i == count-1 {
			header[0] = next
		}
		out = append(out, header...)
	}
	out = append(out, frame[54:]...)
	size := len(out) - 54
	out[18], out[19] = byte(size>>8), byte(size)
	return out
}

// Tagged puts a tag of VLAN 7 in front, 802.1Q (tpid 0x81) or 802.1ad (0x88).
func Tagged(frame []byte, tpid byte) []byte {
	return append(append(append([]byte(nil), frame[:12]...), tpid, map[byte]byte{0x81: 0, 0x88: 0xa8}[tpid], 0, 7), frame[12:]...)
}

// SNAP puts what a frame carries behind an 802.2 SNAP header of RFC 1042.
func SNAP(frame []byte) []byte {
	size := len(frame) - headerLen + 8
	out := append(append([]byte(nil), frame[:12]...), byte(size>>8), byte(size), 0xaa, 0xaa, 3, 0, 0, 0)
	return append(out, frame[12:]...)
}

// UDP makes a frame with one UDP datagram in it.
func UDP(v6 bool, from, to uint16, payload ...byte) []byte {
	eth := &layers.Ethernet{SrcMAC: Source, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeIPv4}
	u := &layers.UDP{SrcPort: layers.UDPPort(from), DstPort: layers.UDPPort(to)}
	if v6 {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: net.ParseIP("fe80::7"), DstIP: net.ParseIP("fe80::8")}
		_ = u.SetNetworkLayerForChecksum(ip)
		return Serialize(eth, ip, u, gopacket.Payload(payload))
	}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IP{10, 0, 0, 1}, DstIP: net.IP{255, 255, 255, 255}}
	_ = u.SetNetworkLayerForChecksum(ip)
	return Serialize(eth, ip, u, gopacket.Payload(payload))
}

// Fragmented says in an IPv4 header that more fragments follow, or that this is a later one.
func Fragmented(frame []byte, offset byte) []byte {
	return Edit(Edit(append([]byte(nil), frame...), 20, 0x20), 21, offset)
}

// ICMPv4 makes a frame with an ICMP message of a kind.
func ICMPv4(kind uint8) []byte {
	return Serialize(
		&layers.Ethernet{SrcMAC: Source, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: net.IP{10, 0, 0, 1}, DstIP: net.IP{10, 0, 0, 2}},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0)}, gopacket.Payload(make([]byte, 28)))
}

// Solicitation asks for fd00::9 in the name of src.
func Solicitation(src string, mac net.HardwareAddr) []byte {
	return ND(src, layers.ICMPv6TypeNeighborSolicitation, &layers.ICMPv6NeighborSolicitation{TargetAddress: net.ParseIP("fd00::9"), Options: Option(layers.ICMPv6OptSourceAddress, mac)})
}

// Advertisement says that target is at mac.
func Advertisement(target string, mac net.HardwareAddr) []byte {
	return ND("fe80::1", layers.ICMPv6TypeNeighborAdvertisement, &layers.ICMPv6NeighborAdvertisement{TargetAddress: net.ParseIP(target), Options: Option(layers.ICMPv6OptTargetAddress, mac)})
}

// RouterAdvertisement is one of src.
func RouterAdvertisement(src string, mac net.HardwareAddr) []byte {
	return ND(src, layers.ICMPv6TypeRouterAdvertisement, &layers.ICMPv6RouterAdvertisement{Options: Option(layers.ICMPv6OptSourceAddress, mac)})
}

// Redirect has fd01::1 reached by fe80::8.
func Redirect() []byte {
	return ND("fe80::7", layers.ICMPv6TypeRedirect, &layers.ICMPv6Redirect{
		TargetAddress: net.ParseIP("fe80::8"), DestinationAddress: net.ParseIP("fd01::1"), Options: Option(layers.ICMPv6OptTargetAddress, Elsewhere),
	})
}

// From returns frame with another Ethernet source.
func From(src net.HardwareAddr, frame []byte) []byte {
	out := append([]byte(nil), frame...)
	copy(out[6:], src)
	return out
}

// Speaking returns an ARP frame of a host about itself.
func Speaking(mac net.HardwareAddr, ip string) []byte { return From(mac, ARP(mac, ip, 1)) }
