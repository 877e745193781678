package l2

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

var _ GroupLister = (*TAP)(nil)

// HostGroups implements GroupLister: what programs of this host have joined on the TAP, or
// on the bridge that it is in.
func (t *TAP) HostGroups() ([]netip.Addr, error) {
	link, err := t.nl.LinkByIndex(t.index)
	if err == nil && link.Attrs().MasterIndex != 0 {
		link, err = t.nl.LinkByIndex(link.Attrs().MasterIndex)
	}
	if err != nil {
		return nil, t.failed("find tap", err)
	}
	var groups []netip.Addr
	for _, table := range []struct {
		path string
		read func(table []byte, name string) []netip.Addr
	}{{"/proc/thread-self/net/igmp", groupsOfIGMP}, {"/proc/thread-self/net/igmp6", groupsOfMLD}} {
		b, err := os.ReadFile(table.path)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel may lack a family
			return nil, fmt.Errorf("list groups: %w", err)
		}
		groups = append(groups, table.read(b, link.Attrs().Name)...)
	}
	return groups, nil
}

// groupsOfIGMP reads the kernel's table of IPv4, in which groups stand in the order of the machine's bytes:
//
//	Idx	Device    : Count Querier	Group    Users Timer	Reporter
//	3	mesh0     :     2      V3
//					030201EF     1 0:00000000		0
func groupsOfIGMP(table []byte, name string) (groups []netip.Addr) {
	here := false
	for line := range strings.Lines(string(bytes.TrimSpace(table))) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case !strings.HasPrefix(line, "\t\t"):
			here = strings.TrimSuffix(f[1], ":") == name
		case here:
			if b, err := hex.DecodeString(f[0]); err == nil && len(b) == 4 {
				var a [4]byte
				binary.NativeEndian.PutUint32(a[:], binary.BigEndian.Uint32(b))
				groups = append(groups, netip.AddrFrom4(a))
			}
		}
	}
	return groups
}

// groupsOfMLD reads that of IPv6:
//
//	3    mesh0           ff1500000000000000000000004d0001     1 0000000C 0
func groupsOfMLD(table []byte, name string) (groups []netip.Addr) {
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[1] != name {
			continue
		}
		if b, err := hex.DecodeString(f[2]); err == nil && len(b) == 16 {
			groups = append(groups, netip.AddrFrom16([16]byte(b)))
		}
	}
	return groups
}
