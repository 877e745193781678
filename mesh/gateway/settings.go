package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// settings are the kernel's settings that have been changed, in the order of the
// changes, with what they were before.
type settings struct {
	root    string // /proc/sys
	changed []setting
	reached []string // bridges that may have our address, and our route in the main table
	save    func([]byte) error
}

type setting struct{ key, before string }

// parse reads what an earlier process has written down:
//
//	sysctl net/ipv6/conf/eth0/forwarding 0
//	interface br0
func (s *settings) parse(notes []byte) error {
	for line := range strings.Lines(string(notes)) {
		f := strings.Fields(line)
		if len(f) == 2 && f[0] == "interface" {
			s.reached = append(s.reached, f[1])
			continue
		}
		if len(f) != 3 || f[0] != "sysctl" || !strings.HasPrefix(f[1], "net/") || !filepath.IsLocal(f[1]) {
			return fmt.Errorf("read what was changed on this host: %.60q is not known", line)
		}
		s.changed = append(s.changed, setting{f[1], f[2]})
	}
	return nil
}

func (s *settings) write() error {
	var b strings.Builder
	for _, c := range s.changed {
		fmt.Fprintf(&b, "sysctl %s %s\n", c.key, c.before)
	}
	for _, name := range s.reached {
		fmt.Fprintf(&b, "interface %s\n", name)
	}
	return s.save([]byte(b.String()))
}

// reach writes down that a bridge is about to have our route or address: it is there when
// the TAP, and this process, are not.
func (s *settings) reach(name string) error {
	if slices.Contains(s.reached, name) {
		return nil
	}
	s.reached = append(s.reached, name)
	return s.write()
}

// left writes down that it has neither.
func (s *settings) left(name string) error {
	at := slices.Index(s.reached, name)
	if at < 0 {
		return nil
	}
	s.reached = slices.Delete(s.reached, at, at+1)
	return s.write()
}

func (s *settings) read(key string) (string, error) {
	b, err := os.ReadFile(filepath.Join(s.root, key))
	return strings.TrimSpace(string(b)), err
}

func (s *settings) put(key, value string) error {
	return os.WriteFile(filepath.Join(s.root, key), []byte(value), 0)
}

// set changes a setting, after it has been written down.
func (s *settings) set(key, value string) error {
	now, err := s.read(key)
	if err != nil || now == value {
		return err
	}
	if !slices.ContainsFunc(s.changed, func(c setting) bool { return c.key == key }) {
		s.changed = append(s.changed, setting{key, now})
		if err := s.write(); err != nil {
			return err
		}
	}
	return s.put(key, value)
}

// restore puts back all but what keep names, the last first.
func (s *settings) restore(keep func(key string) bool) error {
	var errs []error
	before := len(s.changed)
	for i, c := range slices.Backward(s.changed) {
		if keep(c.key) {
			continue
		}
		if err := s.put(c.key, c.before); err != nil && !errors.Is(err, fs.ErrNotExist) { // its interface is gone
			errs = append(errs, err)
			continue
		}
		s.changed = slices.Delete(s.changed, i, i+1)
	}
	if len(s.changed) != before {
		errs = append(errs, s.write())
	}
	return errors.Join(errs...)
}

// exists reports whether the kernel has a setting.
func (s *settings) exists(key string) bool {
	_, err := os.Stat(filepath.Join(s.root, key))
	return err == nil
}

func conf(ifname, key string) string { return "net/ipv6/conf/" + ifname + "/" + key }

// value is what a setting is to be.
type value struct{ key, value string }

// apply makes the settings what they are to be, and puts back all others.
func (s *settings) apply(want []value) error {
	err := s.restore(func(key string) bool {
		return slices.ContainsFunc(want, func(w value) bool { return w.key == key })
	})
	for _, w := range want {
		if e := s.set(w.key, w.value); e != nil && err == nil {
			err = fmt.Errorf("forward packets: %w", e)
		}
	}
	return err
}

// forwarding4 has IPv4 packets forwarded that come in by two interfaces.
func forwarding4(inside, uplink string) []value {
	return []value{{"net/ipv4/conf/" + inside + "/forwarding", "1"}, {"net/ipv4/conf/" + uplink + "/forwarding", "1"}}
}

// forwarding6 has packets forwarded between two interfaces, and between no others
// where the kernel can tell them apart (Linux 6.17). Before that, all interfaces are
// a router's, which then take no advertisements unless accept_ra is 2.
func (s *settings) forwarding6(inside, uplink string) []value {
	if key := "force_forwarding"; s.exists(conf(uplink, key)) {
		return []value{{conf(inside, key), "1"}, {conf(uplink, key), "1"}}
	}
	var want []value
	list, err := os.ReadDir(filepath.Join(s.root, "net/ipv6/conf"))
	if err != nil {
		return nil // no IPv6
	}
	for _, e := range list {
		name := e.Name()
		if name == "all" || name == "default" || name == inside {
			continue
		}
		was := slices.ContainsFunc(s.changed, func(c setting) bool { return c.key == conf(name, "accept_ra") })
		if v, err := s.read(conf(name, "accept_ra")); err == nil && (v == "1" || was) {
			want = append(want, value{conf(name, "accept_ra"), "2"})
		}
	}
	return append(want, value{conf("all", "forwarding"), "1"})
}
