package l2

import (
	"net/netip"
	"slices"
	"testing"
)

func TestKernelsTablesOfGroups(t *testing.T) {
	const igmp = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n" +
		"1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n" +
		"3\tmesh0     :     2      V2\n\t\t\t\t030201EF     1 0:00000000\t\t0\n\t\t\t\t010000E0     1 0:00000000\t\t0\n" +
		"4\taverylongname12:     1      V3\n\t\t\t\t040201EF     1 0:00000000\t\t0\n"
	const mld = "1    lo              ff020000000000000000000000000001     1 0000000C 0\n" +
		"3    mesh0           ff1500000000000000000000004d0001     1 00000004 0\n" +
		"3    mesh0           ff02000000000000000000000000000     1 00000004 0\n" +
		"4    averylongname12 ff1500000000000000000000004d0002     1 00000004 0\n"
	for name, want := range map[string][]string{
		"mesh0": {"239.1.2.3", "224.0.0.1", "ff15::4d:1"}, "averylongname12": {"239.1.2.4", "ff15::4d:2"}, "mesh": nil,
	} {
		var addrs []netip.Addr
		for _, s := range want {
			addrs = append(addrs, netip.MustParseAddr(s))
		}
		if got := append(groupsOfIGMP([]byte(igmp), name), groupsOfMLD([]byte(mld), name)...); !slices.Equal(got, addrs) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if got := append(groupsOfIGMP(nil, "mesh0"), groupsOfMLD([]byte("\n3 mesh0\n"), "mesh0")...); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}
