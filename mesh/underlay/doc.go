// Package underlay keeps the packets that carry the mesh out of the mesh.
//
// The sockets of a node are marked (SO_MARK), and three rules say how marked
// packets are routed, whatever routes lead into the node's TAP:
//
//	main table, but for routes into the TAP      5183: fwmark M lookup main suppress_ifgroup G
//	what those hide, copied                      5184: fwmark M lookup T
//	otherwise nowhere                            5185: fwmark M unreachable
//
// The kernel drops the answer of a look-up that leads into the TAP's group and
// goes on with the next rule; it does not look for a less specific route in the
// same table. So table T has, for each route into the TAP, the other routes of
// the main table to the same destinations or more: few, even where the main table
// is large. M, G and T are one number, made from the TAP's name, so that several
// nodes on a host have rules of their own and what a killed one has left is found.
//
// Default routes of one metric that router advertisements brought are side by side
// in table T as in the main table, but the kernel spreads flows over the copies,
// and does not see which router says that it is to be preferred (RFC 4191).
//
// Without the right to do this (a container, say), or on other systems, the
// engine's own guard remains: it sends nothing to an address of the mesh and
// takes nothing from one.
package underlay
