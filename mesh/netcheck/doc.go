// Package netcheck measures what the network in front of this host does to
// datagrams: mapping and filtering in the terms of RFC 5780, hairpins, the size
// of packets, and routers that open ports. It needs no running node: it opens
// sockets of its own and asks STUN servers, which all members are.
//
// Filtering takes somebody who answers from elsewhere: a server of RFC 5780, or
// a member that asks another to (PROTOCOL.md, section 13).
package netcheck
