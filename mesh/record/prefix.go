package record

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How long hosts may use an address of a prefix after they last heard of it, unless its admin says otherwise: what RFC
// 9096, section 3.4 has for networks that may be renumbered. An address is preferred for half of it.
const (
	DefaultLifetime = 90 * time.Minute
	MinLifetime     = 10 * time.Second
	MaxLifetime     = 30 * 24 * time.Hour // AdvValidLifetime of RFC 4861
)

// Terms say for how long a prefix is good.
type Terms struct {
	Lifetime time.Duration // valid lifetime of what is advertised
	Until    time.Time     // when a removed prefix ends, in whole seconds; zero: it is in use
}

// Gone says that the prefix is no more.
func (t Terms) Gone(now time.Time) bool { return !t.Until.IsZero() && !now.Before(t.Until) }

// settingPrefix begins the names of settings that hold terms:
//
//	prefix/2001:db8::/64 = LIFETIME [UNTIL]      seconds; seconds since 1970
const settingPrefix = "prefix/"

// Terms are those of one of the network's prefixes. What this version cannot read is as if it were not there.
func (n Network) Terms(p netip.Prefix) Terms { return ParseTerms(n.Settings, p) }

// ParseTerms reads the terms of a prefix from a network's settings.
func ParseTerms(settings map[string]string, p netip.Prefix) Terms {
	t := Terms{Lifetime: DefaultLifetime}
	life, until, _ := strings.Cut(settings[settingPrefix+p.String()], " ")
	if v, err := strconv.ParseInt(life, 10, 32); err == nil {
		t.Lifetime = min(max(time.Duration(v)*time.Second, MinLifetime), MaxLifetime)
	}
	if v, err := strconv.ParseInt(until, 10, 64); err == nil && v > 0 {
		t.Until = time.Unix(v, 0)
	}
	return t
}

// WithPrefix returns n with a prefix, if it is not there, and its terms.
func (n Network) WithPrefix(p netip.Prefix, t Terms) Network {
	if !slices.Contains(n.Prefixes, p) {
		n.Prefixes = append(slices.Clip(n.Prefixes), p)
	}
	n.Settings = maps.Clone(n.Settings)
	if t == (Terms{Lifetime: DefaultLifetime}) {
		delete(n.Settings, settingPrefix+p.String())
		return n
	}
	if n.Settings == nil {
		n.Settings = map[string]string{}
	}
	value := strconv.FormatInt(int64(t.Lifetime/time.Second), 10)
	if !t.Until.IsZero() {
		value += " " + strconv.FormatInt(t.Until.Unix(), 10)
	}
	n.Settings[settingPrefix+p.String()] = value
	return n
}

// WithoutGone returns n without the prefixes that have ended.
func (n Network) WithoutGone(now time.Time) Network {
	prefixes := n.Prefixes
	n.Prefixes, n.Settings = nil, maps.Clone(n.Settings)
	for _, p := range prefixes {
		if n.Terms(p).Gone(now) {
			delete(n.Settings, settingPrefix+p.String())
			continue
		}
		n.Prefixes = append(n.Prefixes, p)
	}
	return n
}
