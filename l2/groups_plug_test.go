package l2_test

import (
	"slices"
	"testing"
	"time"

	"meshd/l2/snoop"
)

// TestGroupsOfPlugs has what virtual machines send to a group stay among them, and what one listens to be known.
func TestGroupsOfPlugs(t *testing.T) {
	s := newPlugSite(t, true)
	s.member.SetGroups(&snoop.Set{VLANs: []uint16{0}})
	film := []byte{
		0x01, 0x00, 0x5e, 1, 2, 3, 2, 0, 0, 0, 1, 1, 8, 0,
		0x45, 0, 0, 28, 0, 0, 0, 0, 4, 17, 0, 0, 10, 0, 0, 1, 239, 1, 2, 3, 1, 2, 3, 4, 0, 8, 0, 0,
		60: 0,
	}
	for range 2000 { // more than of broadcasts: it loads nobody else
		s.send("vm1", film, "host", "vm2")
	}
	report := append(slices.Clone(film[:14]), 0x46, 0xc0, 0, 32, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 5, 239, 1, 2, 3, 0x94, 4, 0, 0, 0x16, 0, 0xf8, 0xfa, 239, 1, 2, 3)
	s.devices["vm1"].Inject(report)
	for end := time.Now().Add(patience); len(s.sw.Groups().Groups) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the report was not heard")
		}
	}
	heard := func(dev string) bool { // it goes where queriers may be, besides our own questions
		for end := time.After(patience); ; {
			select {
			case f := <-s.devices[dev].Asked():
				if slices.Equal(f, report) {
					return true
				}
			case <-end:
				return false
			}
		}
	}
	if !heard("host") || !heard("vm2") {
		t.Error("the report did not go to the rest of its side")
	}
	select {
	case f := <-s.places["member"]:
		t.Errorf("the member got %x", f)
	default:
	}
	copy(film[6:], memberMAC[:])
	s.send("member", film, "host", "vm1", "vm2")
	s.send("member", append(slices.Clone(film[:6]), append(memberMAC[:], report[12:]...)...)) // dropped
}
