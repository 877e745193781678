package keys

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"meshd/keys/canon"
)

func (p *party) invite(t testing.TB, change func(*InviteOptions)) *Invite {
	t.Helper()
	o := InviteOptions{
		Root: p.root.Public(), Network: "home", Entries: []string{"home.example:51830", "[2001:db8::1]:51830"},
		Expires: p.now.Add(24 * time.Hour),
	}
	if change != nil {
		change(&o)
	}
	return must(NewInvite(p.signer, o, p.now))(t)
}

func TestInviteRoundTrip(t *testing.T) {
	p := newParty(t)
	i := p.invite(t, func(o *InviteOptions) { o.Roles, o.Uses = AllRoles(), 5 })
	text := i.Text()
	t.Logf("%d characters", len(text))
	if !IsInvite(text) || !strings.HasPrefix(text, "meshd1-") || strings.ContainsAny(text, " \n") {
		t.Fatalf("text form of %d characters", len(text))
	}
	folded := "  " + text[:100] + "\r\n " + text[100:] + "\n"
	for _, form := range []string{text, folded} {
		got := must(ParseInvite(form, p.now))(t)
		if got.Text() != text || got.Issuer != p.signer.ID() || got.NetworkID() != p.trust.NetworkID() ||
			got.Uses != 5 || got.Roles.String() != AllRoles().String() || got.ID != i.ID ||
			strings.Join(got.Entries, " ") != strings.Join(i.Entries, " ") || !got.Expires.Equal(i.Expires) || got.Network != "home" {
			t.Fatalf("got %+v", got)
		}
	}
}

// reseal writes an invite's text anew after a change, with a good checksum.
func reseal(t testing.TB, text string, change func(*inviteWire)) string {
	t.Helper()
	w := must(parseInviteText(text))(t)
	change(&w)
	return sealText(must(canon.Marshal(w))(t))
}

func sealText(b []byte) string {
	sum := checksum(b)
	return invitePrefix + base64.RawURLEncoding.EncodeToString(append(bytes.Clone(b), sum...))
}

func TestParseInviteTellsWhatIsWrong(t *testing.T) {
	p := newParty(t)
	text := p.invite(t, nil).Text()
	other := newParty(t)
	for _, tt := range []struct {
		name, text string
		want       error
	}{
		{"empty", "", ErrMalformed},
		{"a host", "home.example", ErrMalformed},
		{"prefix only", "meshd1-", ErrMalformed},
		{"cut", text[:len(text)-3], ErrMalformed},
		{"one character mistyped", text[:60] + swap(text[60]) + text[61:], ErrMalformed},
		{"two characters swapped", swapTwo(text), ErrMalformed},
		{"too long", text + strings.Repeat("A", maxInviteText), ErrMalformed},
		{"root replaced", reseal(t, text, func(w *inviteWire) { w.Root = [32]byte(other.root.Public()) }), ErrTampered},
		{"role raised", reseal(t, text, func(w *inviteWire) { w.Roles = AllRoles().String() }), ErrTampered},
		{"more uses", reseal(t, text, func(w *inviteWire) { w.Uses = 100 }), ErrTampered},
		{"longer life", reseal(t, text, func(w *inviteWire) { w.Expires += 86400 }), ErrTampered},
		{"other entry", reseal(t, text, func(w *inviteWire) { w.Entries[0] = "rogue.example:51830" }), ErrTampered},
		{"other network name", reseal(t, text, func(w *inviteWire) { w.Network = "work" }), ErrTampered},
		{"other id", reseal(t, text, func(w *inviteWire) { w.ID[0]++ }), ErrTampered},
		{"other secret", reseal(t, text, func(w *inviteWire) { w.Secret[0]++ }), ErrTampered},
		{"other issuer", reseal(t, text, func(w *inviteWire) { w.IssuerKey = [32]byte(other.signer.public()) }), ErrTampered},
		{"zero issuer", reseal(t, text, func(w *inviteWire) { w.IssuerKey = [32]byte{} }), ErrTampered},
		{"other signature", reseal(t, text, func(w *inviteWire) { w.Signature[5]++ }), ErrTampered},
		{"newer version", reseal(t, text, func(w *inviteWire) { w.Version++ }), ErrMalformed},
		{"short signature", reseal(t, text, func(w *inviteWire) { w.Signature = w.Signature[:63] }), ErrMalformed},
		{"roles unsorted", reseal(t, text, func(w *inviteWire) { w.Roles = "member admin" }), ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i, err := ParseInvite(tt.text, p.now)
			if !errors.Is(err, tt.want) || i != nil {
				t.Fatalf("got %v, %v; want %v", i, err, tt.want)
			}
			if len(tt.text) > 60 && strings.Contains(err.Error(), tt.text[30:60]) {
				t.Error("the error shows the text")
			}
		})
	}
	t.Run("every character mistyped", func(t *testing.T) {
		for n := len(invitePrefix); n < len(text); n++ {
			if _, err := ParseInvite(text[:n]+swap(text[n])+text[n+1:], p.now); !errors.Is(err, ErrMalformed) {
				t.Fatalf("character %d: %v", n, err)
			}
		}
	})
	t.Run("expired", func(t *testing.T) {
		i, err := ParseInvite(text, p.now.Add(24*time.Hour))
		if !errors.Is(err, ErrExpired) || i == nil || i.Network != "home" {
			t.Fatalf("got %v, %v", i, err)
		}
	})
}

