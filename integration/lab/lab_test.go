//go:build linux

package lab

import (
	"fmt"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	Shim()
	if os.Getenv("LAB_TEST_USERNS") != "" {
		if err := EnterUserNamespace(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// newLab makes a lab that ends with the test.
func newLab(t *testing.T) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces (or run with LAB_TEST_USERNS=1)")
	}
	l, err := New(Options{Name: t.Name(), Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestPing(t *testing.T) {
	l := newLab(t)
	start := time.Now()
	lap := func(s string) { t.Logf("%v %s", time.Since(start), s) }
	n := l.Internet("isp")
	a := n.Host("a", HostConfig{})
	s := n.Site("home", SiteConfig{NAT: Home})
	b := s.Host("b")
	lap("built")
	if err := l.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	lap("ready")
	n.SetName("a.example", a.Addrs()...)
	for _, c := range []string{"ping -c2 -i0.1 " + a.Addr4().String(), "ping -c1 " + a.Addr6().String(), "ping -c1 a.example", "hostname", "ls -la /run /sys/class/net", "ip route show", "cat /etc/resolv.conf", "nft list ruleset"} {
		out, err := b.Command(t.Context(), "sh", "-c", c).CombinedOutput()
		t.Logf("%s: %v\n%s", c, err, out)
		lap("")
	}
	out, err := s.Command(t.Context(), "nft", "list", "ruleset").CombinedOutput()
	t.Logf("%v\n%s", err, out)
	c, err := s.Counters()
	t.Logf("%+v %v", c, err)
}
