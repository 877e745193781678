//go:build linux

package integration

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshd/integration/lab"
)

// Programs in front of meshd that take something from it.
var (
	withoutTUN   = []string{"unshare", "--mount", "sh", "-c", `mount -t tmpfs none /dev/net && exec "$0" "$@"`}
	withoutRight = []string{"setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"}
	asNobody     = []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"}
)

// badStart is a start that cannot succeed.
type badStart struct {
	name   string
	args   string   // of `meshd up`; FILE is one that holds file
	file   string   // its content
	front  []string // what runs it
	before string   // shell commands that spoil the host or the state, which is $STATE
	after  string   // and others that put the host back
	status int
	says   string // in the line that says what is wrong
	remedy string // in that line or the next
}

// TestBadStarts starts meshd where it cannot run. It says in one line what is wrong and in one line what to do, ends with
// the exit status of CONTRACT.md, and leaves host and files as they were, whether the node is a new one or not.
func TestBadStarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home, entry := w.net.Host("home", lab.HostConfig{}), w.net.Host("entry", lab.HostConfig{})
	invite := w.invite(w.found(entry))
	for _, dir := range []string{w.dir, filepath.Dir(w.dir)} { // nobody shall find program and state
		w.must(os.Chmod(dir, 0o755))
	}
	program := filepath.Join(w.dir, "meshd")
	w.must(copyFile(program, w.bin))
	old := w.node(home) // the state of a node that has been one
	w.must(old.Up())
	w.must(old.Ready(w.within(10 * time.Second)))
	w.must(old.Interrupt())

	w.must(home.Do(func() error { // the ports that are taken
		udp, err := net.ListenUDP("udp", &net.UDPAddr{Port: 4000})
		if err != nil {
			return err
		}
		t.Cleanup(func() { udp.Close() })
		tcp, err := net.Listen("tcp", ":4000")
		if err != nil {
			return err
		}
		t.Cleanup(func() { tcp.Close() })
		return nil
	}))
	asNewOrOld := []badStart{
		{name: "malformed flag", args: "--mtu many", status: 2, says: "--mtu", remedy: "meshd up --help"},
		{name: "malformed config", args: "--config FILE", file: "mtu = 1500\nfrob = 1\n", status: 2, says: "line 2", remedy: "meshd up --help"},
		{name: "malformed invite", args: "--join " + invite[:len(invite)-4], status: 1, says: "--join: invite", remedy: "invite"},
		{name: "occupied port", args: "--listen :4000", status: 1, says: "4000", remedy: "--listen"},
		{name: "occupied port, joining", args: "--listen :4000 --join " + invite, status: 1, says: "4000", remedy: "--listen"},
		{name: "occupied port, in the background", args: "--listen :4000 --detach", status: 1, says: "4000", remedy: "--listen"},
		{name: "occupied port for TLS", args: "--listen-tls :4000", status: 1, says: "4000", remedy: "--listen-tls"},
		{name: "occupied port for TLS, joining", args: "--listen-tls :4000 --join " + invite, status: 1, says: "4000", remedy: "--listen-tls"},
		{name: "address of another host", args: "--listen 192.0.2.1:4001", status: 1, says: "192.0.2.1", remedy: "--listen"},
		{name: "no TUN device", front: withoutTUN, status: 1, says: "/dev/net/tun", remedy: "modprobe tun"},
		{name: "no TUN device, joining", args: "--join " + invite, front: withoutTUN, status: 1, says: "/dev/net/tun", remedy: "modprobe tun"},
		{name: "no CAP_NET_ADMIN", front: withoutRight, status: 1, says: "mesh0", remedy: "CAP_NET_ADMIN"},
		{name: "no CAP_NET_ADMIN, joining", args: "--join " + invite, front: withoutRight, status: 1, says: "mesh0", remedy: "CAP_NET_ADMIN"},
		{name: "another's folder", front: asNobody, status: 1, says: "permission denied", remedy: "--state"},
		{name: "the TAP's name is taken", before: "ip link add mesh0 type bridge", after: "ip link del mesh0", status: 1, says: "mesh0", remedy: "--tap"},
		{name: "no such bridge", args: "--bridge br7", status: 1, says: "br7", remedy: "bridge"},
		{name: "a socket's path is too long", args: "--socket /run/" + strings.Repeat("long", 30), status: 1, says: "path has more than", remedy: "--socket"},
		{name: "a plug's folder is not there", args: "--plug vde:/nonexistent/plug/socket", status: 1, says: "/nonexistent", remedy: "--plug"},
	}
	asNew := []badStart{
		{name: "nobody's own folder, and no right", front: asNobody, before: `mkdir -m 777 "${STATE%/*}"`, status: 1, says: "mesh0", remedy: "CAP_NET_ADMIN"},
		{name: "nothing to resume", args: "--resume", status: 1, says: "belongs to no network", remedy: "meshd up --join"},
		{name: "a file in place of the folder", before: `mkdir "${STATE%/*}"; touch "$STATE"`, status: 1, says: "not a directory", remedy: "--state"},
		{name: "an empty folder that was there before", args: "--listen :4000", before: `mkdir -p -m 700 "$STATE"`, status: 1, says: "4000", remedy: "--listen"},
		{name: "an open folder", before: `mkdir "${STATE%/*}"; mkdir -m 777 "$STATE"`, status: 1, says: "state directory", remedy: "chmod"},
	}
	asOld := []badStart{
		{name: "an invite to another network", args: "--join " + invite, status: 1, says: "another network", remedy: "another --state"},
		{name: "damaged identity", before: `for f in "$STATE"/identity.*; do truncate -s 60 "$f"; done`, status: 1, says: "identity", remedy: "restore from a backup"},
		{name: "damaged membership", before: `for f in "$STATE"/membership.*; do echo damage > "$f"; done`, status: 1, says: "membership", remedy: "restore from a backup"},
		{name: "damaged notes of the host", before: `umask 077; for f in "$STATE"/bridge.a "$STATE"/host.a "$STATE"/host.b; do echo damage > "$f"; done`, status: 1, says: "bridge", remedy: "restore from a backup"},
		{name: "damaged epoch", before: `for f in "$STATE"/epoch.*; do : > "$f"; done`, status: 1, says: "epoch", remedy: "restore from a backup"},
	}
	others := exec.Command(asNobody[0], append(asNobody[1:], "true")...).Run() == nil
	run := func(kind string, list []badStart, from string) {
		for _, b := range list {
			t.Run(kind+"/"+b.name, func(t *testing.T) {
				if !others && slices.Equal(b.front, asNobody) {
					t.Skip("there is no other user in this user namespace")
				}
				w.under(t).startBadly(home, program, from, b)
			})
		}
	}
	run("new", append(asNewOrOld, asNew...), "")
	run("old", append(asNewOrOld, asOld...), old.State)
}

