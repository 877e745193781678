package portmap

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"testing"
	"time"
)

var (
	inner4 = netip.MustParseAddrPort("192.168.1.10:51830")
	inner6 = netip.MustParseAddrPort("[2001:db8::a]:51830")
	nonce  = pcpNonce{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRequests has the exact bytes of RFC 6886 and RFC 6887.
func TestRequests(t *testing.T) {
	const mapped = "00000000000000000000ffff"
	for name, test := range map[string]struct {
		got  []byte
		want string
	}{
		"NAT-PMP address":  {natpmpAddressRequest(), "0000"},
		"NAT-PMP map":      {natpmpMapRequest(51830, 40000, 2*time.Hour), "00010000" + "ca769c40" + "00001c20"},
		"NAT-PMP remove":   {natpmpMapRequest(51830, 0, 0), "00010000" + "ca760000" + "00000000"},
		"PCP announce":     {pcpAnnounceRequest(inner4.Addr()), "02000000" + "00000000" + mapped + "c0a8010a"},
		"PCP map":          {pcpMapRequest(inner4, netip.AddrPort{}, nonce, 2*time.Hour), "02010000" + "00001c20" + mapped + "c0a8010a" + "0102030405060708090a0b0c" + "11000000" + "ca760000" + mapped + "00000000"},
		"PCP map again":    {pcpMapRequest(inner4, netip.MustParseAddrPort("198.18.0.1:7"), nonce, time.Second), "02010000" + "00000001" + mapped + "c0a8010a" + "0102030405060708090a0b0c" + "11000000" + "ca760007" + mapped + "c6120001"},
		"PCP pinhole":      {pcpMapRequest(inner6, netip.AddrPort{}, nonce, 0), "02010000" + "00000000" + "20010db800000000000000000000000a" + "0102030405060708090a0b0c" + "11000000" + "ca760000" + "00000000000000000000000000000000"},
		"the other family": {pcpMapRequest(inner6, inner4, nonce, 0)[44:], "00000000000000000000000000000000"},
	} {
		if got := hex.EncodeToString(test.got); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, test.want)
		}
	}
}

// pcpGranted is an answer to pcpMapRequest(inner4, ..., nonce).
func pcpGranted(t testing.TB) []byte {
	return unhex(t, "02810000"+"00001c20"+"000003e8"+"000000000000000000000000"+"0102030405060708090a0b0c"+"11000000"+"ca769c40"+"00000000000000000000ffff"+"c6120001")
}

func TestAnswers(t *testing.T) {
	g, err := parsePCPMap(pcpGranted(t), inner4, nonce)
	if want := (pcpGrant{netip.MustParseAddrPort("198.18.0.1:40000"), 2 * time.Hour, 1000}); err != nil || g != want {
		t.Errorf("PCP: %+v, %v", g, err)
	}
	n, err := parseNATPMPMap(unhex(t, "00810000"+"000003e8"+"ca769c40"+"00001c20"), 51830)
	if want := (natpmpGrant{51830, 40000, 2 * time.Hour, 1000}); err != nil || n != want {
		t.Errorf("NAT-PMP: %+v, %v", n, err)
	}
	a, value, err := parseNATPMPAddress(unhex(t, "00800000"+"000003e8"+"c6120001"))
	if err != nil || a != netip.MustParseAddr("198.18.0.1") || value != 1000 {
		t.Errorf("NAT-PMP: %v, %d, %v", a, value, err)
	}
	if value, err := parsePCPAnnounce(pcpGrantedAnnounce(t)); err != nil || value != 1000 {
		t.Errorf("PCP: %d, %v", value, err)
	}
}

func pcpGrantedAnnounce(t testing.TB) []byte {
	return unhex(t, "02800000"+"00000000"+"000003e8"+"000000000000000000000000")
}

