package l2

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// raw reads hex with spaces.
func raw(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

const (
	toBroadcast = "ffffffffffff 020000000001 "
	toUnicast   = "020000000002 020000000001 "
)

func TestParseHeader(t *testing.T) {
	src, dst := MAC{2, 0, 0, 0, 0, 1}, MAC{2, 0, 0, 0, 0, 2}
	all := MAC{255, 255, 255, 255, 255, 255}
	tests := map[string]struct {
		frame string
		want  Header
		ok    bool
	}{
		"untagged":            {toUnicast + "0800 45", Header{dst, src, 0, 0x0800, 14}, true},
		"header only":         {toUnicast + "0800", Header{dst, src, 0, 0x0800, 14}, true},
		"broadcast":           {toBroadcast + "0806", Header{all, src, 0, 0x0806, 14}, true},
		"802.3 length":        {toUnicast + "0003 424203", Header{dst, src, 0, 3, 14}, true},
		"unknown type":        {toUnicast + "88b5 01", Header{dst, src, 0, 0x88b5, 14}, true},
		"tagged":              {toUnicast + "8100 6064 86dd 60", Header{dst, src, 100, 0x86dd, 18}, true},
		"priority tag":        {toUnicast + "8100 e000 0800", Header{dst, src, 0, 0x0800, 18}, true},
		"highest VID":         {toUnicast + "8100 ffff 0800", Header{dst, src, 4095, 0x0800, 18}, true},
		"outer tag decides":   {toUnicast + "88a8 0007 8100 0009 0800 45", Header{dst, src, 7, 0x0800, 22}, true},
		"three tags":          {toUnicast + "88a8 0007 8100 0009 8100 0001 0800", Header{dst, src, 7, 0x8100, 22}, true},
		"tag behind priority": {toUnicast + "8100 e000 8100 0009 0800 45", Header{dst, src, 9, 0x0800, 22}, true},
		"two priority tags":   {toUnicast + "8100 e000 8100 2000 0800 45", Header{dst, src, 0, 0x0800, 22}, true},
		"tag behind two":      {toUnicast + "8100 e000 8100 2000 8100 0009 0800", Header{}, false},
		"empty":               {"", Header{}, false},
		"runt":                {toUnicast + "08", Header{}, false},
		"tag without content": {toUnicast + "8100", Header{}, false},
		"half a tag":          {toUnicast + "8100 000108", Header{}, false},
		"half a second tag":   {toUnicast + "88a8 0007 8100 0009", Header{}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := ParseHeader(raw(test.frame))
			if got != test.want || ok != test.ok {
				t.Errorf("got %+v, %v, want %+v, %v", got, ok, test.want, test.ok)
			}
		})
	}
}

// gopacket is the oracle.
func FuzzParseHeader(f *testing.F) {
	for _, seed := range []string{
		toUnicast + "0800 45", toUnicast + "8100 6064 86dd 60", toUnicast + "88a8 0007 8100 0009 0800 45",
		toUnicast + "8100", toUnicast + "8100 0001 8100", toUnicast,
	} {
		f.Add(raw(seed))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := bytes.Clone(frame)
		h, ok := ParseHeader(frame)
		if !bytes.Equal(frame, before) {
			t.Fatal("the frame was changed")
		}
		if !ok {
			return
		}
		if h.Payload < 14 || h.Payload > len(frame) {
			t.Fatalf("%+v of %d bytes", h, len(frame))
		}
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
		eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
		if MAC(eth.DstMAC) != h.Dst || MAC(eth.SrcMAC) != h.Src {
			t.Fatalf("addresses %v %v, gopacket says %v %v", h.Dst, h.Src, eth.DstMAC, eth.SrcMAC)
		}
		var vlan uint16
		for _, layer := range p.Layers()[1:] {
			tag, ok := layer.(*layers.Dot1Q)
			if !ok { // what else gopacket finds behind LLC is no tag of this frame
				break
			}
			if vlan == 0 {
				vlan = tag.VLANIdentifier
			}
		}
		if vlan != h.VLAN {
			t.Fatalf("VLAN %d, gopacket says %d", h.VLAN, vlan)
		}
	})
}

func TestMACString(t *testing.T) {
	if got := (MAC{2, 0, 0x5e, 0x10, 0, 0xff}).String(); got != "02:00:5e:10:00:ff" {
		t.Error(got)
	}
}
