package names

import (
	"fmt"
	"net/netip"
)

// Hint says how a resolver on this host can be pointed at the server, where [Register] cannot do it.
func Hint(server netip.AddrPort) string {
	return fmt.Sprintf("point a resolver at it for this domain, e.g. dnsmasq with server=/%s/%s#%d, or unbound with a stub-zone",
		Domain, server.Addr(), server.Port())
}
