package stations

import (
	"slices"

	"meshd/l2"
	"meshd/mesh/record"
)

// Of returns what a record can say of bindings, in its order.
func Of(list []l2.Binding) []record.Station {
	out := make([]record.Station, 0, len(list))
	for _, b := range list {
		s := record.Station{VLAN: b.VLAN, MAC: b.MAC, Seq: b.Seq, Router: b.Router, Segment: b.Segment}
		for _, ip := range b.IPs {
			if (record.Station{MAC: b.MAC, IPs: append(slices.Clip(s.IPs), ip)}).Check() == nil {
				s.IPs = append(s.IPs, ip)
			}
		}
		if s.Check() == nil {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, record.CompareStation)
	return slices.CompactFunc(out, func(a, b record.Station) bool { return record.CompareStation(a, b) == 0 })
}

// Bindings is the inverse of Of.
func Bindings(list []record.Station) []l2.Binding {
	out := make([]l2.Binding, 0, len(list))
	for _, s := range list {
		out = append(out, l2.Binding{VLAN: s.VLAN, MAC: s.MAC, Seq: s.Seq, Router: s.Router, Segment: s.Segment, IPs: s.IPs})
	}
	return out
}

// fewIPs is how many addresses of a station are told where there is no room for all.
const fewIPs = 2

// key is what a station is found by.
type key struct {
	vlan uint16
	mac  [6]byte
}

// Divide puts stations on at most limit pages, so that few pages change: what stands on a
// page stays there. It returns all pages that were in use before or are now; those that
// are not needed any more are empty. What finds no room is left out.
func Divide(before []record.Stations, list []record.Station, limit int) []record.Stations {
	if pages, all := divide(before, list, limit); all {
		return pages
	}
	short := make([]record.Station, len(list))
	for i, s := range list {
		s.IPs = s.IPs[:min(len(s.IPs), fewIPs)]
		short[i] = s
	}
	pages, _ := divide(before, short, limit)
	return pages
}

func divide(before []record.Stations, list []record.Station, limit int) (pages []record.Stations, all bool) {
	pages = make([]record.Stations, limit)
	used := make([]bool, limit)
	room := make([]int, limit)
	home := map[key]int{}
	for i := range pages {
		pages[i].Page, room[i] = uint8(i), record.PageRoom
	}
	for _, p := range before {
		if int(p.Page) >= limit {
			continue
		}
		used[p.Page] = true
		for _, s := range p.Stations {
			home[key{s.VLAN, s.MAC}] = int(p.Page)
		}
	}
	var homeless []record.Station
	put := func(i int, s record.Station) bool {
		if size := s.Size(); size > room[i] || len(pages[i].Stations) >= record.MaxStations {
			return false
		}
		room[i] -= s.Size()
		pages[i].Stations = append(pages[i].Stations, s)
		used[i] = true
		return true
	}
	for _, s := range list {
		if i, known := home[key{s.VLAN, s.MAC}]; !known || !put(i, s) {
			homeless = append(homeless, s)
		}
	}
	all = true
	first := 0 // pages before it are full
	for _, s := range homeless {
		i := first
		for i < limit && !put(i, s) {
			if i == first && room[i] < smallest {
				first++
			}
			i++
		}
		all = all && i < limit
	}
	out := pages[:0]
	for i, p := range pages {
		if used[i] {
			slices.SortFunc(p.Stations, record.CompareStation)
			out = append(out, p)
		}
	}
	return out, all
}

// smallest is the size of a station without addresses: a page with less room is full.
const smallest = 13
