package mesh

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"meshd/nat-traversal"
)

func TestElsewhereMessages(t *testing.T) {
	id := traversal.TxID{1, 2, 3}
	for _, m := range []elsewhereMessage{
		{step: elsewhereAsk, txid: id, to: netip.MustParseAddrPort("198.18.0.1:51830")},
		{step: elsewhereSend, txid: id, to: netip.MustParseAddrPort("[2001:db8::1]:1")},
		{step: elsewhereSent, txid: id, flags: fromOtherPort},
	} {
		if got, err := parseElsewhere(m.append(nil)); err != nil || got != m {
			t.Errorf("%+v becomes %+v, %v", m, got, err)
		}
	}
	want := append(append([]byte{1}, id[:]...), 4, 0xca, 0x76, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 18, 0, 1)
	got := elsewhereMessage{step: elsewhereAsk, txid: id, to: netip.MustParseAddrPort("198.18.0.1:51830")}.append(nil)
	if !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func FuzzParseElsewhere(f *testing.F) {
	f.Add(elsewhereMessage{step: elsewhereAsk, to: netip.MustParseAddrPort("198.18.0.1:51830")}.append(nil))
	f.Add(elsewhereMessage{step: elsewhereSent, flags: 3}.append(nil))
	f.Add(elsewhereMessage{step: elsewhereSend, to: netip.MustParseAddrPort("[::1]:1")}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseElsewhere(b)
		if err != nil {
			return
		}
		if again := m.append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x parses as %+v, which is %x", b, m, again)
		}
		if m.step != elsewhereSent && !traversal.UsableEndpoint(m.to) {
			t.Fatalf("%v is accepted", m.to)
		}
	})
}

// TestElsewhereBounds: whatever members ask, an address gets few datagrams a minute, and all together few.
func TestElsewhereBounds(t *testing.T) {
	var c counts
	now, sent := time.Unix(1e9, 0), 0
	victim := netip.MustParseAddr("198.18.0.1")
	for range 1000 {
		if c.spend(now, victim, elsewhereToHost) {
			sent++
		}
	}
	if sent != elsewhereToHost {
		t.Errorf("%d to one address", sent)
	}
	for i := range 1000 {
		if c.spend(now, i, 1) {
			sent++
		}
	}
	if sent != elsewhereInAll || len(c.by) > elsewhereInAll+1 {
		t.Errorf("%d in all, %d remembered", sent, len(c.by))
	}
	if !c.spend(now.Add(elsewhereEvery), victim, 1) {
		t.Error("nothing a minute later")
	}
}
