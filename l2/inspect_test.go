package l2

import (
	"net"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"meshd/l2/l2test/frames"
)

// The frames that hosts send, and some that they should not.
var (
	snoopSrc, snoopElse = frames.Source, frames.Elsewhere

	arp, nd, option, edit         = frames.ARP, frames.ND, frames.Option, frames.Edit
	extended, tagged, snap        = frames.Extended, frames.Tagged, frames.SNAP
	udp, fragmented, icmp4        = frames.UDP, frames.Fragmented, frames.ICMPv4
	solicitation, advertisement   = frames.Solicitation, frames.Advertisement
	routerAdvertisement, redirect = frames.RouterAdvertisement, frames.Redirect
)

// text is a finding as the tables write it.
func (f finding) text() string {
	switch {
	case f.why != passed:
		return "!" + f.why.String()
	case f.needs&dutyRouter != 0 && f.claim.IsValid():
		return "router " + f.claim.String()
	case f.needs&dutyRouter != 0:
		return "router"
	case f.needs&dutyDHCP != 0:
		return "dhcp"
	case f.claim.IsValid():
		return f.claim.String()
	}
	return ""
}

// cutIP ends an IPv6 frame after size bytes of payload.
func cutIP(frame []byte, size int) []byte {
	out := append([]byte(nil), frame[:54+size]...)
	out[18], out[19] = byte(size>>8), byte(size)
	return out
}

