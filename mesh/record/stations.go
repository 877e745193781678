package record

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"meshd/keys"
	"meshd/keys/canon"
)

// Bounds of the records of stations.
const (
	// MaxPages is how many pages a member may have. They hold the 1,024 stations of a bridge with three addresses each.
	MaxPages = 128
	// MaxStations bounds the stations of one page; usually MaxSize does.
	MaxStations = 64

	// MaxIPs bounds the addresses of one station.
	MaxIPs = 8

	// maxStationsBody keeps a page within 1,000 bytes: the envelope takes at most 117 (heads, owner, version, signature).
	maxStationsBody = 880

	maxVLAN = 4094 // IEEE 802.1Q
)

// Station is a host behind a member, in the manner of an EVPN route of type 2 (RFC 7432, 7.2).
type Station struct {
	VLAN    uint16 // 0: untagged
	MAC     [6]byte
	Seq     uint32  // counts its moves between members (RFC 7432, 15)
	Router  bool    // it advertises itself as a router
	Segment [8]byte // the LAN that it is on, where several members speak for that; zero: the member alone
	IPs     []netip.Addr
}

// Stations is one page of those that a member answers for. A change signs one page anew.
type Stations struct {
	Page     uint8
	Stations []Station // in the order of VLAN and MAC
}

type wireStations struct {
	_        struct{} `cbor:",toarray"`
	Page     uint8
	Stations []wireStation
}

type wireStation struct {
	_       struct{} `cbor:",toarray"`
	VLAN    uint16
	MAC     [6]byte
	Seq     uint32
	Flags   uint8    // bit 0: router
	Segment []byte   // 8, or none
	IPs     [][]byte // 4 or 16 each
}

const flagRouter = 1

func parseStations(b []byte) (*Stations, error) {
	var w wireStations
	if err := canon.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if w.Stations == nil {
		return nil, fmt.Errorf("%w: null list", ErrMalformed)
	}
	s := &Stations{Page: w.Page}
	for _, ws := range w.Stations {
		if ws.IPs == nil || ws.Segment == nil || ws.Flags&^flagRouter != 0 {
			return nil, fmt.Errorf("%w: null list, or unknown flags %#x", ErrMalformed, ws.Flags)
		}
		station := Station{VLAN: ws.VLAN, MAC: ws.MAC, Seq: ws.Seq, Router: ws.Flags&flagRouter != 0}
		switch len(ws.Segment) {
		case 0:
		case len(station.Segment):
			copy(station.Segment[:], ws.Segment)
		}
		if len(ws.Segment) > 0 && station.Segment == ([8]byte{}) { // of another length, too
			return nil, fmt.Errorf("%w: segment %x", ErrMalformed, ws.Segment)
		}
		for _, raw := range ws.IPs {
			ip, err := parseIP(raw)
			if err != nil {
				return nil, err
			}
			station.IPs = append(station.IPs, ip)
		}
		s.Stations = append(s.Stations, station)
	}
	return s, s.check()
}

func (s Stations) wire() wireStations {
	w := wireStations{Page: s.Page, Stations: make([]wireStation, 0, len(s.Stations))}
	for _, st := range s.Stations {
		ws := wireStation{VLAN: st.VLAN, MAC: st.MAC, Seq: st.Seq, Segment: []byte{}, IPs: make([][]byte, 0, len(st.IPs))}
		if st.Router {
			ws.Flags |= flagRouter
		}
		if st.Segment != ([8]byte{}) {
			ws.Segment = st.Segment[:]
		}
		for _, ip := range st.IPs {
			ws.IPs = append(ws.IPs, ip.AsSlice())
		}
		w.Stations = append(w.Stations, ws)
	}
	return w
}

// check holds a page to what any member may say, and to the one order.
func (s Stations) check() error {
	if s.Page >= MaxPages || len(s.Stations) > MaxStations {
		return fmt.Errorf("%w: page %d of %d stations", ErrInvalid, s.Page, len(s.Stations))
	}
	for _, st := range s.Stations {
		if err := st.Check(); err != nil {
			return err
		}
	}
	if !ascending(s.Stations, CompareStation) {
		return fmt.Errorf("%w: stations out of order or twice", ErrMalformed)
	}
	return nil
}

// Check says whether any member may have such a station.
func (s Station) Check() error {
	if s.VLAN > maxVLAN {
		return fmt.Errorf("%w: VLAN %d", ErrInvalid, s.VLAN)
	}
	if s.MAC == [6]byte{} || s.MAC[0]&1 != 0 {
		return fmt.Errorf("%w: station of MAC %x", ErrInvalid, s.MAC)
	}
	if len(s.IPs) > MaxIPs {
		return fmt.Errorf("%w: %d addresses at one MAC", ErrInvalid, len(s.IPs))
	}
	for _, ip := range s.IPs {
		if !ip.IsValid() || ip.Zone() != "" || ip.Is4In6() || ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() ||
			ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return fmt.Errorf("%w: station with address %v", ErrInvalid, ip)
		}
	}
	if !ascending(s.IPs, netip.Addr.Compare) {
		return fmt.Errorf("%w: addresses out of order or twice", ErrMalformed)
	}
	return nil
}

// CompareStation orders stations by VLAN and MAC.
func CompareStation(a, b Station) int {
	return cmp.Or(cmp.Compare(a.VLAN, b.VLAN), bytes.Compare(a.MAC[:], b.MAC[:]))
}

// Equal says whether both say the same.
func (s Station) Equal(o Station) bool {
	return s.VLAN == o.VLAN && s.MAC == o.MAC && s.Seq == o.Seq && s.Router == o.Router && s.Segment == o.Segment && slices.Equal(s.IPs, o.IPs)
}

// Equal says whether both say the same.
func (s Stations) Equal(o Stations) bool {
	return s.Page == o.Page && slices.EqualFunc(s.Stations, o.Stations, Station.Equal)
}

// PageRoom is how many bytes the stations of one page may have by Size.
const PageRoom = maxStationsBody - 8

// Size is how many bytes a station takes on a page.
func (s Station) Size() int {
	b, err := canon.Marshal(Stations{Stations: []Station{s}}.wire().Stations[0])
	if err != nil {
		return MaxSize
	}
	return len(b)
}

// SignStations makes one page of id's stations, which are in order.
func SignStations(id *keys.Identity, network keys.NetworkID, v Version, body Stations) ([]byte, error) {
	if err := body.check(); err != nil {
		return nil, fmt.Errorf("sign stations record: %w", err)
	}
	b, err := canon.Marshal(body.wire())
	if err != nil {
		return nil, fmt.Errorf("sign stations record: %w", err)
	}
	return sign(id, network, TypeStations, v, b)
}
