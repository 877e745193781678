//go:build linux

// Package vm holds the files of an example; the tests hold them to what QEMU, systemd and meshd say of them.
package vm

import (
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"meshd/l2/plug"
)

// vmArguments is what vm.sh gives to QEMU.
func vmArguments(t *testing.T, args ...string) ([]string, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte("#!/bin/sh\nprintf '%s\\n' \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("./vm.sh", args...)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	out, err := cmd.Output()
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"), err
}

// TestScript holds vm.sh to the arguments that l2/plug documents. TestGuests of package integration runs it.
func TestScript(t *testing.T) {
	sum := sha256.Sum256([]byte("box"))
	mac := net.HardwareAddr{0x52, 0x54, 0, sum[0], sum[1], sum[2]}
	for socket, want := range map[string]string{
		"vde:/run/user/1000/mesh.vde":       "vde,sock=/run/user/1000/mesh.vde,id=mesh",
		"stream:/run/user/1000/mesh.stream": "stream,server=off,addr.type=unix,addr.path=/run/user/1000/mesh.stream,id=mesh",
		"dgram:/tmp/d":                      "dgram,remote.type=unix,remote.path=/tmp/d,local.type=unix,local.path=/tmp/d.box,id=mesh",
	} {
		args, err := vmArguments(t, socket, "box", "-cdrom", "an image.iso")
		want := []string{"-name", "box", "-netdev", want, "-device", "virtio-net-pci,netdev=mesh,mac=" + mac.String(), "-cdrom", "an image.iso"}
		if err != nil || len(args) != len(want) {
			t.Fatalf("%s: %q, %v", socket, args, err)
		}
		for i := range want {
			if args[i] != want[i] {
				t.Errorf("%s: QEMU is given %q, want %q", socket, args[i], want[i])
			}
		}
	}
	_, err := vmArguments(t, "tap:/x", "box")
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("an unknown kind of socket: %v", err)
	}
}

// TestLibvirt reads the arguments out of libvirt.xml: they must be those of vm.sh, but for the card's place.
func TestLibvirt(t *testing.T) {
	text, err := os.ReadFile("libvirt.xml")
	if err != nil {
		t.Fatal(err)
	}
	var domain struct {
		Args []struct {
			Value string `xml:"value,attr"`
		} `xml:"http://libvirt.org/schemas/domain/qemu/1.0 commandline>arg"`
	}
	if err := xml.Unmarshal(text, &domain); err != nil {
		t.Fatal(err)
	}
	script, err := vmArguments(t, "stream:/run/user/1000/mesh.stream", "box")
	if err != nil {
		t.Fatal(err)
	}
	options := func(s string) []string {
		return slices.DeleteFunc(slices.Sorted(slices.Values(strings.Split(s, ","))), func(o string) bool {
			return strings.HasPrefix(o, "mac=") || strings.HasPrefix(o, "addr=")
		})
	}
	want := script[2:] // behind the name
	if len(domain.Args) != len(want) {
		t.Fatalf("%d arguments, want %q", len(domain.Args), want)
	}
	for i, arg := range domain.Args {
		if !slices.Equal(options(arg.Value), options(want[i])) {
			t.Errorf("libvirt gives %q, vm.sh %q", arg.Value, want[i])
		}
	}
}

// TestUnit has systemd judge the unit, and meshd its plugs.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("meshd-plug.service")
	if err != nil {
		t.Fatal(err)
	}
	plugs := regexp.MustCompile(`--plug (\S+)`).FindAllStringSubmatch(string(text), -1)
	for _, p := range plugs {
		if _, err := plug.ParseSpec(p[1]); err != nil {
			t.Error(err)
		}
	}
	if len(plugs) != 3 {
		t.Errorf("%d plugs", len(plugs))
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze (apt install systemd)")
	}
	path := filepath.Join(t.TempDir(), "meshd-plug.service")
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), "/usr/local/bin/meshd", "/bin/true", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(analyze, "verify", "--user", "--man=no", "--recursive-errors=no", path)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze: %v: %s", err, out)
	}
}
