//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"meshd/integration/lab"
)

// stunServer is a program on a host that is no member, and answers what comes to it.
type stunServer struct {
	addr  netip.AddrPort
	asked chan struct{} // closed when it has answered for the first time
}

// reply is what a server says to a question that came from an address; nil is nothing.
type reply func(txid [stun.TransactionIDSize]byte, from netip.AddrPort) []byte

// stunServer starts one. With elsewhere it answers from another port.
func (w *world) stunServer(h *lab.Host, port uint16, elsewhere bool, answer reply) *stunServer {
	w.Helper()
	s := &stunServer{addr: netip.AddrPortFrom(h.Addr4(), port), asked: make(chan struct{})}
	var in, out *net.UDPConn
	w.must(h.Do(func() (err error) {
		if in, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(s.addr)); err != nil {
			return err
		}
		out, err = net.ListenUDP("udp4", &net.UDPAddr{IP: s.addr.Addr().AsSlice()})
		return err
	}))
	w.Cleanup(func() { in.Close(); out.Close() })
	by := in
	if elsewhere {
		by = out
	}
	go func() {
		b := make([]byte, 2048)
		for first := true; ; {
			n, from, err := in.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			q := &stun.Message{Raw: slices.Clone(b[:n])}
			if q.Decode() != nil || q.Type != stun.BindingRequest {
				continue
			}
			if a := answer(q.TransactionID, from); a != nil {
				_, _ = by.WriteToUDPAddrPort(a, from) // who asks will ask again
			}
			if first {
				first = false
				close(s.asked)
			}
		}
	}()
	return s
}

// says is a STUN message with these attributes.
func says(kind stun.MessageType, txid [stun.TransactionIDSize]byte, attributes ...stun.Setter) []byte {
	return stun.MustBuild(append([]stun.Setter{stun.NewTransactionIDSetter(txid), kind}, attributes...)...).Raw
}

func mappedTo(at netip.AddrPort) stun.Setter {
	return &stun.XORMappedAddress{IP: at.Addr().AsSlice(), Port: int(at.Port())}
}

// lie is an address that a node might have, and has not.
var lie = netip.MustParseAddrPort("203.0.113.7:7")

// nonsense is what servers say that are none, or out of order.
func nonsense() map[string]reply {
	type txid = [stun.TransactionIDSize]byte
	mapped := func(at string) reply {
		return func(id txid, _ netip.AddrPort) []byte {
			return says(stun.BindingSuccess, id, mappedTo(netip.MustParseAddrPort(at)), stun.Fingerprint)
		}
	}
	return map[string]reply{
		"noise":             func(txid, netip.AddrPort) []byte { return []byte("220 mail.example ESMTP ready\r\n") },
		"an empty datagram": func(txid, netip.AddrPort) []byte { return []byte{} },
		"half an answer": func(id txid, _ netip.AddrPort) []byte {
			b := says(stun.BindingSuccess, id, mappedTo(lie))
			return b[:len(b)-4]
		},
		"an answer without address": func(id txid, _ netip.AddrPort) []byte { return says(stun.BindingSuccess, id) },
		"an error": func(id txid, _ netip.AddrPort) []byte {
			return says(stun.BindingError, id, stun.CodeServerError, mappedTo(lie))
		},
		"a fingerprint of another": func(id txid, _ netip.AddrPort) []byte {
			b := says(stun.BindingSuccess, id, mappedTo(lie), stun.Fingerprint)
			b[len(b)-1] ^= 1
			return b
		},
		"an answer to another question": func(id txid, _ netip.AddrPort) []byte {
			id[0] ^= 1
			return says(stun.BindingSuccess, id, mappedTo(lie), stun.Fingerprint)
		},
		"no port":      mapped("203.0.113.7:0"),
		"nowhere":      mapped("0.0.0.0:9"),
		"loopback":     mapped("127.0.0.1:9"),
		"a group":      mapped("224.0.0.1:9"),
		"other family": mapped("[2001:db8:66::1]:9"),
	}
}

