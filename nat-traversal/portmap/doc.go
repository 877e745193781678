// Package portmap asks the router in front of this host to let others in at our
// UDP port: by PCP (RFC 6887), NAT-PMP (RFC 6886) or UPnP-IGD, and for IPv6 by
// PCP or UPnP's WANIPv6FirewallControl.
//
//	Mapper.Run   one goroutine for each family: does what the plan says
//	   |
//	 plan        pure: what to do next, and when
//	   |
//	pcp natpmp upnp      one question and its answer each; the first two are our
//	                     own codecs, the third stands on huin/goupnp
//
// A router is not trusted (THREATS.md): its answers are parsed with bounds, each
// question has a timeout, UPnP follows no address but that of the one who
// answered, and what a router calls our external address is only a candidate,
// which others probe before they use it.
package portmap
