package api_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"meshd/mesh/api"
)

const asUserEnv = "MESHD_TEST_AS_USER"

// TestMain also is the program that other users run: it asks for a status, then for the end, and prints the codes.
func TestMain(m *testing.M) {
	socket := os.Getenv(asUserEnv)
	if socket == "" {
		os.Exit(m.Run())
	}
	c := api.NewClient(socket)
	ctx, cancel := contextWithTimeout()
	defer cancel()
	_, err := c.Status(ctx)
	os.Stdout.WriteString(string(api.CodeOf(err)) + ",")
	os.Stdout.WriteString(string(api.CodeOf(c.Down(ctx))))
}

// TestUsers runs a client as other users, for real.
func TestUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run programs as other users")
	}
	const nobody, group = 65534, 54321
	for _, tt := range []struct {
		name      string
		cred      syscall.Credential
		openModes bool // socket and folder open to all, as a careless admin might have it
		want      string
	}{
		{"root", syscall.Credential{Uid: 0, Gid: 0}, false, ","},
		{"nobody", syscall.Credential{Uid: nobody, Gid: nobody}, false, "denied,denied"},
		{"nobody, with modes open", syscall.Credential{Uid: nobody, Gid: nobody}, true, "denied,denied"},
		{"nobody in the group", syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{group}}, false, ",denied"},
		{"nobody with the group first", syscall.Credential{Uid: nobody, Gid: group}, false, ",denied"},
		{"nobody in many groups", syscall.Credential{Uid: nobody, Gid: nobody, Groups: manyGroups(group)}, false, ",denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			node := sample()
			dir, err := os.MkdirTemp("", "meshd-api")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			socket := serveForGroup(t, node, dir, group)
			exe := copyOfThisProgram(t, dir)
			modes := map[string]os.FileMode{dir: 0o755, filepath.Dir(socket): 0o750}
			if tt.openModes {
				modes[filepath.Dir(socket)], modes[socket] = 0o755, 0o666
			}
			for path, mode := range modes {
				if err := os.Chmod(path, mode); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command(exe)
			cmd.Env = []string{asUserEnv + "=" + socket}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &tt.cred}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil || string(out) != tt.want {
				t.Errorf("got %q, %v, want %q\n%s", out, err, tt.want, &stderr)
			}
		})
	}
}

// manyGroups is more groups than fit the first look at them.
func manyGroups(last uint32) []uint32 {
	var g []uint32
	for i := range uint32(200) {
		g = append(g, 30000+i)
	}
	return append(g, last)
}

// copyOfThisProgram is this program where everyone may run it.
func copyOfThisProgram(t *testing.T, dir string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	path := filepath.Join(dir, "client")
	if err = errors.Join(err, os.WriteFile(path, b, 0o755), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}
