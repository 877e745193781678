//go:build linux

package lab

import (
	"errors"
	"fmt"
)

// Customer connects the router of another site to this site's LAN: a second NAT behind the first. Of a Carrier, all
// customers share one public address, as those of mobile networks do. Both have IPv4 alone. The site's own Link is as
// fast as the machine.
func (s *Site) Customer(name string, cfg SiteConfig) *Site {
	cfg.V4 = true
	c := &Site{machine: machine{lab: s.lab, name: name, resolv: resolvConf(true)}, net: s.net, cfg: cfg, next: firstHost}
	s.lab.build(name, func() error { return c.buildBehind(s) })
	return c
}

func (s *Site) buildBehind(parent *Site) (err error) {
	switch {
	case s.cfg.V6 || parent.cfg.V6:
		return errors.New("a customer of a site has IPv4 alone, and so has the site")
	case s.cfg.NAT == None || s.cfg.NAT == CGNAT:
		return fmt.Errorf("a customer of a site has one NAT, not %v", s.cfg.NAT)
	}
	if err := s.cfg.check(); err != nil {
		return err
	}
	if s.ns, err = s.lab.newRouter(s.name); err != nil {
		return err
	}
	wan := new(nic)
	port := plug{ns: parent.ns, name: fmt.Sprintf("p%d", s.lab.id())}
	far, near, err := s.lab.pair(port, plug{ns: s.ns, name: wanName}, defaultMTU)
	if err != nil {
		return err
	}
	wan.end = near
	if err := parent.take(wan, far); err != nil {
		return err
	}
	s.wan = wan
	return s.furnish()
}

// check finds settings that contradict each other.
func (cfg SiteConfig) check() error {
	switch {
	case cfg.Hairpin && (cfg.NAT == None || cfg.NAT == HomePortKept || cfg.NAT == Symmetric):
		return fmt.Errorf("no hairpin in a NAT of the kind %v", cfg.NAT)
	case cfg.Carrier && (cfg.NAT == None || cfg.NAT == CGNAT):
		return fmt.Errorf("a carrier has one NAT, not %v", cfg.NAT)
	}
	return nil
}
