package doctor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"meshd/mesh/api"
)

// find is the check of that name.
func find(t *testing.T, list []api.Check, name string) api.Check {
	t.Helper()
	for _, c := range list {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no check %q in %+v", name, list)
	return api.Check{}
}

// measured is a network as netcheck may find it.
func measured(change func(*api.Netcheck)) Config {
	r := &api.Netcheck{
		UDP: true, Asked: 2,
		Families: []api.NetcheckFamily{
			{Family: "ipv4", Address: "192.168.1.2", UDP: true, Mapping: "endpoint-independent", Filtering: "unknown", PathMTU: 1500},
			{Family: "ipv6"},
		},
		Routers: []api.Router{{Addr: "192.168.1.1", Family: "ipv4", Protocols: []string{"pcp"}}},
		Servers: []api.NetcheckServer{{Addr: "198.18.0.1:1"}, {Addr: "[2001:db8::1]:1"}},
	}
	change(r)
	return Config{Port: 51830, Netcheck: func(context.Context) (*api.Netcheck, error) { return r, nil }}
}

func TestNetwork(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*api.Netcheck)
		check  string
		state  api.CheckState
		says   string
	}{
		{"good", func(*api.Netcheck) {}, "udp", api.CheckOK, ""},
		{"good NAT", func(*api.Netcheck) {}, "nat", api.CheckOK, "endpoint-independent"},
		{"good router", func(*api.Netcheck) {}, "port-mapping", api.CheckOK, "pcp"},
		{"good MTU", func(*api.Netcheck) {}, "mtu", api.CheckOK, "1500"},
		{"no route", func(r *api.Netcheck) { r.UDP, r.Families[0].Address = false, "" }, "udp", api.CheckFailed, "no route"},
		{"nobody to ask", func(r *api.Netcheck) { r.UDP, r.Asked = false, 0 }, "udp", api.CheckSkipped, "no member"},
		{"blocked", func(r *api.Netcheck) { r.UDP = false }, "udp", api.CheckFailed, "none of 2"},
		{"IPv6 is announced and broken", func(r *api.Netcheck) { r.Families[1].Address = "2001:db8::2" }, "ipv6-path", api.CheckWarning, "2001:db8::2"},
		{"symmetric", func(r *api.Netcheck) { r.Families[0].Mapping = "address-and-port-dependent" }, "nat", api.CheckWarning, "relays"},
		{"symmetric, with a mapped port", func(r *api.Netcheck) {
			r.Families[0].Mapping, r.Routers[0].Mapped = "address-and-port-dependent", "198.18.0.1:51830"
		}, "nat", api.CheckOK, "mapped"},
		{"double NAT", func(r *api.Netcheck) { r.Routers[0].Mapped, r.Routers[0].DoubleNAT = "100.64.0.2:7", true }, "port-mapping", api.CheckWarning, "another NAT"},
		{"a mute router", func(r *api.Netcheck) { r.Routers[0].Protocols = nil }, "port-mapping", api.CheckWarning, "neither"},
		{"a router that refuses", func(r *api.Netcheck) { r.Routers[0].Problem = "the router refuses" }, "port-mapping", api.CheckWarning, "refuses"},
		{"no router", func(r *api.Netcheck) { r.Routers = nil }, "port-mapping", api.CheckSkipped, ""},
		{"large packets are lost", func(r *api.Netcheck) { r.Families[0].PathMTU = 0 }, "mtu", api.CheckWarning, "1280"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := find(t, checkNetwork(t.Context(), measured(test.change)), test.check)
			if c.State != test.state || !strings.Contains(c.Text, test.says) {
				t.Errorf("%+v, want %s and %q", c, test.state, test.says)
			}
			if (c.State == api.CheckWarning || c.State == api.CheckFailed) && c.Remedy == "" {
				t.Error("it does not say what to do")
			}
		})
	}
}

