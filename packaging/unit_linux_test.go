// Package packaging holds the files that a distribution's package would have; the tests hold the unit to what systemd says of it.
package packaging

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// maxExposure is the most that `systemd-analyze security` may give the unit, times ten as it counts there: 10 would be everything open.
const maxExposure = 20

// unitCopy is the unit with a program that exists here, in a folder of its own.
func unitCopy(t *testing.T) string {
	t.Helper()
	unit, err := os.ReadFile("meshd.service")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(unit), "/usr/local/bin/meshd", "/bin/true", 1)
	if text == string(unit) {
		t.Fatal("the unit does not start /usr/local/bin/meshd")
	}
	path := filepath.Join(t.TempDir(), "meshd.service")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func analyze(t *testing.T, args ...string) []byte {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze (apt install systemd)")
	}
	cmd := exec.Command(program, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("systemd-analyze %q: %v\n%s%s", args, err, out, stderr.String())
	}
	if stderr.Len() > 0 {
		t.Errorf("systemd-analyze %q: %s", args, stderr.String())
	}
	return out
}

func TestUnitVerify(t *testing.T) {
	analyze(t, "verify", "--man=no", "--recursive-errors=one", unitCopy(t))
}

func TestUnitExposure(t *testing.T) {
	out := analyze(t, "security", "--offline=true", "--no-pager", "--json=short", "--threshold="+strconv.Itoa(maxExposure), unitCopy(t))
	var checks []struct {
		Name        string `json:"name"`
		Description string `json:"description"`
		Exposure    string `json:"exposure"`
	}
	if err := json.Unmarshal(out, &checks); err != nil || len(checks) < 50 {
		t.Fatalf("%v, %d checks", err, len(checks))
	}
	// What stays open, and why: it is a network daemon that configures one interface.
	known := []string{
		"CapabilityBoundingSet=~CAP_NET_ADMIN", "AmbientCapabilities=", "PrivateNetwork=", "IPAddressDeny=", "RestrictAddressFamilies=~AF_(INET|INET6)",
		"RestrictAddressFamilies=~AF_UNIX", "RestrictAddressFamilies=~AF_NETLINK", "PrivateDevices=", "DeviceAllow=", "PrivateUsers=",
		"RootDirectory=/RootImage=", "ProcSubset=",
	}
	for _, c := range checks {
		if c.Exposure != "" && !slices.Contains(known, c.Name) {
			t.Errorf("open: %s: %s (%s)", c.Name, c.Description, c.Exposure)
		}
	}
}

// TestUnitContract holds what the contract says of the unit.
func TestUnitContract(t *testing.T) {
	unit, err := os.ReadFile("meshd.service")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(unit), "\n")
	for _, want := range []string{"Type=notify", "WatchdogSec=30", "StateDirectory=meshd", "RuntimeDirectory=meshd", "AmbientCapabilities=CAP_NET_ADMIN", "KillSignal=SIGTERM"} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %q", want)
		}
	}
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "ExecStart=") && strings.Contains(l, " up --resume") }) {
		t.Error("it does not resume")
	}
	if _, err := os.Stat("50-meshd.rules"); errors.Is(err, os.ErrNotExist) {
		t.Error("the rules for polkit are missing")
	}
}
