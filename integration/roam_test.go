//go:build linux

package integration

import (
	"fmt"
	"testing"
	"time"

	"meshd/integration/lab"
)

// TestUnderlayChanges lets the underlay of a node change in the middle of a ping, both ways at a time.
func TestUnderlayChanges(t *testing.T) {
	type place struct {
		host   *lab.Host
		change func() error
	}
	sites := func(w *world, cfg lab.SiteConfig) (*lab.Site, *lab.Site) {
		return w.net.Site("flat", cfg), w.net.Site("cafe", cfg)
	}
	tests := []struct {
		name  string
		place func(*world) place
	}{
		{"another public IPv4 address", func(w *world) place {
			h := w.net.Host("laptop", lab.HostConfig{V4: true})
			return place{h, h.Renumber}
		}},
		{"another public IPv6 address", func(w *world) place {
			h := w.net.Host("laptop", lab.HostConfig{V6: true})
			return place{h, h.Renumber}
		}},
		{"the router's address", func(w *world) place {
			a, _ := sites(w, lab.SiteConfig{NAT: lab.Home, V4: true})
			return place{a.Host("laptop"), a.Renumber}
		}},
		{"carried to another site, IPv4", func(w *world) place {
			a, b := sites(w, lab.SiteConfig{NAT: lab.Home, V4: true})
			h := a.Host("laptop")
			return place{h, func() error { return h.Move(b) }}
		}},
		{"carried to another site, both", func(w *world) place {
			a, b := sites(w, lab.SiteConfig{NAT: lab.Home})
			h := a.Host("laptop")
			return place{h, func() error { return h.Move(b) }}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			home := w.found(w.net.Host("home", lab.HostConfig{}))
			p := test.place(w)
			laptop := w.join(p.host, w.invite(home))
			w.waitPeers(home, laptop)
			w.pingAll(20, home, laptop)
			there, err := laptop.Host.Pinger(w.addr(home), lab.PingOptions{})
			w.must(err)
			here, err := home.Host.Pinger(w.addr(laptop), lab.PingOptions{})
			w.must(err)
			before := there.Stats().Sent
			w.eventually(5*time.Second, "pings run", func() error {
				if s := there.Stats(); s.Received < before+25 {
					return fmt.Errorf("%v", s)
				}
				return nil
			})
			w.must(p.change())
			changed := there.Stats().Sent
			w.eventually(20*time.Second, "pings run again", func() error {
				if s := there.Stats(); s.Sent < changed+100 || s.Trailing > time.Second/2 {
					return fmt.Errorf("%v", s)
				}
				if s := here.Stats(); s.Trailing > time.Second/2 {
					return fmt.Errorf("%v", s)
				}
				return nil
			})
			for name, s := range map[string]lab.PingStats{"from the laptop": there.Stop(), "to the laptop": here.Stop()} {
				t.Logf("%s: %v", name, s)
				if s.Outage > 5*time.Second {
					t.Errorf("%s: an outage of %v, want 5 s at most", name, s.Outage)
				}
			}
		})
	}
}
