package names

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// bus starts a message bus of the test's own and returns its address.
func bus(t *testing.T) string {
	t.Helper()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("needs dbus-daemon (apt install dbus)")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "bus.conf")
	text := `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:dir=` + dir + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(daemon, "--config-file="+config, "--nofork", "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(address)
}

func connect(t *testing.T, address string) *dbus.Conn {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// fakeResolved is systemd-resolved as far as we use it: it notes what it is told.
type fakeResolved struct {
	mu    sync.Mutex
	calls []string
	fail  map[string]*dbus.Error
	heard chan struct{}
}

func newFakeResolved() *fakeResolved {
	return &fakeResolved{heard: make(chan struct{}, 100), fail: map[string]*dbus.Error{}}
}

func (f *fakeResolved) note(method, format string, args ...any) *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, method+" "+fmt.Sprintf(format, args...))
	f.heard <- struct{}{}
	return f.fail[method]
}

func (f *fakeResolved) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

func (f *fakeResolved) SetLinkDNSEx(ifindex int32, dns []struct {
	Family  int32
	Address []byte
	Port    uint16
	Name    string
},
) *dbus.Error {
	return f.note("SetLinkDNSEx", "%d %v", ifindex, dns)
}

func (f *fakeResolved) SetLinkDomains(ifindex int32, domains []struct {
	Domain      string
	RoutingOnly bool
},
) *dbus.Error {
	return f.note("SetLinkDomains", "%d %v", ifindex, domains)
}

func (f *fakeResolved) SetLinkDNSSEC(ifindex int32, mode string) *dbus.Error {
	return f.note("SetLinkDNSSEC", "%d %s", ifindex, mode)
}

func (f *fakeResolved) SetLinkDefaultRoute(ifindex int32, enable bool) *dbus.Error {
	return f.note("SetLinkDefaultRoute", "%d %v", ifindex, enable)
}

func (f *fakeResolved) RevertLink(ifindex int32) *dbus.Error {
	return f.note("RevertLink", "%d", ifindex)
}

// appear puts the fake on the bus under resolved's name.
func (f *fakeResolved) appear(t *testing.T, address string) *dbus.Conn {
	t.Helper()
	conn := connect(t, address)
	if err := conn.Export(f, resolvedPath, "org.freedesktop.resolve1.Manager"); err != nil {
		t.Fatal(err)
	}
	if r, err := conn.RequestName(resolvedName, dbus.NameFlagDoNotQueue); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("request name: %v, %v", r, err)
	}
	return conn
}

// registration is what resolved has to hear.
func registration() []string {
	return []string{
		"SetLinkDNSEx 7 [{2 [127 0 0 1] 5383 }]",
		"SetLinkDomains 7 [{mesh.internal true} {a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa true}]",
		"SetLinkDNSSEC 7 no", // SetLinkDNSOverTLS is not known to this one, which does no harm
		"SetLinkDefaultRoute 7 false",
	}
}

func registerAt(t *testing.T, address string) (*Registration, error) {
	t.Helper()
	return register(t.Context(), connect(t, address), 7, netip.MustParseAddrPort("127.0.0.1:5383"), []string{"a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa"})
}

func TestRegister(t *testing.T) {
	address := bus(t)
	fake := newFakeResolved()
	fake.appear(t, address)
	r, err := registerAt(t, address)
	if err != nil {
		t.Fatal(err)
	}
	if got := fake.take(); !slices.Equal(got, registration()) {
		t.Errorf("resolved heard %q", got)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if got := fake.take(); !slices.Equal(got, []string{"RevertLink 7"}) {
		t.Errorf("at the end resolved heard %q", got)
	}
	if err := r.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestRegisterFails(t *testing.T) {
	t.Run("nobody there", func(t *testing.T) {
		if _, err := registerAt(t, bus(t)); !errors.Is(err, ErrNoResolved) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("denied", func(t *testing.T) {
		address, fake := bus(t), newFakeResolved()
		fake.fail["SetLinkDNSEx"] = dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"no"})
		fake.appear(t, address)
		if _, err := registerAt(t, address); err == nil || errors.Is(err, ErrNoResolved) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("half way", func(t *testing.T) {
		address, fake := bus(t), newFakeResolved()
		fake.fail["SetLinkDomains"] = dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"no"})
		fake.appear(t, address)
		if _, err := registerAt(t, address); err == nil {
			t.Error("no error")
		}
		if got := fake.take(); len(got) != 3 || got[2] != "RevertLink 7" {
			t.Errorf("nothing half made; resolved heard %q", got)
		}
	})
	t.Run("the link has gone before the end", func(t *testing.T) {
		address, fake := bus(t), newFakeResolved()
		fake.fail["RevertLink"] = dbus.NewError("org.freedesktop.resolve1.NoSuchLink", nil)
		fake.appear(t, address)
		r, err := registerAt(t, address)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("got %v", err)
		}
	})
}

// TestRunRegistersAgain restarts resolved, which then knows nothing any more.
func TestRunRegistersAgain(t *testing.T) {
	address := bus(t)
	first := newFakeResolved()
	old := first.appear(t, address)
	r, err := registerAt(t, address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	watching := make(chan struct{})
	go func() {
		close(watching)
		ended <- r.Run(ctx)
	}()
	<-watching
	// The match is there once the bus has answered a call that was made after it; until then a restart may be missed, so that we restart until it is seen.
	old.Close()
	second := newFakeResolved()
	deadline := time.After(10 * time.Second)
	for heard := false; !heard; {
		conn := second.appear(t, address)
		select {
		case <-second.heard:
			heard = true
		case <-time.After(time.Second):
			conn.Close()
		case <-deadline:
			t.Fatal("it was not registered again")
		}
	}
	for range 3 {
		<-second.heard
	}
	if got := second.take(); !slices.Equal(got, registration()) {
		t.Errorf("the new resolved heard %q", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := second.take(); !slices.Equal(got, []string{"RevertLink 7"}) {
		t.Errorf("at the end it heard %q", got)
	}
}