func swap(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func swapTwo(text string) string {
	for n := 50; ; n++ {
		if text[n] != text[n+1] {
			return text[:n] + string(text[n+1]) + string(text[n]) + text[n+2:]
		}
	}
}

func TestNewInviteRefuses(t *testing.T) {
	p := newParty(t)
	for name, change := range map[string]func(*InviteOptions){
		"no entry":           func(o *InviteOptions) { o.Entries = nil },
		"nine entries":       func(o *InviteOptions) { o.Entries = strings.Fields(strings.Repeat("a:1 ", 9)) },
		"entry without port": func(o *InviteOptions) { o.Entries = []string{"home.example"} },
		"port zero":          func(o *InviteOptions) { o.Entries = []string{"home.example:0"} },
		"port too large":     func(o *InviteOptions) { o.Entries = []string{"home.example:65536"} },
		"control character":  func(o *InviteOptions) { o.Entries = []string{"ho\x1bme:1"} },
		"unspecified":        func(o *InviteOptions) { o.Entries = []string{"0.0.0.0:1"} },
		"multicast":          func(o *InviteOptions) { o.Entries = []string{"[ff02::1]:1"} },
		"zone":               func(o *InviteOptions) { o.Entries = []string{"[fe80::1%eth0]:1"} },
		"past":               func(o *InviteOptions) { o.Expires = p.now },
		"far future":         func(o *InviteOptions) { o.Expires = p.now.AddDate(200, 0, 0) },
		"negative uses":      func(o *InviteOptions) { o.Uses = -1 },
		"many uses":          func(o *InviteOptions) { o.Uses = maxUses + 1 },
		"unknown role":       func(o *InviteOptions) { o.Roles = Roles{"king"} },
		"network name":       func(o *InviteOptions) { o.Network = "a\nb" },
		"no root":            func(o *InviteOptions) { o.Root = nil },
	} {
		t.Run(name, func(t *testing.T) {
			o := InviteOptions{Root: p.root.Public(), Network: "home", Entries: []string{"a:1"}, Expires: p.now.Add(time.Hour)}
			change(&o)
			if i, err := NewInvite(p.signer, o, p.now); err == nil {
				t.Fatalf("made %v", i)
			}
		})
	}
}

func TestProof(t *testing.T) {
	p := newParty(t)
	i := p.invite(t, nil)
	log := must(OpenIssueLog(&memoryLog{}))(t)
	if err := log.RecordInvite(i); err != nil {
		t.Fatal(err)
	}
	record, _ := log.Invite(i.ID)
	pub := must(NewIdentity())(t).Public()
	proof := i.Prove(pub, "laptop")
	network := p.trust.NetworkID()
	if !record.VerifyProof(network, pub, "laptop", proof) {
		t.Fatal("own proof refused")
	}
	other := pub
	for name, ok := range map[string]bool{
		"other name":      record.VerifyProof(network, pub, "laptop2", proof),
		"other network":   record.VerifyProof(NetworkID{1}, pub, "laptop", proof),
		"other probe key": func() bool { other = pub; other.Probe[0]++; return record.VerifyProof(network, other, "laptop", proof) }(),
		"other wireguard": func() bool {
			other = pub
			other.WireGuard[0]++
			return record.VerifyProof(network, other, "laptop", proof)
		}(),
		"other node":   func() bool { other = pub; other.Sign[0]++; return record.VerifyProof(network, other, "laptop", proof) }(),
		"short":        record.VerifyProof(network, pub, "laptop", proof[:63]),
		"empty":        record.VerifyProof(network, pub, "laptop", nil),
		"other invite": record.VerifyProof(network, pub, "laptop", p.invite(t, nil).Prove(pub, "laptop")),
	} {
		if ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestSecretsAreNotPrinted looks for keys in all that prints, logs and encodes.
func TestSecretsAreNotPrinted(t *testing.T) {
	p := newParty(t)
	i := p.invite(t, nil)
	seed := i.secret().seed
	for _, tt := range []struct {
		name    string
		secrets [][]byte
		values  []any
	}{
		{"invite", [][]byte{seed[:], i.key()}, []any{
			i, *i,
			[]*Invite{i},
			map[string]Invite{"a": *i},
			struct{ Invite *Invite }{i},
			struct{ I Invite }{*i},
			struct{ i Invite }{*i},
			struct{ i *Invite }{i},
			&struct{ i *Invite }{i},
		}},
		{"identity", [][]byte{p.admin.Sign, p.admin.Sign.Seed(), p.admin.WireGuard[:], p.admin.Probe[:]}, []any{
			p.admin, *p.admin, []*Identity{p.admin}, struct{ I Identity }{*p.admin},
		}},
		{"root", [][]byte{p.root.Key, p.root.Key.Seed()}, []any{p.root, *p.root, []Root{*p.root}}},
		{"signer", [][]byte{p.admin.Sign, p.admin.Sign.Seed()}, []any{p.signer, *p.signer, struct{ S *Signer }{p.signer}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out []string
			for _, v := range tt.values {
				for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
					out = append(out, fmt.Sprintf(verb, v))
				}
				b, err := json.Marshal(v)
				if err == nil {
					out = append(out, string(b))
				}
				var buf bytes.Buffer
				slog.New(slog.NewTextHandler(&buf, nil)).Info("x", "v", v)
				slog.New(slog.NewJSONHandler(&buf, nil)).Info("x", "v", v)
				out = append(out, buf.String(), fmt.Errorf("wrapped: %v", v).Error())
			}
			all := strings.Join(out, "\n")
			for _, secret := range tt.secrets {
				for form, text := range secretForms(secret) {
					if strings.Contains(strings.ToLower(all), strings.ToLower(text)) {
						t.Errorf("shown in form %s", form)
					}
				}
			}
			if tt.name == "invite" && strings.Contains(all, i.Text()[7:]) {
				t.Error("shown as text")
			}
		})
	}
}

// secretForms is how 8 bytes inside a secret would look.
func secretForms(secret []byte) map[string]string {
	part := secret[3:15]
	decimal := strings.Trim(fmt.Sprint(part), "[]")
	return map[string]string{
		"raw": string(part), "hex": hex.EncodeToString(part), "decimal": decimal,
		"decimals with commas": strings.ReplaceAll(decimal, " ", ","),
		"go syntax":            strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}"),
		"base64":               base64.StdEncoding.EncodeToString(part),
		"base64 of all":        base64.StdEncoding.EncodeToString(secret)[:20],
	}
}

func FuzzParseInvite(f *testing.F) {
	p := newParty(f)
	text := p.invite(f, nil).Text()
	f.Add(text)
	f.Add(p.invite(f, func(o *InviteOptions) { o.Uses, o.Roles = 3, AllRoles() }).Text())
	f.Add("meshd1-")
	f.Add(sealText([]byte{0x8b, 1}))
	f.Fuzz(func(t *testing.T, s string) {
		i, err := ParseInvite(s, p.now)
		if err == nil && must(ParseInvite(i.Text(), p.now))(t).Text() != i.Text() {
			t.Fatal("text form does not come back")
		}
	})
}

// FuzzInviteFields gets behind the checksum.
func FuzzInviteFields(f *testing.F) {
	p := newParty(f)
	w := must(parseInviteText(p.invite(f, nil).Text()))(f)
	f.Add(must(canon.Marshal(w))(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		text := sealText(b)
		i, err := ParseInvite(text, p.now)
		if err == nil && i.Text() != text {
			t.Fatal("two texts for one invite")
		}
	})
}
