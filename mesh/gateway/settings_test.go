package gateway

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree makes a /proc/sys.
func tree(t *testing.T, values map[string]string) string {
	root := t.TempDir()
	for key, v := range values {
		path := filepath.Join(root, key)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(v+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func (s *settings) check(t *testing.T, what string, want map[string]string) {
	t.Helper()
	for key, v := range want {
		if got, err := s.read(key); got != v || err != nil {
			t.Errorf("%s: %s is %q, %v; want %q", what, key, got, err, v)
		}
	}
}

func TestForwarding(t *testing.T) {
	older := map[string]string{
		"net/ipv6/conf/all/forwarding": "0", "net/ipv6/conf/eth0/accept_ra": "1", "net/ipv6/conf/eth1/accept_ra": "0",
		"net/ipv6/conf/mesh0/accept_ra": "0",
	}
	newer := map[string]string{
		"net/ipv6/conf/all/forwarding": "0", "net/ipv6/conf/eth0/accept_ra": "1",
		"net/ipv6/conf/eth0/force_forwarding": "0", "net/ipv6/conf/eth1/force_forwarding": "0", "net/ipv6/conf/mesh0/force_forwarding": "0",
	}
	for _, c := range []struct {
		name         string
		before, with map[string]string
	}{
		{"a kernel that forwards all or nothing", older, map[string]string{
			"net/ipv6/conf/all/forwarding": "1", "net/ipv6/conf/eth0/accept_ra": "2", "net/ipv6/conf/eth1/accept_ra": "0", "net/ipv6/conf/mesh0/accept_ra": "0",
		}},
		{"one that tells interfaces apart", newer, map[string]string{
			"net/ipv6/conf/all/forwarding": "0", "net/ipv6/conf/eth0/accept_ra": "1", "net/ipv6/conf/eth0/force_forwarding": "1",
			"net/ipv6/conf/eth1/force_forwarding": "0", "net/ipv6/conf/mesh0/force_forwarding": "1",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var notes []byte
			s := &settings{root: tree(t, c.before), save: func(b []byte) error { notes = b; return nil }}
			for range 3 { // level-triggered
				if err := s.apply(s.forwarding6("mesh0", "eth0")); err != nil {
					t.Fatal(err)
				}
				s.check(t, "forwarding", c.with)
			}
			// The process is killed; another begins, finds the notes, forwards, and ends.
			s = &settings{root: s.root, save: s.save}
			if err := s.parse(notes); err != nil {
				t.Fatal(err)
			}
			if err := s.apply(s.forwarding6("mesh0", "eth0")); err != nil {
				t.Fatal(err)
			}
			s.check(t, "again", c.with)
			if err := s.restore(func(string) bool { return false }); err != nil {
				t.Fatal(err)
			}
			s.check(t, "put back", c.before)
			if len(notes) != 0 {
				t.Errorf("noted: %s", notes)
			}
		})
	}
}

func TestUplinkMoves(t *testing.T) {
	s := &settings{save: func([]byte) error { return nil }, root: tree(t, map[string]string{
		"net/ipv6/conf/eth0/force_forwarding": "0", "net/ipv6/conf/eth1/force_forwarding": "0", "net/ipv6/conf/mesh0/force_forwarding": "0",
	})}
	for _, uplink := range []string{"eth0", "eth1"} {
		if err := s.apply(s.forwarding6("mesh0", uplink)); err != nil {
			t.Fatal(err)
		}
	}
	s.check(t, "moved", map[string]string{
		"net/ipv6/conf/eth0/force_forwarding": "0", "net/ipv6/conf/eth1/force_forwarding": "1", "net/ipv6/conf/mesh0/force_forwarding": "1",
	})
}

func TestNotes(t *testing.T) {
	for _, bad := range []string{"x\n", "sysctl a\n", "sysctl /etc/passwd 1\n", "sysctl net/../../etc/passwd 1\n", "sysctl kernel/panic 1\n"} {
		if err := new(settings).parse([]byte(bad)); err == nil || !strings.Contains(err.Error(), "not known") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
