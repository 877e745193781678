package keys

import (
	"fmt"
	"strings"
)

// Domain is where names of members live: NAME.mesh.internal.
const Domain = "mesh.internal"

// maxName is the longest host label (RFC 1035, section 2.3.4).
const maxName = 63

// ValidateName accepts what may name a member: a lower-case host label of
// letters, digits and inner hyphens (RFC 1123, section 2.1).
func ValidateName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("name is empty")
	case len(name) > maxName:
		return fmt.Errorf("name is longer than %d characters", maxName)
	case name[0] == '-' || name[len(name)-1] == '-':
		return fmt.Errorf("name %q begins or ends with a hyphen", name)
	}
	for i := range len(name) {
		if c := name[i]; !labelByte(c) {
			return fmt.Errorf("name %q has %q; allowed are a-z, 0-9 and hyphens", name, c)
		}
	}
	return nil
}

// SanitizeName makes a valid name of a host's: the first label, lower-case, with
// hyphens for what a label cannot hold. It is "node" when nothing is left.
func SanitizeName(host string) string {
	host, _, _ = strings.Cut(host, ".")
	var b strings.Builder
	for _, c := range strings.ToLower(host) {
		switch {
		case c < 0x80 && labelByte(byte(c)):
			b.WriteByte(byte(c))
		default:
			b.WriteByte('-')
		}
		if b.Len() == maxName {
			break
		}
	}
	name := strings.Trim(b.String(), "-")
	if name == "" {
		return "node"
	}
	return name
}

func labelByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'
}
