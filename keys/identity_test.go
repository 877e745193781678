package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

func TestNodeID(t *testing.T) {
	i := must(NewIdentity())(t)
	sum := sha256.Sum256(i.Sign.Public().(ed25519.PublicKey))
	id := i.ID()
	if !bytes.Equal(id[:], sum[:16]) || len(id.String()) != 26 || id != i.Public().ID() {
		t.Fatalf("id is %v", id)
	}
	if got := must(ParseNodeID(id.String()))(t); got != id {
		t.Errorf("got %v", got)
	}
	if got := must(ParseNetworkID(NetworkID(id).String()))(t); got != NetworkID(id) {
		t.Errorf("got %v", got)
	}
	b := must(json.Marshal(map[NodeID]NodeID{id: id}))(t)
	var back map[NodeID]NodeID
	if err := json.Unmarshal(b, &back); err != nil || back[id] != id {
		t.Errorf("json %s: %v", b, err)
	}
	if id.IsZero() || !(NodeID{}).IsZero() || id.Compare(id) != 0 || id.Compare(NodeID{}) <= 0 {
		t.Error("zero or order")
	}
	text := id.String()
	other := "a"
	if text[25:] == other {
		other = "b"
	}
	for _, bad := range []string{"", text[:25], text + "a", strings.ToUpper(text), "1" + text[1:], text[:25] + "=", text[:24] + "\n" + text[25:], text[:25] + "b"} {
		if _, err := ParseNodeID(bad); err == nil {
			t.Errorf("%q parsed", bad)
		}
	}
}

func FuzzParseNodeID(f *testing.F) {
	f.Add(NodeID{1}.String())
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseNodeID(s); err == nil && id.String() != s {
			t.Fatalf("%q is %v", s, id)
		}
	})
}

// lowOrderEdwards and lowOrderMontgomery are the encodings of points of low
// order as libsodium lists them, first without sign bit.
func lowOrderEdwards() []string {
	return []string{
		strings.Repeat("00", 32), "01" + strings.Repeat("00", 31),
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ec" + strings.Repeat("ff", 30) + "7f", "ed" + strings.Repeat("ff", 30) + "7f", "ee" + strings.Repeat("ff", 30) + "7f",
	}
}

func lowOrderMontgomery() []string {
	return []string{
		strings.Repeat("00", 32), "01" + strings.Repeat("00", 31),
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ec" + strings.Repeat("ff", 30) + "7f", "ed" + strings.Repeat("ff", 30) + "7f", "ee" + strings.Repeat("ff", 30) + "7f",
	}
}