func TestInspect(t *testing.T) {
	const host = "fd00::5"
	ns, na := solicitation(host, snoopSrc), advertisement(host, snoopSrc)
	tests := map[string]struct {
		frame []byte
		want  string // "": nothing
	}{
		"arp request":             {arp(snoopSrc, "10.0.0.5", 1), "10.0.0.5"},
		"arp reply":               {arp(snoopSrc, "10.0.0.5", 2), "10.0.0.5"},
		"arp tagged":              {tagged(arp(snoopSrc, "10.0.0.5", 1), 0x81), "10.0.0.5"},
		"arp tagged twice":        {tagged(tagged(arp(snoopSrc, "10.0.0.5", 1), 0x81), 0x88), "10.0.0.5"},
		"arp tagged thrice":       {tagged(tagged(tagged(arp(snoopSrc, "10.0.0.5", 1), 0x81), 0x81), 0x88), "!hidden"},
		"arp probe":               {arp(snoopSrc, "0.0.0.0", 1), ""},
		"arp of IEEE 802":         {edit(arp(snoopSrc, "10.0.0.5", 1), 15, 6), "10.0.0.5"},
		"arp for another station": {arp(snoopElse, "10.0.0.5", 2), "!spoofed"},
		"arp from multicast":      {arp(snoopSrc, "224.0.0.1", 1), ""},
		"arp from broadcast":      {arp(snoopSrc, "255.255.255.255", 1), ""},
		"arp from loopback":       {arp(snoopSrc, "127.0.0.1", 1), ""},
		"arp cut off":             {arp(snoopSrc, "10.0.0.5", 1)[:41], "!hidden"},
		"arp of other hardware":   {edit(arp(snoopSrc, "10.0.0.5", 1), 15, 7), "!hidden"},
		"arp of other protocol":   {edit(arp(snoopSrc, "10.0.0.5", 1), 16, 9), "!hidden"},
		"arp of other sizes":      {edit(arp(snoopSrc, "10.0.0.5", 1), 18, 8), "!hidden"},
		"arp in snap":             {snap(arp(snoopSrc, "10.0.0.5", 1)), "!hidden"},

		"solicitation":            {ns, host},
		"solicitation, tagged":    {tagged(ns, 0x81), host},
		"solicitation in snap":    {snap(ns), "!hidden"},
		"duplicate detection":     {solicitation("::", snoopSrc), ""},
		"solicitation by a proxy": {solicitation(host, snoopElse), "!spoofed"},
		"advertisement":           {na, host},
		"advertisement by proxy":  {advertisement(host, snoopElse), "!spoofed"},
		"router solicitation": {nd(host, ndRouterSolicitation,
			&layers.ICMPv6RouterSolicitation{Options: option(layers.ICMPv6OptSourceAddress, snoopSrc)}), host},
		"router advertisement":                {routerAdvertisement("fe80::7", snoopSrc), "router fe80::7"},
		"router advertisement for another":    {routerAdvertisement("fe80::7", snoopElse), "!spoofed"},
		"router advertisement in snap":        {snap(routerAdvertisement("fe80::7", snoopSrc)), "!hidden"},
		"router advertisement behind options": {extended(routerAdvertisement("fe80::7", snoopSrc), nextDstOpts, 1), "!hidden"},
		"router advertisement in fragments":   {extended(routerAdvertisement("fe80::7", snoopSrc), nextFragment, 1), "!hidden"},
		"redirect":                            {redirect(), "router fe80::7"},
		"echo":                                {nd(host, layers.ICMPv6TypeEchoRequest, &layers.ICMPv6Echo{}), ""},
		"echo behind options":                 {extended(nd(host, layers.ICMPv6TypeEchoRequest, &layers.ICMPv6Echo{}), nextDstOpts, 2), ""},
		"echo in fragments":                   {extended(nd(host, layers.ICMPv6TypeEchoRequest, &layers.ICMPv6Echo{}), nextFragment, 1), ""},
		"a fragment without what it is of":    {cutIP(extended(ns, nextFragment, 1), 8), "!hidden"},
		"a fragment with half a header":       {cutIP(extended(ns, nextFragment, 1), 7), "!hidden"},
		"a later fragment":                    {edit(extended(ns, nextFragment, 1), 57, 8), ""},
		"from afar":                           {edit(solicitation(host, snoopSrc), 21, 254), "!spoofed"},
		"not version 6":                       {edit(solicitation(host, snoopSrc), 14, 0x40), ""},
		"echo behind eight less one":          {extended(nd(host, layers.ICMPv6TypeEchoRequest, &layers.ICMPv6Echo{}), nextDstOpts, maxExtensions-1), ""},
		"behind too many extensions":          {extended(ns, nextDstOpts, maxExtensions), "!hidden"},
		"extension longer than it all":        {edit(extended(ns, nextHopByHop, 1), 55, 255), "!hidden"},
		"behind an authentication header":     {extended(ns, nextAuth, 1), "!hidden"},
		"option of no length":                 {edit(solicitation(host, snoopSrc), 14+40+24+1, 0), "!hidden"},
		"option longer than it all":           {edit(solicitation(host, snoopSrc), 14+40+24+1, 2), "!hidden"},
		"solicitation cut off":                {ns[:14+40+23], "!hidden"},
		"advertisement cut off":               {na[:14+40+23], "!hidden"},
		"IPv6 header cut off":                 {ns[:14+39], ""},
		"padded":                              {append(solicitation(host, snoopSrc), 0, 0, 0), host},
		"other type":                          {raw(toUnicast + "88b5 0001"), ""},

		"dhcp offer":                  {udp(false, 67, 68, bootReply, 1, 6, 0), "dhcp"},
		"dhcp offer to a relay":       {udp(false, 67, 67, bootReply, 1, 6, 0), "dhcp"},
		"dhcp offer from elsewhere":   {udp(false, 6767, 68, bootReply, 1, 6, 0), ""}, // no client takes it
		"dhcp request":                {udp(false, 68, 67, 1, 1, 6, 0), ""},
		"dhcp request of a relay":     {udp(false, 67, 67, 1, 1, 6, 0), ""},
		"dhcp offer in fragments":     {fragmented(udp(false, 67, 68, bootReply, 1, 6, 0), 0), "dhcp"},
		"udp in tiny fragments":       {fragmented(udp(false, 67, 68), 0), "!hidden"},
		"a later fragment of IPv4":    {fragmented(udp(false, 67, 68, bootReply), 1), ""},
		"dhcpv6 reply":                {udp(true, 547, 546, 7, 0, 0, 1), "dhcp"},
		"dhcpv6 reply behind options": {extended(udp(true, 547, 546, 7, 0, 0, 1), nextDstOpts, 1), "dhcp"},
		"dhcpv6 request":              {udp(true, 546, 547, 1, 0, 0, 1), ""},
		"mdns":                        {udp(true, 5353, 5353, 1, 0, 0, 1), ""},
		"IPv4 redirect":               {icmp4(5), "router"},
		"IPv4 router advertisement":   {icmp4(9), "router"},
		"IPv4 echo":                   {icmp4(8), ""},

		"spanning tree":      {raw("ffffffffffff 020000000001 0026 424203 0000"), "!link-protocol"},
		"Cisco's in snap":    {raw("ffffffffffff 020000000001 0026 aaaa03 00000c 010b"), "!link-protocol"},
		"LLDP to a host":     {raw(toUnicast + "88cc 0001"), "!link-protocol"},
		"pause to a host":    {raw(toUnicast + "8808 0001"), "!link-protocol"},
		"IPX in 802.3":       {raw(toUnicast + "0026 e0e003 0000"), ""},
		"AppleTalk in snap":  {raw(toUnicast + "0026 aaaa03 080007 809b"), ""},
		"802.2 cut off":      {raw(toUnicast + "0026 aaaa"), "!hidden"},
		"snap of IP, cut":    {raw(toUnicast + "0026 aaaa03 000000 86"), ""},
		"802.1H":             {raw(toUnicast + "0026 aaaa03 0000f8 0806"), "!hidden"},
		"reverse arp (QEMU)": {raw("ffffffffffff 020000000001 8035 0001"), ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h, ok := ParseHeader(test.frame)
			if !ok {
				t.Fatal("test frame without a header")
			}
			if got := inspect(h, test.frame).text(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// What a claim says is what gopacket reads in the same place.
func FuzzInspect(f *testing.F) {
	f.Add(arp(snoopSrc, "10.0.0.5", 1))
	f.Add(arp(snoopElse, "10.0.0.5", 2))
	asks := nd("fd00::5", ndNeighborSolicitation, &layers.ICMPv6NeighborSolicitation{
		TargetAddress: net.ParseIP("fd00::9"), Options: option(layers.ICMPv6OptSourceAddress, snoopSrc),
	})
	f.Add(asks)
	f.Add(extended(asks, nextHopByHop, 3))
	f.Add(routerAdvertisement("fe80::7", snoopSrc))
	f.Add(snap(asks))
	f.Add(udp(false, 67, 68, bootReply))
	f.Add(udp(true, 547, 546, 7))
	f.Add(nd("fe80::1", ndNeighborAdvertisement, &layers.ICMPv6NeighborAdvertisement{
		TargetAddress: net.ParseIP("fd00::5"), Options: option(layers.ICMPv6OptTargetAddress, snoopSrc),
	}))
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, ok := ParseHeader(frame)
		if !ok {
			return
		}
		ip := inspect(h, frame).claim
		if !ip.IsValid() {
			return
		}
		if ip.IsMulticast() || ip.IsUnspecified() {
			t.Fatalf("claims %v", ip)
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
