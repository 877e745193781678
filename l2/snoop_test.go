package l2

import (
	"net"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

var (
	snoopSrc  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	snoopElse = net.HardwareAddr{2, 0, 0, 0, 0, 9}
)

// arp makes an ARP frame whose sender is mac at ip.
func arp(mac net.HardwareAddr, ip string, op uint16) []byte {
	return serialize(
		&layers.Ethernet{SrcMAC: snoopSrc, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: op,
			SourceHwAddress: mac, SourceProtAddress: net.ParseIP(ip).To4(), DstHwAddress: make([]byte, 6), DstProtAddress: []byte{10, 0, 0, 9},
		})
}

// nd makes a neighbour discovery frame from src with the given body.
func nd(src string, kind uint8, body gopacket.SerializableLayer) []byte {
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.ParseIP(src), DstIP: net.ParseIP("ff02::1")}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}
	if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
		panic(err)
	}
	return serialize(&layers.Ethernet{SrcMAC: snoopSrc, DstMAC: net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, EthernetType: layers.EthernetTypeIPv6}, ip, icmp, body)
}

func serialize(layer ...gopacket.SerializableLayer) []byte {
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, layer...); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

func option(kind layers.ICMPv6Opt, mac net.HardwareAddr) layers.ICMPv6Options {
	return layers.ICMPv6Options{{Type: kind, Data: mac}}
}

// edit returns frame with its byte at i set to v.
func edit(frame []byte, i int, v byte) []byte {
	frame[i] = v
	return frame
}

// extended puts extension headers of 8 bytes, all of kind, between the IPv6 header of
// an untagged frame and what follows.
func extended(frame []byte, kind byte, count int) []byte {
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

func TestSnoop(t *testing.T) {
	const host, other = "fd00::5", "fd00::9"
	ns := func(src string, mac net.HardwareAddr) []byte {
		return nd(src, ndNeighborSolicitation, &layers.ICMPv6NeighborSolicitation{TargetAddress: net.ParseIP(other), Options: option(layers.ICMPv6OptSourceAddress, mac)})
	}
	na := func(mac net.HardwareAddr) []byte {
		return nd("fe80::1", ndNeighborAdvertisement, &layers.ICMPv6NeighborAdvertisement{TargetAddress: net.ParseIP(host), Options: option(layers.ICMPv6OptTargetAddress, mac)})
	}
	tagged := func(frame []byte) []byte {
		return append(append(append([]byte(nil), frame[:12]...), 0x81, 0, 0, 7), frame[12:]...)
	}
	tests := map[string]struct {
		frame []byte
		want  string // "": nothing
	}{
		"arp request":             {arp(snoopSrc, "10.0.0.5", 1), "10.0.0.5"},
		"arp reply":               {arp(snoopSrc, "10.0.0.5", 2), "10.0.0.5"},
		"arp tagged":              {tagged(arp(snoopSrc, "10.0.0.5", 1)), "10.0.0.5"},
		"arp probe":               {arp(snoopSrc, "0.0.0.0", 1), ""},
		"arp for another station": {arp(snoopElse, "10.0.0.5", 2), ""},
		"arp from multicast":      {arp(snoopSrc, "224.0.0.1", 1), ""},
		"arp from broadcast":      {arp(snoopSrc, "255.255.255.255", 1), ""},
		"arp from loopback":       {arp(snoopSrc, "127.0.0.1", 1), ""},
		"arp cut off":             {arp(snoopSrc, "10.0.0.5", 1)[:41], ""},
		"arp of other hardware":   {edit(arp(snoopSrc, "10.0.0.5", 1), 15, 6), ""},
		"arp of other protocol":   {edit(arp(snoopSrc, "10.0.0.5", 1), 16, 9), ""},
		"arp of other sizes":      {edit(arp(snoopSrc, "10.0.0.5", 1), 18, 8), ""},
		"solicitation":            {ns(host, snoopSrc), host},
		"solicitation, tagged":    {tagged(ns(host, snoopSrc)), host},
		"duplicate detection":     {ns("::", snoopSrc), ""},
		"solicitation by a proxy": {ns(host, snoopElse), ""},
		"advertisement":           {na(snoopSrc), host},
		"advertisement by proxy":  {na(snoopElse), ""},
		"router solicitation": {nd(host, ndRouterSolicitation,
			&layers.ICMPv6RouterSolicitation{Options: option(layers.ICMPv6OptSourceAddress, snoopSrc)}), host},
		"router advertisement": {nd("fe80::7", ndRouterAdvertisement,
			&layers.ICMPv6RouterAdvertisement{Options: option(layers.ICMPv6OptSourceAddress, snoopSrc)}), "fe80::7"},
		"echo":                         {nd(host, layers.ICMPv6TypeEchoRequest, &layers.ICMPv6Echo{}), ""},
		"from afar":                    {edit(ns(host, snoopSrc), 21, 254), ""},
		"not version 6":                {edit(ns(host, snoopSrc), 14, 0x40), ""},
		"behind eight less one":        {extended(ns(host, snoopSrc), nextDstOpts, maxExtensions-1), host},
		"behind too many extensions":   {extended(ns(host, snoopSrc), nextDstOpts, maxExtensions), ""},
		"behind a fragment header":     {extended(ns(host, snoopSrc), 44, 1), ""},
		"extension longer than it all": {edit(extended(ns(host, snoopSrc), nextHopByHop, 1), 55, 255), ""},
		"option of no length":          {edit(ns(host, snoopSrc), 14+40+24+1, 0), ""},
		"option longer than it all":    {edit(ns(host, snoopSrc), 14+40+24+1, 2), ""},
		"solicitation cut off":         {ns(host, snoopSrc)[:14+40+23], ""},
		"advertisement cut off":        {na(snoopSrc)[:14+40+23], ""},
		"IPv6 header cut off":          {ns(host, snoopSrc)[:14+39], ""},
		"padded":                       {append(ns(host, snoopSrc), 0, 0, 0), host},
		"other type":                   {raw(toUnicast + "88b5 0001"), ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h, ok := ParseHeader(test.frame)
			if !ok {
				t.Fatal("test frame without a header")
			}
			ip, ok := snoop(h, test.frame)
			if ok != (test.want != "") || ok && ip != netip.MustParseAddr(test.want) {
				t.Errorf("got %v, %v, want %q", ip, ok, test.want)
			}
		})
	}
}

