// Package outside judges the network that a node stands in: no route, nothing but
// link-local addresses, UDP that does not pass, IPv6 that is announced and dead,
// a name server that is silent, a captive portal, a clock that is off. It is
// pure but for the question that finds a portal. A node goes on trying in all of
// these; its user is told.
package outside