// startBadly makes a bad start, in a copy of a state folder or in a new one.
func (w *world) startBadly(h *lab.Host, program, from string, b badStart) {
	dir, err := os.MkdirTemp(w.dir, "*")
	w.must(err)
	w.must(os.Chmod(dir, 0o755))
	state := filepath.Join(dir, "parent", "state") // the folder above is new as well
	if from != "" {
		w.must(os.MkdirAll(filepath.Dir(state), 0o755))
		w.must(exec.Command("cp", "-a", from, state).Run())
	}
	shell := func(script string) {
		cmd := h.Command(w.within(10*time.Second), "sh", "-c", script)
		cmd.Env = append(os.Environ(), "STATE="+state)
		if out, err := cmd.CombinedOutput(); err != nil {
			w.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	file := filepath.Join(dir, "file")
	w.must(os.WriteFile(file, []byte(b.file), 0o644))
	shell(b.before)
	settings, files := w.settings(h), w.files(dir)

	args := append(append([]string{}, b.front...), program, "up", "--state", state)
	args = append(args, strings.Fields(strings.ReplaceAll(b.args, "FILE", file))...)
	ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
	defer cancel()
	cmd := h.Command(ctx, args[0], args[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, time.Second
	err = cmd.Run()
	status := 0
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		status = exit.ExitCode()
	} else {
		w.must(err)
	}
	lines := strings.Split(strings.TrimSuffix(stderr.String(), "\n"), "\n")
	w.Logf("exit status %d: %q", status, lines)
	if status != b.status {
		w.Errorf("exit status %d, want %d\n%s", status, b.status, &stdout)
	}
	if len(lines) > 2 || !strings.HasPrefix(lines[0], "meshd: ") || !strings.Contains(lines[0], b.says) || !strings.Contains(stderr.String(), b.remedy) {
		w.Errorf("it does not say in one line that %q and in one that %q", b.says, b.remedy)
	}
	if diff := cmp.Diff(files, w.files(dir)); diff != "" {
		w.Errorf("files:\n%s", diff)
	}
	if diff := cmp.Diff(settings, w.settings(h)); diff != "" {
		w.Errorf("settings of the host:\n%s", diff)
	}
	if lines := processesWith(state); len(lines) > 0 {
		w.Errorf("still runs: %q", lines)
	}
	if b.after != "" {
		shell(b.after)
	}
}

// files is what a folder holds, by path; folders end with a slash. What changes by itself with each start of a node that has
// state is left out: its lock, the number of the start, and notes of what is to be put back.
func (w *world) files(dir string) map[string]string {
	w.Helper()
	all := make(map[string]string)
	w.must(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			all[path+"/"] = ""
		case !slices.Contains([]string{"lock", "epoch", "host"}, strings.TrimSuffix(d.Name(), filepath.Ext(d.Name()))):
			text, err := os.ReadFile(path)
			all[path] = string(text)
			return err
		default:
			all[path] = ""
		}
		return nil
	}))
	return all
}

// processesWith lists the command lines of processes that name something.
func processesWith(text string) (lines []string) {
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range list {
		if line, err := os.ReadFile(path); err == nil && bytes.Contains(line, []byte(text)) { // else it has ended
			lines = append(lines, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return lines
}

// copyFile copies a program.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
