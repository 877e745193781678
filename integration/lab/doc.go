// Package lab builds internets out of network namespaces: routers, NATs,
// firewalls, lossy and slow links, and hosts to run programs on. The
// integration tests and `meshd demo` run on it. It needs Linux and nothing
// installed; root, or a kernel that lets users make user namespaces.
//
//	l, err := lab.New(lab.Options{Name: "demo"})
//	defer l.Close()
//	internet := l.Internet("isp")
//	home := internet.Site("home", lab.SiteConfig{NAT: lab.Home, V4: true, V6: true})
//	laptop := home.Host("laptop")
//	server := internet.Host("server", lab.HostConfig{V4: true})
//	out, err := laptop.Command(ctx, "ping", "-c1", server.Addr4().String()).CombinedOutput()
//
// What it builds, each box one namespace:
//
//	                   +-------------- core ---------------+
//	                   |  gw .1     gw .1      DNS on lo   |
//	                   +---+----------+---------------+----+
//	198.18.0.0/26          |          | veth, or two   | 198.18.0.128/26
//	2001:db8:0::/64        |          | and the relay  | 2001:db8:2::/64
//	               +-------+------+   | of "wire"    +-+--------+
//	               | wan0         |  ...             | eth0     |
//	               |   site (NAT) |                  |  host    |
//	               | lan0, bridge |                  +----------+
//	               +-------+------+
//	192.168.1.0/24         | veth
//	2001:db8:0:1::/64  +---+---+
//	                   | eth0  |
//	                   | host  |
//	                   +-------+
//
// Building cannot fail half way through an expression: the first error is kept,
// what follows does nothing, and Ready, Do and the Start of each Command return it.
//
// # Nothing is left behind
//
// Namespaces have no name: descriptors of this process hold them, so they and
// all in them end with it, however it ends. Programs started by [Host.Command]
// are killed by the kernel when this process dies. A program that has detached
// itself from its parent carries the lab's name in its environment, and [Sweep]
// finds it once the lab is dead. No file is written outside a tmpfs that only
// the host's own mount namespace has.
//
// # Limits of the kernel that namespaces share
//
// All namespaces together have net.ipv6.neigh.default.gc_thresh3 (1024) IPv6
// neighbours, and as many of IPv4. Beyond that packets are refused: EINVAL for
// IPv6, ENOBUFS for IPv4. A lab does not change it.
//
// # Shim
//
// A program enters its host's namespaces through a re-execution of this
// program, so main and TestMain begin with a call of [Shim].
package lab
