package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Roles lists the roles that a certificate may carry. "vlan" stands with a list: vlan=10,20-29.
func Roles() []string { return []string{"member", "admin", "router", "dhcp", "bridge", "vlan"} }

// CheckRole says what is wrong with a role as a user writes it, or nil.
func CheckRole(role string) error {
	name, tags, hasTags := strings.Cut(role, "=")
	if !slices.Contains(Roles(), name) || hasTags != (name == "vlan") {
		return usage("read role", fmt.Sprintf("%q is none", role), "roles are "+strings.Join(Roles()[:5], ", ")+" and vlan=LIST")
	}
	if !hasTags {
		return nil
	}
	for part := range strings.SplitSeq(tags, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		if !isRange {
			hi = lo
		}
		a, errA := strconv.Atoi(lo)
		b, errB := strconv.Atoi(hi)
		if errA != nil || errB != nil || a < 1 || b > 4094 || a > b {
			return usage("read role", fmt.Sprintf("%q in %q is no VLAN tag or range", part, role), "tags go from 1 to 4094, as in vlan=10,20-29")
		}
	}
	return nil
}