// TestNoAnswers: what is another's, cut or of another kind is waited past; a refusal ends the question.
func TestNoAnswers(t *testing.T) {
	change := func(b []byte, at int, to byte) []byte {
		b = bytes.Clone(b)
		b[at] = to
		return b
	}
	good := pcpGranted(t)
	for name, b := range map[string][]byte{
		"empty": nil, "a request": pcpMapRequest(inner4, netip.AddrPort{}, nonce, 0), "cut": good[:56], "odd": append(bytes.Clone(good), 1),
		"too long": append(bytes.Clone(good), make([]byte, pcpMax)...), "another nonce": change(good, 24, 9), "another protocol": change(good, 36, 6),
		"another port": change(good, 40, 0), "a refusal of another": change(change(good, 24, 9), 3, 2), "announce": pcpGrantedAnnounce(t),
	} {
		if _, err := parsePCPMap(b, inner4, nonce); !errors.Is(err, errNotAnswer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{
		"not authorized": change(good, 3, 2), "version": change(good, 0, 3), "NAT-PMP only": unhex(t, "00810001"+"00000000"), "refused in short": change(good[:24], 3, 8),
	} {
		e := (*ResultError)(nil)
		if _, err := parsePCPMap(b, inner4, nonce); !errors.As(err, &e) || e.Error() == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{
		"empty": nil, "request": natpmpMapRequest(51830, 0, 0), "PCP": good, "another port": unhex(t, "00810000"+"000003e8"+"ca779c40"+"00001c20"), "cut": unhex(t, "00810000"+"000003e8"+"ca76"),
	} {
		if _, err := parseNATPMPMap(b, 51830); !errors.Is(err, errNotAnswer) {
			t.Errorf("NAT-PMP, %s: %v", name, err)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(pcpGranted(f))
	f.Add(pcpGrantedAnnounce(f))
	f.Add(unhex(f, "00810000000003e8ca769c4000001c20"))
	f.Add(unhex(f, "00800000000003e8c6120001"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if g, err := parsePCPMap(b, inner4, nonce); err == nil && (len(b) < pcpMapLen || g.outer.Addr().Is4In6() || g.lifetime < 0) {
			t.Fatalf("%x: %+v", b, g)
		}
		if _, err := parsePCPAnnounce(b); err == nil && b[1] != 128 {
			t.Fatalf("%x", b)
		}
		if g, err := parseNATPMPMap(b, 51830); err == nil && (len(b) != natpmpMapLen || g.inner != 51830) {
			t.Fatalf("%x: %+v", b, g)
		}
		if a, _, err := parseNATPMPAddress(b); err == nil && (len(b) != natpmpAddressLen || !a.Is4()) {
			t.Fatalf("%x: %v", b, a)
		}
	})
}

func TestEpoch(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(1e9+int64(seconds), 0) }
	for _, test := range []struct {
		name          string
		before, after uint32
		passed        int
		wantRestarted bool
	}{
		{"as time goes", 1000, 1060, 60, false},
		{"a slow clock", 1000, 1057, 60, false},
		{"restarted", 1000, 5, 60, true},
		{"restarted long ago", 1000, 900, 3600, true},
		{"one second back", 1000, 999, 0, false},
		{"runs away", 1000, 5000, 60, true},
		{"stands still", 1000, 1000, 600, true},
	} {
		before, after := epoch{test.before, at(0)}, epoch{test.after, at(test.passed)}
		if got := before.restarted(after); got != test.wantRestarted {
			t.Errorf("%s: %v", test.name, got)
		}
	}
	if (epoch{}).restarted(epoch{7, at(0)}) {
		t.Error("the first count is a restart")
	}
}

func TestPublic(t *testing.T) {
	for s, want := range map[string]bool{
		"198.18.0.1": true, "8.8.8.8": true, "2001:db8::1": true,
		"10.0.0.1": false, "192.168.1.1": false, "172.16.0.1": false, "100.64.0.1": false, "169.254.1.1": false, "0.0.0.0": false, "0.1.2.3": false,
		"127.0.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "fd00::1": false, "fe80::1": false, "::1": false, "::ffff:8.8.8.8": false,
	} {
		m := Mapping{External: netip.AddrPortFrom(netip.MustParseAddr(s), 1)}
		if m.Public() != want {
			t.Errorf("%s is public: %v", s, !want)
		}
	}
}
