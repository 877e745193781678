package record

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"meshd/keys"
	"meshd/keys/canon"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func identity(t testing.TB) *keys.Identity {
	t.Helper()
	id, err := keys.NewIdentity()
	check(t, err)
	return id
}

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// fullNode is as much as a member may say.
func fullNode() Node {
	n := Node{Software: strings.Repeat("x", MaxSoftware), Capabilities: CapRelay | CapSTUN}
	for i := range MaxEndpoints {
		n.Endpoints = append(n.Endpoints, Endpoint{at(fmt.Sprintf("[2001:db8::%x]:51830", i+1)), KindHost})
	}
	for i := range MaxContacts {
		n.Contacts = append(n.Contacts, keys.NodeID{byte(i)})
	}
	return n
}

func TestNodeRoundTrip(t *testing.T) {
	id, network := identity(t), keys.NetworkID{1}
	for name, n := range map[string]Node{
		"empty": {},
		"some": {
			Endpoints: []Endpoint{{at("192.0.2.1:1"), KindReflexive}, {at("[2001:db8::1]:65535"), KindHost}},
			Software:  "meshd 1.0",
			Contacts:  []keys.NodeID{{2}, {1}},
		},
		"as much as fits": fullNode().Trim(),
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := SignNode(id, network, Version{3, 4}, n)
			check(t, err)
			if len(raw) > 1000 {
				t.Errorf("%d bytes", len(raw))
			}
			r, err := Parse(raw)
			check(t, err)
			check(t, r.Verify(network, id.Public()))
			if !r.Node.Equal(n.Normal()) || r.Version != (Version{3, 4}) || r.Key != (Key{Type: TypeNode, Owner: id.ID()}) {
				t.Errorf("%v %v %v", r.Key, r.Version, r.Node)
			}
			if !bytes.Equal(r.Raw(), raw) || r.Hash != HashOf(raw) {
				t.Error("the bytes are not the same")
			}
		})
	}
}

func TestTrimKeepsWhatMatters(t *testing.T) {
	n := fullNode()
	n.Endpoints = append(n.Endpoints, Endpoint{at("127.0.0.1:1"), KindHost}, Endpoint{at("192.0.2.1:1"), KindAdvertised})
	n.Software += "\x1b[31m"
	got := n.Trim()
	if len(got.Endpoints) != MaxEndpoints || got.Endpoints[0].Kind != KindAdvertised || got.check() != nil {
		t.Errorf("%d endpoints: %v", len(got.Endpoints), got.check())
	}
}

func TestNetworkRoundTrip(t *testing.T) {
	id, network := identity(t), keys.NetworkID{1}
	n := Network{
		Name: "zu Hause", MTU: 1500, Settings: map[string]string{"b": "2", "a": "1"},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("fd00:1:2:3::/64"), netip.MustParsePrefix("2001:db8::/64")},
	}
	raw, err := SignNetwork(id, network, Version{1, 1}, n)
	check(t, err)
	r, err := Parse(raw)
	check(t, err)
	check(t, r.Verify(network, id.Public()))
	if !r.Network.Equal(n) {
		t.Errorf("%v", r.Network)
	}
}