func TestWeakKeys(t *testing.T) {
	good := must(NewIdentity())(t).Public()
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for _, sign := range []byte{0, 0x80} {
		for _, text := range lowOrderEdwards() {
			bad := good
			copy(bad.Sign[:], must(hex.DecodeString(text))(t))
			bad.Sign[31] |= sign
			if err := bad.Check(); !errors.Is(err, ErrWeakKey) {
				t.Errorf("signing key %x: %v", bad.Sign, err)
			}
		}
		for _, text := range lowOrderMontgomery() {
			for _, set := range []func(*Public, wgtypes.Key){
				func(p *Public, k wgtypes.Key) { p.WireGuard = k }, func(p *Public, k wgtypes.Key) { p.Probe = k },
			} {
				bad := good
				key := wgtypes.Key(must(hex.DecodeString(text))(t))
				key[31] |= sign
				set(&bad, key)
				if err := bad.Check(); !errors.Is(err, ErrWeakKey) {
					t.Errorf("X25519 key %x: %v", key, err)
				}
			}
		}
	}
	for range 200 {
		if err := must(NewIdentity())(t).Public().Check(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestIdentityRoundTrip(t *testing.T) {
	i := must(NewIdentity())(t)
	got := must(parseIdentity(i.marshal()))(t)
	if !got.Sign.Equal(i.Sign) || got.Public() != i.Public() || got.WireGuard != i.WireGuard || got.Probe != i.Probe {
		t.Error("another identity comes back")
	}
	for _, bad := range [][]byte{nil, i.marshal()[1:], append(i.marshal(), 0), append([]byte{9}, i.marshal()[1:]...)} {
		if _, err := parseIdentity(bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("got %v", err)
		}
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "laptop-2": true, "9": true, strings.Repeat("x", 63): true,
		"": false, strings.Repeat("x", 64): false, "-a": false, "a-": false, "A": false, "a.b": false, "a_b": false,
		"ä": false, "a b": false, "a\x00": false, "a\n": false, "\x1b[31m": false,
	} {
		if err := ValidateName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
	for host, want := range map[string]string{
		"laptop": "laptop", "Laptop.home.example": "laptop", "my_host": "my-host", "": "node", "...": "node", "---": "node",
		"Björn's MacBook": "bj-rn-s-macbook", strings.Repeat("y", 100): strings.Repeat("y", 63), "a\x00b": "a-b",
		"İstanbul": "istanbul", strings.Repeat("z", 62) + "--": strings.Repeat("z", 62),
	} {
		if got := SanitizeName(host); got != want {
			t.Errorf("%q gives %q, want %q", host, got, want)
		}
	}
}

func FuzzSanitizeName(f *testing.F) {
	f.Add("Björn's MacBook.local")
	f.Fuzz(func(t *testing.T, host string) {
		name := SanitizeName(host)
		if ValidateName(name) != nil || SanitizeName(name) != name {
			t.Fatalf("%q gives %q", host, name)
		}
	})
}

func TestRoles(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "member"},
		{"member", "member"},
		{"router admin", "admin member router"},
		{"admin admin", "admin member"},
		{"vlan=30,10-12,11-20", "member vlan=10-20,30"},
		{"vlan=1,2,3", "member vlan=1-3"},
		{"vlan=none", "member vlan=none"},
		{"vlan=1-4094", "member vlan=1-4094"},
	} {
		roles := must(ParseRoles(tt.in))(t)
		if roles.String() != tt.want {
			t.Errorf("%q gives %q, want %q", tt.in, roles, tt.want)
		}
		if again := must(ParseRoles(roles...))(t); !slices.Equal(again, roles) {
			t.Errorf("%q is not stable: %q", roles, again)
		}
	}
	for _, bad := range []string{
		"king", "Admin", "vlan", "vlan=", "vlan=0", "vlan=4095", "vlan=a", "vlan=5-3", "vlan=1,,2", "vlan=1-", "vlan=-1",
		"vlan=1 vlan=2", "vlan=" + strings.Repeat("1,", 100) + "1", "vlan=1000,1002,1004,1006,1008,1010,1012,1014,1016,1018", "admin\nx",
	} {
		if roles, err := ParseRoles(bad); err == nil {
			t.Errorf("%q gives %q", bad, roles)
		}
	}
	all := AllRoles()
	for _, role := range []string{RoleAdmin, RoleBridge, RoleDHCP, RoleMember, RoleRouter} {
		if !all.Has(role) || (Roles{}).Has(role) {
			t.Errorf("role %s", role)
		}
	}
	if again := must(ParseRoles(all...))(t); !slices.Equal(again, all) {
		t.Errorf("all roles are not canonical: %q", all)
	}
}

func TestVLANs(t *testing.T) {
	list, none := must(ParseRoles("vlan=10,20-29"))(t), must(ParseRoles("vlan=none"))(t)
	for id, want := range map[uint16]bool{0: true, 1: false, 10: true, 19: false, 20: true, 29: true, 30: false, 4094: false} {
		if list.AllowsVLAN(id) != want {
			t.Errorf("tag %d: %v", id, !want)
		}
		if !AllRoles().AllowsVLAN(id) || none.AllowsVLAN(id) != (id == 0) {
			t.Errorf("tag %d without list, or with none", id)
		}
	}
}

func FuzzParseRoles(f *testing.F) {
	f.Add("admin router vlan=10,20-29")
	f.Fuzz(func(t *testing.T, s string) {
		roles, err := ParseRoles(s)
		if err != nil {
			return
		}
		again, err := ParseRoles(roles...)
		if err != nil || !slices.Equal(again, roles) || !roles.Has(RoleMember) {
			t.Fatalf("%q gives %q, then %q, %v", s, roles, again, err)
		}
	})
}

func TestAddresses(t *testing.T) {
	a, b := must(NewIdentity())(t).ID(), must(NewIdentity())(t).ID()
	ula := ULA(NetworkID{1})
	if ula.Bits() != 64 || ula.Addr().As16()[0] != 0xfd || ula != ula.Masked() || ula == ULA(NetworkID{2}) || ula != ULA(NetworkID{1}) {
		t.Errorf("ula %v", ula)
	}
	if s := ula.Addr().As16(); s[6] != 0 || s[7] != 0 {
		t.Errorf("subnet of %v", ula)
	}
	p2 := netip.MustParsePrefix("2001:db8:1:2::/64")
	one, two := Address(a, ula), Address(a, p2)
	if !ula.Contains(one) || !p2.Contains(two) || one == Address(b, ula) || one != Address(a, ula) {
		t.Errorf("addresses %v and %v", one, two)
	}
	x, y := one.As16(), two.As16()
	if bytes.Equal(x[8:], y[8:]) {
		t.Error("the same interface identifier in two prefixes")
	}
	if got := Address(a, netip.PrefixFrom(p2.Addr().Next(), 64)); got != two {
		t.Errorf("host bits of the prefix change the address: %v", got)
	}
	for _, bad := range []netip.Prefix{{}, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/65"), netip.MustParsePrefix("::ffff:10.0.0.0/64")} {
		if got := Address(a, bad); got.IsValid() {
			t.Errorf("%v gives %v", bad, got)
		}
	}
	mac := MAC(a)
	if mac[0]&1 != 0 || mac[0]&2 == 0 || mac == MAC(b) || mac != MAC(a) {
		t.Errorf("mac %x", mac)
	}
	seen := map[[6]byte]bool{}
	for n := range 5000 {
		m := MAC(NodeID{byte(n), byte(n >> 8)})
		if m[0]&3 != 2 || seen[m] {
			t.Fatalf("mac %x", m)
		}
		seen[m] = true
	}
	for _, reserved := range [][8]byte{{}, {0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x80}, {2, 0, 0x5e, 0xff, 0xfe, 1, 2, 3}} {
		if !reservedInterfaceID(reserved) {
			t.Errorf("%x is not reserved", reserved)
		}
	}
	if reservedInterfaceID([8]byte{0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}) {
		t.Error("reserves too much")
	}
}

// TestDerivedForms pins what all members must derive alike, in all versions.
func TestDerivedForms(t *testing.T) {
	id, network := NodeID{1, 2, 3}, NetworkID{4, 5, 6}
	mac := MAC(id)
	got := strings.Join([]string{id.String(), hex.EncodeToString(mac[:]), ULA(network).String(), Address(id, ULA(network)).String()}, " ")
	if want := "aebagaaaaaaaaaaaaaaaaaaaaa 5a244432ec76 fdcc:a32c:2a18::/64 fdcc:a32c:2a18:0:9096:b426:a826:47dc"; got != want {
		t.Errorf("got %s", got)
	}
}