// TestSTUN has a node behind a NAT learn its outside address from the servers of --stun and from nobody else, beside many
// that talk nonsense, and be reached there.
func TestSTUN(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	site := w.net.Site("site", lab.SiteConfig{NAT: lab.FullCone, V4: true})
	host := site.Host("nas")
	fools := w.net.Host("fools", lab.HostConfig{V4: true})
	first, second := w.net.Host("first", lab.HostConfig{V4: true}), w.net.Host("second", lab.HostConfig{V4: true})
	w.must(w.lab.Ready(w.within(10 * time.Second)))

	var liars []*stunServer
	for _, answer := range nonsense() {
		liars = append(liars, w.stunServer(fools, uint16(4000+len(liars)), false, answer))
	}
	truth := func(at netip.AddrPort) reply {
		return func(id [stun.TransactionIDSize]byte, from netip.AddrPort) []byte {
			if at.IsValid() {
				from = at
			}
			return says(stun.BindingSuccess, id, mappedTo(from), stun.Fingerprint)
		}
	}
	liars = append(liars, w.stunServer(fools, 5000, true, truth(lie)))
	heard := func() bool {
		for _, s := range liars {
			select {
			case <-s.asked:
			default:
				return false
			}
		}
		return true
	}
	honest := func(id [stun.TransactionIDSize]byte, from netip.AddrPort) []byte {
		if !heard() { // so that all nonsense has been said before there is any truth
			return nil
		}
		return truth(netip.AddrPort{})(id, from)
	}
	w.net.SetName("stun.example", first.Addr4())
	w.stunServer(first, 3478, false, honest)
	args := []string{"--no-portmap", "--stun", "stun.example:3478", "--stun", w.stunServer(second, 3478, false, honest).addr.String()}
	for _, s := range liars {
		args = append(args, "--stun", s.addr.String())
	}
	nas := w.node(host)
	w.must(nas.Up(args...))
	w.must(nas.Ready(w.within(10 * time.Second)))

	outside := w.endpoint(nas, "reflexive", false)
	if outside.Addr() != site.Public() || outside.Port() == 51830 {
		t.Errorf("it takes %v for its outside address, behind %v", outside, site.Public())
	}
	w.waitMapping(nas, "endpoint-independent") // both servers have answered
	for _, e := range w.endpoints(nas) {
		if e.Kind != "host" && e.Addr != outside {
			t.Errorf("it lists %v, which is nonsense", e)
		}
	}
	var r netcheck
	w.must(nas.JSON(w.within(30*time.Second), &r, "netcheck"))
	if f := r.Families[0]; !f.UDP || f.Mapping != "endpoint-independent" || len(f.Reflexive) != 1 || f.Reflexive[0].Addr() != site.Public() {
		t.Errorf("netcheck: %+v", f)
	}

	// Who joins by its invite has nothing else to reach it by.
	friend := w.join(w.net.Host("friend", lab.HostConfig{V4: true}), w.invite(nas))
	w.waitDirect(friend, "nas")
	w.pingAll(20, nas, friend)
	for _, p := range w.status(friend).Peers {
		if p.Endpoint != outside.String() {
			t.Errorf("the friend reaches %s at %s, want %v", p.Name, p.Endpoint, outside)
		}
	}

	// Servers that are dead keep nobody from asking the members.
	args = []string{"--no-portmap"}
	for port := range 5 {
		args = append(args, "--stun", netip.AddrPortFrom(fools.Addr4(), uint16(6000+port)).String())
	}
	office := w.net.Site("office", lab.SiteConfig{NAT: lab.Home, V4: true})
	late := w.join(office.Host("late"), w.invite(nas), args...)
	w.waitMapping(late, "endpoint-independent")
}

// waitMapping waits until a node says what its NAT does.
func (w *world) waitMapping(n *lab.Node, want string) {
	w.Helper()
	w.eventually(40*time.Second, fmt.Sprintf("the NAT of %s is %s", n.Host.Name(), want), func() error {
		var s struct {
			Self struct{ NAT struct{ Mapping string } }
		}
		w.must(n.JSON(w.within(10*time.Second), &s, "status"))
		if got := s.Self.NAT.Mapping; got != want {
			return errors.New(got)
		}
		return nil
	})
}