func TestCertificateAndRevocation(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	root, err := keys.NewRoot("home", now)
	check(t, err)
	admin := identity(t)
	der, err := root.IssueSigner(admin.Public(), now)
	check(t, err)
	signer, err := keys.NewSigner(admin, der)
	check(t, err)
	trust := keys.Trust{Root: root.Public()}
	id := identity(t)
	versions := []Version{}
	for i := range 3 {
		chain, err := signer.Issue(id.Public(), strings.Repeat("n", 63), keys.AllRoles(), now.Add(time.Duration(i)*time.Millisecond))
		check(t, err)
		raw, err := FromCertificate(chain)
		check(t, err)
		r, err := Parse(raw)
		check(t, err)
		c, err := r.VerifyCertificate(trust, now)
		check(t, err)
		if r.Key != (Key{Type: TypeCertificate, Owner: id.ID(), By: admin.ID()}) || c.ID != id.ID() {
			t.Errorf("%v", r.Key)
		}
		if c, err := r.VerifyCertificate(trust, now.AddDate(1, 0, 0)); c == nil || !errors.Is(err, keys.ErrExpired) {
			t.Errorf("a year later: %v", err)
		}
		if c, err := r.VerifyCertificate(keys.Trust{Root: ed25519.PublicKey(make([]byte, 32))}, now); c != nil || err == nil {
			t.Error("under another root")
		}
		versions = append(versions, r.Version)
	}
	if versions[0].Compare(versions[1]) >= 0 || versions[1].Compare(versions[2]) >= 0 {
		t.Errorf("renewals do not replace each other: %v", versions)
	}
	v, err := signer.Revoke(trust.NetworkID(), keys.Revocation{Key: id.Public().Sign, Issued: now})
	check(t, err)
	raw, err := FromRevocation(v.Raw)
	check(t, err)
	r, err := Parse(raw)
	check(t, err)
	if _, err := r.VerifyRevocation(trust); err != nil || r.Key != (Key{Type: TypeRevocation, Owner: id.ID(), By: admin.ID()}) {
		t.Errorf("%v %v", r.Key, err)
	}
	if err := r.Verify(trust.NetworkID(), id.Public()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a revocation verified as a member's word: %v", err)
	}
}

func TestBodiesThatNoneMaySay(t *testing.T) {
	endpoint := func(s string) Node { return Node{Endpoints: []Endpoint{{at(s), KindHost}}} }
	for name, n := range map[string]Node{
		"loopback":           endpoint("127.0.0.1:1"),
		"loopback 6":         endpoint("[::1]:1"),
		"unspecified":        endpoint("0.0.0.0:1"),
		"unspecified 6":      endpoint("[::]:1"),
		"this network":       endpoint("0.1.2.3:1"),
		"multicast":          endpoint("224.0.0.1:1"),
		"multicast 6":        endpoint("[ff02::1]:1"),
		"broadcast":          endpoint("255.255.255.255:1"),
		"reserved":           endpoint("240.0.0.1:1"),
		"link-local":         endpoint("169.254.169.254:1"),
		"link-local 6":       endpoint("[fe80::1]:1"),
		"zone":               endpoint("[2001:db8::1%eth0]:1"),
		"port 0":             endpoint("192.0.2.1:0"),
		"kind 0":             {Endpoints: []Endpoint{{at("192.0.2.1:1"), 0}}},
		"kind 6":             {Endpoints: []Endpoint{{at("192.0.2.1:1"), 6}}},
		"escape in software": {Software: "\x1b[2J"},
		"newline":            {Software: "a\nb"},
		"direction changes":  {Software: "a\u202eb"},
		"not UTF-8":          {Software: "\xff"},
		"long software":      {Software: strings.Repeat("x", MaxSoftware+1)},
		"nine endpoints":     {Endpoints: make([]Endpoint, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "nine endpoints" {
				for i := range MaxEndpoints + 1 {
					n.Endpoints = append(n.Endpoints, Endpoint{at(fmt.Sprintf("192.0.2.%d:1", i+1)), KindHost})
				}
			}
			if _, err := SignNode(identity(t), keys.NetworkID{}, Version{}, n); !errors.Is(err, ErrInvalid) {
				t.Errorf("signed: %v", err)
			}
			if name == "zone" { // the encoding has no place for it
				return
			}
			if _, err := Parse(forge(t, TypeNode, n.wire())); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrMalformed) {
				t.Errorf("parsed: %v", err)
			}
		})
	}
	prefix := func(s string) Network { return Network{MTU: 1500, Prefixes: []netip.Prefix{netip.MustParsePrefix(s)}} }
	for name, n := range map[string]Network{
		"MTU too small":    {MTU: 1279},
		"MTU too large":    {MTU: 9001},
		"control in name":  {MTU: 1500, Name: "a\x00"},
		"long name":        {MTU: 1500, Name: strings.Repeat("n", MaxNetworkName+1)},
		"multicast prefix": prefix("ff00::/64"),
		"link-local":       prefix("fe80::/64"),
		"zero prefix":      prefix("::/64"),
		"twice": {MTU: 1500, Prefixes: []netip.Prefix{
			netip.MustParsePrefix("fd00::/64"), netip.MustParsePrefix("fd00::/64"),
		}},
		"unnamed setting":     {MTU: 1500, Settings: map[string]string{"": "x"}},
		"control in settings": {MTU: 1500, Settings: map[string]string{"x": "\r"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := SignNetwork(identity(t), keys.NetworkID{}, Version{}, n); !errors.Is(err, ErrInvalid) {
				t.Errorf("signed: %v", err)
			}
			if _, err := Parse(forge(t, TypeNetwork, n.wire())); !errors.Is(err, ErrInvalid) {
				t.Errorf("parsed: %v", err)
			}
		})
	}
	if _, err := SignNetwork(identity(t), keys.NetworkID{}, Version{}, prefix("2001:db8::/48")); !errors.Is(err, ErrInvalid) {
		t.Errorf("a /48: %v", err)
	}
	if _, err := SignNetwork(identity(t), keys.NetworkID{}, Version{}, prefix("10.0.0.0/8")); !errors.Is(err, ErrInvalid) {
		t.Errorf("an IPv4 prefix: %v", err)
	}
}

