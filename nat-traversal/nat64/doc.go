// Package nat64 lets a host that has IPv6 alone reach IPv4 addresses through its
// network's NAT64: by writing them as IPv6 addresses (RFC 6052) of a prefix that
// the network's DNS64 betrays (RFC 7050). It is pure.
package nat64
