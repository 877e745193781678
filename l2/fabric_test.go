package l2

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// fabric is several switches, each with a port to every other, whose time stands still
// but for step. Records reach everybody when share says so.
type fabric struct {
	t     testing.TB
	time  time.Time
	sites []*site
	lost  func(from, to *site) bool // notices and frames; nil: none
	dead  *site                     // it gets nothing, and nobody can tell
}

// site is a member of a fabric.
type site struct {
	fabric  *fabric
	name    string
	allow   Allow
	sw      *Switch
	host    *tape
	pump    *pump
	remotes map[*site]*RemotePort
	sent    int // frames to other sites, of any kind
	notices int
	stamp   uint64 // of the last notice that hears made
}

// link is a site's port to another.
type link struct{ from, to *site }

func (l link) Send(frame []byte, _ int) bool {
	l.from.sent++
	if !l.from.fabric.drops(l) {
		l.to.remotes[l.from].Receive(frame, 0)
	}
	return true
}

func (l link) MaxFrame() int { return 0 }

func (l link) Flush() {
	if !l.from.fabric.drops(l) {
		l.to.remotes[l.from].Flush()
	}
}

func (l link) Announce(n Notice) bool {
	if l.to == l.from.fabric.dead {
		return true
	}
	if l.from.fabric.drops(l) {
		return false
	}
	l.from.notices++
	l.to.sw.Hear(l.from.name, n)
	return true
}

func (f *fabric) drops(l link) bool {
	return l.from == f.dead || l.to == f.dead || f.lost != nil && f.lost(l.from, l.to)
}

func memberMAC(i int) MAC { return MAC{2, 0xee, 0, 0, byte(i >> 8), byte(i)} }

func newFabric(t testing.TB, allows ...Allow) *fabric {
	f := &fabric{t: t, time: time.Unix(1e9, 0)}
	for i, allow := range allows {
		allow.MAC = memberMAC(i)
		allow.Addresses = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("fd00::%x", i+1))}
		s := &site{fabric: f, name: fmt.Sprint("m", i), allow: allow, host: &tape{}, remotes: map[*site]*RemotePort{}}
		s.sw = NewSwitch(Config{Device: s.host, MAC: allow.MAC, Epoch: 1, Now: func() time.Time { return f.time }})
		s.sw.SetOwn(allow)
		s.pump = &pump{sw: s.sw, from: &s.sw.local}
		f.sites = append(f.sites, s)
	}
	for _, a := range f.sites {
		for _, b := range f.sites {
			if a != b {
				a.remotes[b] = a.sw.Connect(b.name, link{a, b}, b.allow)
			}
		}
	}
	return f
}

// step lets time pass in steps of 50 ms, with what is due in each.
func (f *fabric) step(d time.Duration) {
	for end := f.time.Add(d); f.time.Before(end); {
		f.time = f.time.Add(50 * time.Millisecond)
		for _, s := range f.sites {
			s.sw.Advance()
		}
	}
}

// share gives everybody the records of everybody.
func (f *fabric) share() {
	for _, s := range f.sites {
		for _, other := range f.sites {
			if other != s {
				other.sw.SetBindings(s.name, s.sw.Local())
			}
		}
	}
}

// says puts a frame of a local host on the segment.
func (s *site) says(frame []byte) { s.pump.batch([]Frame{{Data: bytes.Clone(frame)}}) }

// took returns and forgets the frames that the site's host has got.
func (s *site) took() [][]byte {
	frames := s.host.frames
	s.host.frames = nil
	return frames
}

// got says whether the site's host has got a frame.
func (s *site) got(frame []byte) bool {
	return slices.ContainsFunc(s.took(), func(b []byte) bool { return bytes.Equal(b, frame) })
}

// clear forgets what everybody has got and sent.
func (f *fabric) clear() {
	for _, s := range f.sites {
		s.host.frames, s.sent, s.notices = nil, 0, 0
	}
}

func (f *fabric) sent() (sum int) {
	for _, s := range f.sites {
		sum += s.sent
	}
	return sum
}

// at is the name of who has a station in the eyes of a site: "" itself, "?" nobody.
func (s *site) at(mac MAC) string {
	for _, h := range s.sw.Hosts() {
		if h.MAC == mac {
			return h.Port
		}
	}
	return "?"
}

// living has the hosts of a site answer what the switch asks them: by MAC, with their
// addresses. It returns after n rounds of 50 ms.
func (f *fabric) living(d time.Duration, hosts map[*site]map[MAC]netip.Addr) {
	for end := f.time.Add(d); f.time.Before(end); {
		f.step(50 * time.Millisecond)
		for s, has := range hosts {
			for _, frame := range s.took() {
				for mac, ip := range has {
					if q, ok := readQuestion(frame); ok && MAC(frame[:6]) == mac && q.target == ip {
						f.time = f.time.Add(time.Millisecond)
						h, _ := ParseHeader(frame)
						s.says(answerTo(h, frame, q, mac, false))
					}
				}
			}
		}
	}
}

// readQuestion is enquires for frames to one station, whoever asks.
func readQuestion(frame []byte) (enquiry, bool) {
	h, ok := ParseHeader(frame)
	if !ok {
		return enquiry{}, false
	}
	return enquires(h, frame)
}

// request is an ARP request of mac at ip for a target.
func request(mac MAC, ip, target string) []byte {
	out := append(append([]byte(nil), broadcast[:]...), mac[:]...)
	out = append(out, 8, 6)
	return pad(appendARP(out, arpRequest, mac, netip.MustParseAddr(ip), MAC{}, netip.MustParseAddr(target)))
}

// solicit is a neighbour solicitation of mac at ip for a target.
func solicit(mac MAC, ip, target string) []byte {
	to := netip.MustParseAddr(target)
	b := to.As16()
	group := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
	out := append([]byte{0x33, 0x33, 0xff, b[13], b[14], b[15]}, mac[:]...)
	out = append(out, 0x86, 0xdd)
	from := netip.MustParseAddr(ip)
	out = appendND(out, ndNeighborSolicitation, 0, from, group, to, ndOptSource, mac)
	if from.IsUnspecified() { // without the option (RFC 4861, 4.3)
		out = out[:len(out)-8]
		out[14+5] = 24
		out[14+42], out[14+43] = 0, 0
		sum := ^sumND(out[14+8:])
		out[14+42], out[14+43] = byte(sum>>8), byte(sum)
	}
	return pad(out)
}
