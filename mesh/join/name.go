package join

import (
	"fmt"
	"strings"
	"time"

	"meshd/keys"
)

// maxName is the longest name, maxLifetime the longest life of a certificate.
const (
	maxName     = 63
	maxLifetime = 90 * 24 * time.Hour
)

// freeName is the name that the node gets: the one it had before, if it asks for
// that again, or the one it asks for, with a number when another node has it.
func (d *Desk) freeName(joiner keys.Public, wanted string, now time.Time) string {
	given := map[string]bool{} // to others, who may not be known as members yet
	own := ""
	for _, issue := range d.config.Log.Issues() {
		switch {
		case issue.Public.Sign == joiner.Sign:
			own = issue.Name
		case now.Before(issue.At.Add(maxLifetime)) && !d.config.Revoked(issue.Public):
			given[issue.Name] = true
		}
	}
	if own != "" && !given[own] && (own == wanted || numbered(own, wanted)) {
		return own
	}
	name := wanted
	for n := 2; given[name] || d.config.TakenName(name); n++ {
		name = withNumber(wanted, n)
	}
	return name
}

// withNumber is name-N, cut to what a name may be.
func withNumber(name string, n int) string {
	suffix := fmt.Sprintf("-%d", n)
	if room := maxName - len(suffix); len(name) > room {
		name = strings.TrimRight(name[:room], "-")
	}
	return name + suffix
}

// numbered says whether name is wanted with a number.
func numbered(name, wanted string) bool {
	for n := 2; n < 1000; n++ {
		if withNumber(wanted, n) == name {
			return true
		}
	}
	return false
}
