//go:build linux

package guest_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
	"meshd/integration/lab/guest"
)

func TestMain(m *testing.M) {
	lab.Shim()
	os.Exit(m.Run())
}

// TestBoot boots a guest that is plugged into nothing, and has it run commands, two at a time.
func TestBoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	files, err := guest.Load(ctx)
	if errors.Is(err, guest.ErrMissing) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(lab.Options{Name: t.Name(), Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	host := l.Internet("isp").Host("host", lab.HostConfig{})
	began := time.Now()
	g, err := guest.Boot(ctx, host, files, guest.Options{Name: "vm", Netdev: "hubport,hubid=0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("booted in %v", time.Since(began))
	slow := make(chan error, 1)
	go func() {
		_, err := g.Run(ctx, "while [ ! -e /tmp/go ]; do sleep 0.1; done")
		slow <- err
	}()
	for command, want := range map[string]string{"hostname": "vm\n", "echo a; echo b >&2": "a\nb\n", "true": ""} {
		if out, err := g.Run(ctx, command); err != nil || out != want {
			t.Errorf("%s: %q, %v", command, out, err)
		}
	}
	out, err := g.Run(ctx, "echo no; exit 3")
	if status := new(guest.StatusError); !errors.As(err, &status) || status.Status != 3 || out != "no\n" {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := g.Run(ctx, "ip link show eth0"); err != nil || !strings.Contains(out, "UP") {
		t.Errorf("%q, %v\n%s", out, err, g.Console())
	}
	if _, err := g.Run(ctx, "touch /tmp/go"); err != nil {
		t.Error(err)
	}
	if err := <-slow; err != nil {
		t.Error(err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if _, err := g.Run(ctx, "true"); err == nil {
		t.Error("a guest that has ended has run a command")
	}
}