func TestPairs(t *testing.T) {
	peer := func(name string, state api.PeerState) api.Peer {
		return api.Peer{Name: name, State: state, Via: []string{"hub"}}
	}
	for _, test := range []struct {
		name, mapping, there, says string
		udp                        bool
		kind                       api.EndpointKind
	}{
		{"symmetric", "address-and-port-dependent", "endpoint-independent", "here is address-and-port-dependent", true, api.EndpointHost},
		{"symmetric, mapped", "address-and-port-dependent", "unknown", "on the other side", true, api.EndpointMapped},
		{"symmetric here and there", "address-and-port-dependent", "address-dependent", "here and there", true, api.EndpointHost},
		{"symmetric there", "endpoint-independent", "address-and-port-dependent", "there is address-and-port-dependent", true, api.EndpointHost},
		{"symmetric there, mapped here", "endpoint-independent", "address-dependent", "other side is address-dependent", true, api.EndpointMapped},
		{"punchable", "endpoint-independent", "unknown", "other side", true, api.EndpointHost},
		{"punchable on both sides", "endpoint-independent", "endpoint-independent", "firewall", true, api.EndpointHost},
		{"no NAT", "none", "", "no NAT here", true, api.EndpointHost},
		{"no NAT on either side", "none", "none", "firewall there", true, api.EndpointHost},
		{"blocked", "unknown", "unknown", "no UDP passes", false, api.EndpointHost},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &api.Status{
				Self:  api.Self{NAT: api.NAT{Mapping: test.mapping, UDP: test.udp}, Endpoints: []api.Endpoint{{Addr: "198.18.0.1:1", Kind: test.kind}}},
				Peers: []api.Peer{peer("a", api.StateDirect), peer("b", api.StateRelayed), peer("c", api.StateOffline), peer("d", api.StateIdle)},
			}
			s.Peers[1].NATMapping = test.there
			list := checkPairs(t.Context(), Config{Status: s, Port: 51830})
			c := find(t, list, "pair b")
			if c.State != api.CheckWarning || !strings.Contains(c.Text, test.says) || !strings.Contains(c.Text, "hub") || c.Remedy == "" {
				t.Errorf("%+v, want %q", c, test.says)
			}
			if find(t, list, "pair c").State != api.CheckWarning || len(list) != 3 {
				t.Errorf("%+v", list)
			}
		})
	}
}

func TestNode(t *testing.T) {
	status := func(change func(*api.Status)) Config {
		s := &api.Status{Self: api.Self{Name: "a", Ready: true, CertificateExpires: time.Now().Add(80 * 24 * time.Hour)}}
		change(s)
		return Config{Status: s}
	}
	for _, test := range []struct {
		name  string
		cfg   Config
		check string
		of    func(context.Context, Config) []api.Check
		state api.CheckState
	}{
		{"no daemon", Config{NoStatus: errors.New("no daemon answers")}, "daemon", checkDaemon, api.CheckWarning},
		{"a daemon", status(func(*api.Status) {}), "daemon", checkDaemon, api.CheckOK},
		{"waiting", status(func(s *api.Status) { s.Self.Waiting = "six words" }), "daemon", checkDaemon, api.CheckWarning},
		{"starting", status(func(s *api.Status) { s.Self.Ready = false }), "daemon", checkDaemon, api.CheckWarning},
		{"certificate", status(func(*api.Status) {}), "certificate", checkCertificate, api.CheckOK},
		{"certificate ends soon", status(func(s *api.Status) { s.Self.CertificateExpires = time.Now().Add(time.Hour) }), "certificate", checkCertificate, api.CheckWarning},
		{"certificate has ended", status(func(s *api.Status) { s.Health = []api.Health{{Code: "certificate-expired", Text: "x"}} }), "certificate", checkCertificate, api.CheckFailed},
		{"no certificate", status(func(s *api.Status) { s.Self.CertificateExpires = time.Time{} }), "certificate", checkCertificate, api.CheckSkipped},
		{"an error", status(func(s *api.Status) { s.Health = []api.Health{{Code: "loop", Severity: api.SeverityError}} }), "loop", checkHealth, api.CheckFailed},
		{"a warning", status(func(s *api.Status) { s.Health = []api.Health{{Code: "loop", Severity: api.SeverityWarning}} }), "loop", checkHealth, api.CheckWarning},
	} {
		t.Run(test.name, func(t *testing.T) {
			if c := find(t, test.of(t.Context(), test.cfg), test.check); c.State != test.state {
				t.Errorf("%+v, want %s", c, test.state)
			}
		})
	}
}
