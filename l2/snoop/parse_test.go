package snoop

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

var (
	video  = netip.MustParseAddr("239.1.2.3")
	video6 = netip.MustParseAddr("ff15::4d:1")
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// igmp wraps a body as a host would send it.
func igmp(src, dst netip.Addr, body []byte) []byte {
	body = bytes.Clone(body)
	if len(body) >= 4 {
		body[2], body[3] = 0, 0
	}
	p := appendIPv4(nil, dst.As4(), append(body, make([]byte, max(0, 4-len(body)))...))
	a := src.As4()
	copy(p[12:], a[:])
	return p
}

// mld likewise.
func mld(src, dst netip.Addr, body []byte) []byte {
	body = bytes.Clone(body)
	body[2], body[3] = 0, 0
	return appendIPv6(nil, src.As16(), dst.As16(), body)
}

var (
	host   = netip.MustParseAddr("10.0.0.5")
	host6  = netip.MustParseAddr("fe80::5")
	router = netip.MustParseAddr("10.0.0.1")
)

func TestParse(t *testing.T) {
	r := func(list ...Record) []Record { return list }
	tests := map[string]struct {
		packet  []byte
		verdict Verdict
		want    Message
	}{
		"IGMPv1 report": {igmp(host, video, unhex(t, "12000000ef010203")), Control, Message{Kind: Report, Version: 1, Records: r(Record{video, Join})}},
		"IGMPv2 report": {igmp(host, video, unhex(t, "16000000ef010203")), Control, Message{Kind: Report, Version: 2, Records: r(Record{video, Join})}},
		"IGMPv2 leave":  {igmp(host, allRouters, unhex(t, "17000000ef010203")), Control, Message{Kind: Report, Version: 2, Records: r(Record{video, Leave})}},
		"IGMPv3 exclude nothing": {
			igmp(host, allReports, unhex(t, "2200000000000001"+"04000000ef010203")), Control,
			Message{Kind: Report, Version: 3, Records: r(Record{video, Join})},
		},
		"IGMPv3 include nothing": {
			igmp(host, allReports, unhex(t, "2200000000000001"+"03000000ef010203")), Control,
			Message{Kind: Report, Version: 3, Records: r(Record{video, Leave})},
		},
		"IGMPv3 include a source, with auxiliary data": {
			igmp(host, allReports, unhex(t, "2200000000000002"+"03010001ef010203c0000201aaaaaaaa"+"05000001ef010204c0000201")), Control,
			Message{Kind: Report, Version: 3, Records: r(Record{video, Join}, Record{video.Next(), Join})},
		},
		"IGMPv3 exclude sources": {
			igmp(host, allReports, unhex(t, "2200000000000001"+"02000001ef010203c0000201")), Control,
			Message{Kind: Report, Version: 3, Records: r(Record{video, Join})},
		},
		"IGMPv3 block sources": {
			igmp(host, allReports, unhex(t, "2200000000000001"+"06000001ef010203c0000201")), Control,
			Message{Kind: Report, Version: 3, Records: r(Record{video, Leave})},
		},
		"IGMPv3 allow and include no source": {
			igmp(host, allReports, unhex(t, "2200000000000002"+"05000000ef010203"+"01000000ef010203")), Control,
			Message{Kind: Report, Version: 3, Records: []Record{}},
		},
		"IGMPv1 query": {igmp(router, allSystems, unhex(t, "1100000000000000")), Control, Message{Kind: Query, Version: 1, Response: 10 * time.Second}},
		"IGMPv2 query": {igmp(router, allSystems, unhex(t, "1164000000000000")), Control, Message{Kind: Query, Version: 2, Response: 10 * time.Second}},
		"IGMPv3 query for a group, with exponents": {
			igmp(router, video, unhex(t, "11b20000ef0102030a8f0001c0000201")), Control,
			Message{Kind: Query, Version: 3, Group: video, Response: 115200 * time.Millisecond, Suppress: true, Interval: 248 * time.Second},
		},
		"query of 9 bytes":       {igmp(router, allSystems, unhex(t, "110000000000000000")), Broken, Message{}},
		"query for no multicast": {igmp(router, allSystems, unhex(t, "110000000a000001")), Broken, Message{}},
		"report of no multicast": {igmp(host, video, unhex(t, "160000000a000001")), Broken, Message{}},
		"record cut off":         {igmp(host, allReports, unhex(t, "2200000000000001"+"04000001ef010203")), Broken, Message{}},
		"routed":                 {with(igmp(host, video, unhex(t, "16000000ef010203")), 8, 2), Broken, Message{}},
		"fragment":               {with(igmp(host, video, unhex(t, "16000000ef010203")), 6, 0x20), Broken, Message{}},
		"wrong checksum":         {with(igmp(host, video, unhex(t, "16000000ef010203")), 31, 9), Broken, Message{}},
		"trace":                  {igmp(host, video, unhex(t, "1f000000ef010203")), Other, Message{}},
		"discovery":              {igmp(router, allSnoopers, unhex(t, "30140000007d0002")), Control, Message{Kind: RouterHere, Interval: time.Minute}},
		"solicitation":           {igmp(host, allRouters, unhex(t, "31000000")), Control, Message{Kind: RouterAsked}},
		"termination":            {igmp(router, allSnoopers, unhex(t, "32000000")), Control, Message{Kind: RouterGone}},
		"PIM hello":              {pim(t, "20000000"+"0001000200ff"), Hello, Message{Kind: RouterHere, Interval: 255 * time.Second}},
		"PIM hello, bare":        {pim(t, "20000000"), Hello, Message{Kind: RouterHere, Interval: helloHolds}},
		"PIM goodbye":            {pim(t, "20000000"+"000100020000"), Hello, Message{Kind: RouterGone}},
		"PIM join":               {pim(t, "23000000"), Other, Message{}},

		"MLDv1 report": {mld(host6, video6, mld1(131)), Control, Message{Kind: Report, Version: 1, Records: r(Record{video6, Join})}},
		"MLDv1 done":   {mld(host6, allRouters6, mld1(132)), Control, Message{Kind: Report, Version: 1, Records: r(Record{video6, Leave})}},
		"MLDv1 query":  {mld(host6, allSystems6, append(unhex(t, "8200000027100000"), make([]byte, 16)...)), Control, Message{Kind: Query, Version: 1, Response: 10 * time.Second}},
		"MLDv2 report": {
			mld(netip.IPv6Unspecified(), allReports6, slicesConcat(unhex(t, "8f00000000000001"+"04000000"), video6.AsSlice())), Control,
			Message{Kind: Report, Version: 2, Records: r(Record{video6, Join})},
		},
		"MLDv2 query": {
			mld(host6, allSystems6, slicesConcat(unhex(t, "8200000003e80000"), make([]byte, 16), unhex(t, "023c0000"))), Control,
			Message{Kind: Query, Version: 2, Response: time.Second, Interval: time.Minute},
		},
		"MLD query of a global address": {
			mld(netip.MustParseAddr("2001:db8::1"), allSystems6, slicesConcat(unhex(t, "8200000003e80000"), make([]byte, 16), unhex(t, "023c0000"))), Broken, Message{},
		},
		"MLD routed":     {with(mld(host6, video6, mld1(131)), 7, 2), Broken, Message{}},
		"MLD cut off":    {mld(host6, video6, mld1(131)[:20]), Broken, Message{}},
		"MLD discovery":  {mld(host6, allSnoopers6, unhex(t, "97140000007d0002")), Control, Message{Kind: RouterHere, Interval: time.Minute}},
		"other ICMPv6":   {mld(host6, allSystems6, unhex(t, "8700000000000000")), Other, Message{}},
		"short":          {[]byte{0x45}, Other, Message{}},
		"size of header": {with(igmp(host, video, unhex(t, "16000000ef010203")), 3, 200), Broken, Message{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var m Message
			etherType := uint16(etherTypeIPv4)
			if test.packet[0]>>4 == 6 {
				etherType = etherTypeIPv6
			}
			if got := Parse(&m, etherType, test.packet); got != test.verdict {
				t.Fatalf("verdict %v, want %v: %+v", got, test.verdict, m)
			}
			if test.verdict != Control && test.verdict != Hello {
				return
			}
			m.Source = netip.Addr{}
			if m.Records == nil {
				test.want.Records = nil
			}
			if !reflect.DeepEqual(m, test.want) {
				t.Errorf("%+v, want %+v", m, test.want)
			}
		})
	}
}

func slicesConcat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func with(p []byte, at int, b byte) []byte {
	p[at] = b
	return p
}

func mld1(kind byte) []byte { return slicesConcat([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, video6.AsSlice()) }

func pim(t testing.TB, body string) []byte {
	p := igmp(router, netip.MustParseAddr("224.0.0.13"), unhex(t, body))
	p[9] = protoPIM
	return p
}

func TestFlooded(t *testing.T) {
	for addr, want := range map[string]bool{
		"224.0.0.1": true, "224.0.0.251": true, "224.0.0.255": true, "224.0.1.1": false, "225.0.0.1": false, "239.255.255.250": true,
		"239.255.255.253": false, "224.128.0.1": false,
		"ff02::1": true, "ff02::2": true, "ff02::16": true, "ff02::fb": true, "ff02::c": true, "ff02::1:2": true, "ff02::1:3": true,
		"ff02::1:ff00:1234": true, "ff02::2:ff00:1234": true, "ff02::4d:1": false, "ff05::c": true, "ff08::fb": true, "ff05::1:3": false,
		"ff15::4d:1": false, "ff0e::101": false, "ff12::1": true, "ff32::8000:1": false,
	} {
		if got := Flooded(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
}

// What a Table sends, byte for byte.
func TestFrames(t *testing.T) {
	table := NewTable(ProxyMAC([6]byte{2, 0, 0, 0, 0, 1}), 0)
	for name, test := range map[string]struct {
		got  []byte
		want string
	}{
		"IGMPv3 general query": {
			table.query(0, false, netip.Addr{}, queryResponse),
			"01005e000001" + "060000000001" + "0800" + "46c0002400000000" + "0102" + "4413" + "00000000" + "e0000001" + "94040000" + "1128ec9b00000000" + "023c0000" + "00000000000000000000",
		},
		"MLDv2 query for a group in VLAN 5": {
			table.query(5, true, video6, lastEvery),
			"3333004d0001" + "060000000001" + "81000005" + "86dd" + "6000000000240001" + "fe80000000000000ffff060000000001" + "ff1500000000000000000000004d0001" +
				"3a00050200000100" + "8200743b03e80000" + "ff1500000000000000000000004d0001" + "023c0000",
		},
		"IGMP advertisement": {
			table.advertisement(0, false),
			"01005e00006a" + "060000000001" + "0800" + "46c0002000000000" + "0102" + "43ae" + "00000000" + "e000006a" + "94040000" + "303ccf85003c0002" + "0000000000000000000000000000",
		},
		"IGMPv2 report": {
			table.oldReport(0, video, 2, Join),
			"01005e010203" + "060000000001" + "0800" + "46c0002000000000" + "0102" + "3314" + "00000000" + "ef010203" + "94040000" + "1600f8fa" + "ef010203" + "0000000000000000000000000000",
		},
	} {
		if got := hex.EncodeToString(test.got); got != test.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, test.want)
		}
	}
}

func FuzzParseIPv4(f *testing.F) {
	f.Add(igmp(host, video, unhex(f, "16000000ef010203")))
	f.Add(igmp(host, allReports, unhex(f, "2200000000000002"+"03010001ef010203c0000201aaaaaaaa"+"05000001ef010204c0000201")))
	f.Add(igmp(router, video, unhex(f, "11b20000ef0102030a8f0001c0000201")))
	f.Add(pim(f, "20000000"+"0001000200ff"))
	f.Fuzz(func(t *testing.T, p []byte) {
		var m Message
		if Parse(&m, etherTypeIPv4, p) != Control || m.Kind > Report {
			return
		}
		// What passes here, gopacket reads in the same way.
		header := int(p[0]&15) * 4
		body := p[header:be16(p[2:])]
		switch body[0] {
		case igmpReportV3:
			var want layers.IGMP
			if err := want.DecodeFromBytes(body, gopacket.NilDecodeFeedback); err != nil {
				t.Fatalf("%x: %v", p, err)
			}
			sameRecords(t, &m, len(want.GroupRecords), func(i int) (byte, int, []byte) {
				r := want.GroupRecords[i]
				return byte(r.Type), int(r.NumberOfSources), r.MulticastAddress
			})
		case igmpReportV1, igmpReportV2, igmpLeave:
			var want layers.IGMPv1or2
			if err := want.DecodeFromBytes(body, gopacket.NilDecodeFeedback); err != nil || !bytes.Equal(want.GroupAddress, m.Records[0].Group.AsSlice()) {
				t.Fatalf("%x: %v, %v", p, err, want)
			}
		}
	})
}

// sameRecords compares what a report says of each group with what another has read.
func sameRecords(t *testing.T, m *Message, n int, of func(i int) (kind byte, sources int, group []byte)) {
	t.Helper()
	next := 0
	for i := range n {
		kind, sources, group := of(i)
		if kind < 1 || kind > 6 || (kind == 1 || kind == 5) && sources == 0 {
			continue
		}
		want := Join
		if kind == 6 || kind == 3 && sources == 0 {
			want = Leave
		}
		if next >= len(m.Records) || m.Records[next].Change != want || !bytes.Equal(m.Records[next].Group.AsSlice(), group) {
			t.Fatalf("record %d is %v of %x, read were %v", i, want, group, m.Records)
		}
		next++
	}
	if next != len(m.Records) {
		t.Fatalf("%d records, read were %v", next, m.Records)
	}
}

func FuzzParseIPv6(f *testing.F) {
	f.Add(mld(host6, video6, mld1(131)))
	f.Add(mld(host6, allReports6, slicesConcat(unhex(f, "8f00000000000001"+"04000001"), video6.AsSlice(), host6.AsSlice())))
	f.Add(mld(host6, allSystems6, slicesConcat(unhex(f, "8200000003e80000"), make([]byte, 16), unhex(f, "023c0000"))))
	f.Fuzz(func(t *testing.T, p []byte) {
		var m Message
		if Parse(&m, etherTypeIPv6, p) != Control || m.Kind != Report || m.Version != 2 {
			return
		}
		body := p[40 : 40+int(be16(p[4:]))]
		if p[6] == hopByHop {
			body = body[8+8*int(body[1]):]
		}
		var want layers.MLDv2MulticastListenerReportMessage
		if err := want.DecodeFromBytes(body[4:], gopacket.NilDecodeFeedback); err != nil {
			t.Fatalf("%x: %v", p, err)
		}
		sameRecords(t, &m, len(want.MulticastAddressRecords), func(i int) (byte, int, []byte) {
			r := want.MulticastAddressRecords[i]
			return byte(r.RecordType), int(r.N), r.MulticastAddress
		})
	})
}