// forge signs any body, as a member with its own software could.
func forge(t testing.TB, kind Type, body any) []byte {
	t.Helper()
	b, err := canon.Marshal(body)
	check(t, err)
	id := identity(t)
	payload, err := canon.Marshal(wirePayload{Owner: id.ID(), Epoch: 1, Body: b})
	check(t, err)
	raw, err := canon.Marshal(wireRecord{Type: kind, Payload: payload, Signature: ed25519.Sign(id.Sign, signedBytes(kind, keys.NetworkID{}, payload))})
	check(t, err)
	return raw
}

// One statement has one encoding: what a careful forger re-encodes is refused, whatever its signature.
func TestOtherEncodingsAreRefused(t *testing.T) {
	ab := []wireEndpoint{{Kind: KindHost, IP: []byte{192, 0, 2, 1}, Port: 1}, {Kind: KindHost, IP: []byte{192, 0, 2, 2}, Port: 1}}
	ab[0], ab[1] = ab[1], ab[0]
	good := wireNode{Endpoints: ab, Bindings: []struct{}{}}
	if _, err := Parse(forge(t, TypeNode, good)); !errors.Is(err, ErrMalformed) {
		t.Errorf("endpoints in descending order: %v", err)
	}
	ab[0], ab[1] = ab[1], ab[0]
	if _, err := Parse(forge(t, TypeNode, good)); err != nil {
		t.Errorf("in order: %v", err)
	}
	for name, body := range map[string]any{
		"endpoint twice":     wireNode{Endpoints: []wireEndpoint{ab[0], ab[0]}, Bindings: []struct{}{}},
		"null list":          []any{nil, []any{}, "", 0, []any{}},
		"a binding":          []any{[]any{}, []any{[]any{[]byte{2, 0, 0, 0, 0, 0}, []any{}}}, "", 0, []any{}},
		"null contacts":      []any{[]any{}, []any{}, "", 0, nil},
		"contact twice":      wireNode{Endpoints: ab, Bindings: []struct{}{}, Contacts: [][]byte{make([]byte, 16), make([]byte, 16)}},
		"short contact":      wireNode{Endpoints: ab, Bindings: []struct{}{}, Contacts: [][]byte{make([]byte, 15)}},
		"IPv4 in IPv6":       wireNode{Endpoints: []wireEndpoint{{Kind: 1, IP: append(make([]byte, 10), 255, 255, 192, 0, 2, 1), Port: 1}}, Bindings: []struct{}{}},
		"address of 5 bytes": wireNode{Endpoints: []wireEndpoint{{Kind: 1, IP: make([]byte, 5), Port: 1}}, Bindings: []struct{}{}},
		"unknown field":      []any{[]any{}, []any{}, "", 0, []any{}, "more"},
		"field missing":      []any{[]any{}, []any{}, "", 0},
		"a map":              map[string]int{"Endpoints": 1},
	} {
		if _, err := Parse(forge(t, TypeNode, body)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	id := identity(t)
	raw, err := SignNode(id, keys.NetworkID{}, Version{}, Node{})
	check(t, err)
	for name, bad := range map[string][]byte{
		"empty":             {},
		"indefinite length": append(append([]byte{0x9f}, raw[1:]...), 0xff),
		"bytes behind":      append(bytes.Clone(raw), 0),
		"a tag":             append([]byte{0xc1}, raw...),
		"long head":         append([]byte{0x98, 0x03}, raw[1:]...),
		"unknown type":      append([]byte{0x83, 0x17}, raw[2:]...),
		"type 0":            append([]byte{0x83, 0x00}, raw[2:]...),
		"without signature": append(bytes.Clone(raw[:len(raw)-66]), 0x40),
		"null signature":    append(bytes.Clone(raw[:len(raw)-66]), 0xf6),
		"certificate with a signature beside": func() []byte {
			b, _ := canon.Marshal(wireRecord{Type: TypeCertificate, Payload: []byte{1}, Signature: make([]byte, 64)})
			return b
		}(),
	} {
		if _, err := Parse(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Parse(make([]byte, MaxSize+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

func TestVerifyBindsEverything(t *testing.T) {
	id, other, network := identity(t), identity(t), keys.NetworkID{1}
	raw, err := SignNode(id, network, Version{1, 1}, Node{Software: "meshd"})
	check(t, err)
	r, err := Parse(raw)
	check(t, err)
	if err := r.Verify(keys.NetworkID{2}, id.Public()); !errors.Is(err, ErrSignature) {
		t.Errorf("in another network: %v", err)
	}
	if err := r.Verify(network, other.Public()); !errors.Is(err, ErrSignature) {
		t.Errorf("of another owner: %v", err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		bad := bytes.Clone(raw)
		bad[rnd.IntN(len(bad))] ^= 1 << rnd.IntN(8)
		if r, err := Parse(bad); err == nil && r.Node != nil && r.Verify(network, id.Public()) == nil {
			t.Fatalf("accepted %x", bad)
		}
	}
}

func TestVersions(t *testing.T) {
	top := ^uint32(0)
	for _, c := range []struct {
		v, next Version
		ok      bool
	}{
		{Version{0, 0}, Version{0, 1}, true},
		{Version{1, top}, Version{2, 0}, true},
		{Version{top, top}, Version{top, top}, false},
	} {
		if next, ok := c.v.Next(); next != c.next || ok != c.ok {
			t.Errorf("after %v comes %v %v", c.v, next, ok)
		}
	}
	if (Version{1, 9}).Compare(Version{2, 0}) != -1 || (Version{2, 1}).Compare(Version{2, 0}) != 1 {
		t.Error("the epoch does not come first")
	}
}

func FuzzParse(f *testing.F) {
	id := identity(f)
	node, err := SignNode(id, keys.NetworkID{}, Version{1, 2}, fullNode().Trim())
	check(f, err)
	network, err := SignNetwork(id, keys.NetworkID{}, Version{1, 2}, Network{
		Name: "home", MTU: 1500, Prefixes: []netip.Prefix{netip.MustParsePrefix("fd00::/64")}, Settings: map[string]string{"a": "b"},
	})
	check(f, err)
	chain, err := FromCertificate([]byte{1, 2, 3})
	check(f, err)
	revocation, err := FromRevocation([]byte{1, 2, 3})
	check(f, err)
	groups, err := SignGroups(id, keys.NetworkID{}, Version{1, 2}, someGroups())
	check(f, err)
	stations, err := SignStations(id, keys.NetworkID{}, Version{1, 2}, somePage())
	check(f, err)
	for _, seed := range [][]byte{node, network, chain, revocation, groups, stations} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := Parse(raw)
		if err != nil {
			return
		}
		var body any
		switch r.Key.Type {
		case TypeNode:
			body = r.Node.wire()
		case TypeNetwork:
			body = r.Network.wire()
		case TypeGroups:
			body = r.Groups.wire()
		case TypeStations:
			body = r.Stations.wire()
		default:
			return
		}
		// What was read says all that the bytes say: encoded again, they are the same.
		b, err := canon.Marshal(body)
		check(t, err)
		payload, err := canon.Marshal(wirePayload{Owner: r.Key.Owner, Epoch: r.Version.Epoch, Counter: r.Version.Counter, Body: b})
		check(t, err)
		if again, err := envelope(r.Key.Type, payload, r.signature); err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%x became %x, %v", raw, again, err)
		}
	})
}
