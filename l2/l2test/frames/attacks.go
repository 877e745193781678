package frames

import (
	"maps"
	"net"
	"net/netip"

	"github.com/gopacket/gopacket/layers"
)

// Cast is who is who on a segment that a thief is on.
type Cast struct {
	Thief                 net.HardwareAddr // a member without roles
	Own, OwnHost          net.HardwareAddr // of the node that judges, and a host behind it
	Member, MembersHost   net.HardwareAddr
	Router, RoutersHost   net.HardwareAddr
	Own4, OwnHost4        string
	Member4, MembersHost4 string
	Router4               string // of RoutersHost
	Own6, Member6, Free6  string // of the segment; Free6 is nobody's
}

const bootReply, hopByHop, fragment, dstOpts = 2, 0, 44, 60

// eth is a frame of 60 bytes that begins with this behind the addresses, else of a type for experiments.
func eth(dst, src net.HardwareAddr, rest ...byte) []byte {
	if rest == nil {
		rest = []byte{0x88, 0xb5}
	}
	frame := make([]byte, 60)
	copy(frame[copy(frame, append(append([]byte(nil), dst...), src...)):], rest)
	return frame
}

// linkLocal is the address that a MAC makes (RFC 4291, appendix A).
func linkLocal(mac net.HardwareAddr) string {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}).String()
}

// Attacks are frames that a member without roles sends to take over others' places.
func (c Cast) Attacks() map[string][]byte {
	attacks := c.attacks()
	for name, frame := range maps.All(attacks) {
		if len(frame) >= headerLen && string(frame[6:12]) == string(Source) {
			attacks[name] = From(c.Thief, frame)
		}
	}
	return attacks
}

func (c Cast) attacks() map[string][]byte {
	return map[string][]byte{
		"source of a member":                   eth(layers.EthernetBroadcast, c.Member),
		"source of this node":                  eth(layers.EthernetBroadcast, c.Own),
		"source of a host behind another":      eth(layers.EthernetBroadcast, c.MembersHost),
		"source of a host behind this node":    eth(layers.EthernetBroadcast, c.OwnHost),
		"source of the router's host":          eth(layers.EthernetBroadcast, c.RoutersHost),
		"source a group":                       eth(layers.EthernetBroadcast, net.HardwareAddr{3, 0, 0, 0, 0, 1}),
		"source zero":                          eth(layers.EthernetBroadcast, make(net.HardwareAddr, 6)),
		"arp: a member's address":              ARP(c.Thief, c.Member4, 1),
		"arp: a member's address, reply":       ARP(c.Thief, c.Member4, 2),
		"arp: a member's host's address":       ARP(c.Thief, c.MembersHost4, 2),
		"arp: this node's address":             ARP(c.Thief, c.Own4, 2),
		"arp: this node's host's address":      ARP(c.Thief, c.OwnHost4, 2),
		"arp: the gateway's address":           ARP(c.Thief, c.Router4, 2),
		"arp: for another MAC":                 ARP(Elsewhere, "10.0.0.9", 2),
		"arp: for a victim's MAC":              ARP(c.MembersHost, c.MembersHost4, 2),
		"arp: of IEEE 802":                     Edit(ARP(c.Thief, c.Member4, 2), 15, 6),
		"arp: in snap":                         SNAP(ARP(c.Thief, c.Member4, 2)),
		"arp: behind three tags":               Tagged(Tagged(Tagged(ARP(c.Thief, c.Member4, 2), 0x81), 0x81), 0x81),
		"nd: advertises a member's address":    Advertisement(c.Member6, c.Thief),
		"nd: advertises this node's address":   Advertisement(c.Own6, c.Thief),
		"nd: advertises a link-local address":  Advertisement(linkLocal(c.Member), c.Thief),
		"nd: solicits from a member's address": Solicitation(c.Member6, c.Thief),
		"nd: for another MAC":                  Advertisement(c.Free6, Elsewhere),
		"nd: behind options":                   Extended(Advertisement(c.Member6, c.Thief), dstOpts, 1),
		"nd: behind hop-by-hop options":        Extended(Advertisement(c.Member6, c.Thief), hopByHop, 2),
		"nd: in fragments":                     Extended(Advertisement(c.Member6, c.Thief), fragment, 1),
		"nd: in snap":                          SNAP(Advertisement(c.Member6, c.Thief)),
		"nd: routed here":                      Edit(Advertisement(c.Free6, c.Thief), 21, 64),
		"router advertisement":                 RouterAdvertisement("fe80::7", c.Thief),
		"router advertisement, no option":      ND("fe80::7", layers.ICMPv6TypeRouterAdvertisement, &layers.ICMPv6RouterAdvertisement{RouterLifetime: 1800}),
		"router advertisement, as the router":  RouterAdvertisement(linkLocal(c.Router), c.Thief),
		"router advertisement behind options":  Extended(RouterAdvertisement("fe80::7", c.Thief), dstOpts, 1),
		"router advertisement in fragments":    Extended(RouterAdvertisement("fe80::7", c.Thief), fragment, 1),
		"router advertisement behind a tag":    Tagged(RouterAdvertisement("fe80::7", c.Thief), 0x81),
		"router advertisement in snap":         SNAP(RouterAdvertisement("fe80::7", c.Thief)),
		"redirect":                             Redirect(),
		"IPv4 redirect":                        ICMPv4(5),
		"IPv4 router advertisement":            ICMPv4(9),
		"dhcp offer":                           UDP(false, 67, 68, bootReply, 1, 6, 0),
		"dhcp offer in fragments":              Fragmented(UDP(false, 67, 68, bootReply, 1, 6, 0), 0),
		"dhcp offer in tiny fragments":         Fragmented(UDP(false, 67, 68), 0),
		"dhcp offer to a relay":                UDP(false, 67, 67, bootReply, 1, 6, 0),
		"dhcpv6 reply":                         UDP(true, 547, 546, 7, 0, 0, 1),
		"dhcpv6 reply behind options":          Extended(UDP(true, 547, 546, 7, 0, 0, 1), dstOpts, 1),
		"spanning tree":                        From(c.Thief, eth(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0}, c.Thief)),
		"spanning tree, to all":                eth(layers.EthernetBroadcast, c.Thief, 0, 0x26, 0x42, 0x42, 3, 0, 0),
		"Cisco's spanning tree":                eth(net.HardwareAddr{1, 0, 0x0c, 0xcc, 0xcc, 0xcd}, c.Thief),
		"LLDP to all":                          eth(layers.EthernetBroadcast, c.Thief, 0x88, 0xcc, 0, 1),
		"pause to a host":                      eth(Elsewhere, c.Thief, 0x88, 0x08, 0, 1),
		"a whole header missing":               eth(layers.EthernetBroadcast, c.Thief)[:8],
	}
}