// What is snooped is what gopacket reads in the same place.
func FuzzSnoop(f *testing.F) {
	f.Add(arp(snoopSrc, "10.0.0.5", 1))
	f.Add(arp(snoopElse, "10.0.0.5", 2))
	solicitation := nd("fd00::5", ndNeighborSolicitation, &layers.ICMPv6NeighborSolicitation{
		TargetAddress: net.ParseIP("fd00::9"), Options: option(layers.ICMPv6OptSourceAddress, snoopSrc),
	})
	f.Add(solicitation)
	f.Add(extended(solicitation, nextHopByHop, 3))
	f.Add(nd("fe80::1", ndNeighborAdvertisement, &layers.ICMPv6NeighborAdvertisement{
		TargetAddress: net.ParseIP("fd00::5"), Options: option(layers.ICMPv6OptTargetAddress, snoopSrc),
	}))
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, ok := ParseHeader(frame)
		if !ok {
			return
		}
		ip, ok := snoop(h, frame)
		if !ok {
			return
		}
		if !ip.IsValid() || ip.IsMulticast() || ip.IsUnspecified() {
			t.Fatalf("snooped %v", ip)
		}
		p := gopacket.NewPacket(frame[h.Payload:], layers.EthernetType(h.EtherType), gopacket.NoCopy)
		var said []net.IP
		if l, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
			said = append(said, l.SourceProtAddress)
		}
		if l, ok := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6); ok {
			said = append(said, l.SrcIP)
		}
		if l, ok := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement); ok {
			said = append(said, l.TargetAddress)
		}
		for _, s := range said {
			if s.Equal(ip.AsSlice()) {
				return
			}
		}
		if p.ErrorLayer() == nil {
			t.Fatalf("snooped %v, gopacket reads %v", ip, said)
		}
	})
}
