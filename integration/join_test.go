//go:build linux

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meshd/integration/lab"
)

// TestReadyInTime measures from the start of the second node to its "ready", on a path of 10 ms.
func TestReadyInTime(t *testing.T) {
	tests := []struct {
		name  string
		link  lab.Link
		limit time.Duration
	}{
		{"10 ms", lab.Link{Delay: 5 * time.Millisecond}, 3 * time.Second},
		{"10 ms and 10 percent loss", lab.Link{Delay: 5 * time.Millisecond, Loss: 0.1}, 6 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			home := w.found(w.net.Host("home", lab.HostConfig{Link: lab.Link{Delay: 5 * time.Millisecond}}))
			invite := w.invite(home, "--uses", "3")
			for i := range 3 { // what is lost differs
				h := w.net.Host(fmt.Sprintf("host%d", i), lab.HostConfig{Link: test.link})
				w.must(w.lab.Ready(w.within(10 * time.Second)))
				n := w.node(h)
				start := time.Now()
				w.must(n.UpWithInput(strings.NewReader(invite+"\n"), "--join", "-"))
				w.must(n.Ready(w.within(20 * time.Second)))
				took := time.Since(start)
				t.Logf("ready after %v", took)
				if took > test.limit {
					t.Errorf("ready after %v, want %v at most", took, test.limit)
				}
			}
		})
	}
}

// TestRefused tries invites that must not work. Each ends in time, with status 1 and one line that says why; nothing is made.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{}))
	used := w.invite(home, "--uses", "1")
	w.join(w.net.Host("friend", lab.HostConfig{}), used)
	short := w.invite(home, "--expires", "1s")
	expired := time.Now().Add(1500 * time.Millisecond)
	good := w.invite(home)

	tests := []struct {
		name   string
		invite func(*world) string
	}{
		{"wrong", func(*world) string { return good[:7] + strings.Repeat("A", len(good)-7) }},
		{"cut", func(*world) string { return good[:len(good)-9] }},
		{"tampered", func(*world) string { return tamper(good, len(good)/2) }},
		{"tampered at the end", func(*world) string { return tamper(good, len(good)-2) }},
		{"used", func(*world) string { return used }},
		{"expired", func(*world) string { time.Sleep(time.Until(expired)); return short }},
		{"rogue server at home's address", rogue(good, home)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := w.under(t)
			host := w.net.Host("host"+strings.Map(letters, test.name), lab.HostConfig{})
			n, invite := w.node(host), test.invite(w)
			start := time.Now()
			out, err := n.Run(w.within(20*time.Second), "up", "--join", invite)
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("refused after %v", took)
			}
			exit := new(lab.ExitError)
			if !errors.As(err, &exit) {
				t.Fatalf("the node joined or hung: %v\n%s", err, out)
			}
			if exit.Code != 1 {
				t.Errorf("exit status %d, want 1", exit.Code)
			}
			if !oneReason(exit.Stderr) {
				t.Errorf("not one line that says why: %q", exit.Stderr)
			}
			if w.hasTAP(host) {
				t.Error("a TAP was made")
			}
			t.Log(strings.TrimSpace(exit.Stderr))
		})
	}
}

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return -1
}

// tamper changes one letter.
func tamper(invite string, at int) string {
	b := []byte(invite)
	if b[at] == 'x' {
		b[at] = 'y'
	} else {
		b[at] = 'x'
	}
	return string(b)
}

// oneReason reports whether a command says what and why in one line, and at most a second with the remedy. Lines of the
// log, which have a time, do not count.
func oneReason(stderr string) bool {
	var lines []string
	for _, line := range strings.Split(strings.TrimSpace(stderr), "\n") {
		if !strings.HasPrefix(line, "time=") {
			lines = append(lines, line)
		}
	}
	return len(lines) > 0 && len(lines) <= 2 && strings.HasPrefix(lines[0], "meshd: ")
}

// rogue makes home's address lead to the founder of another network, and returns an invite of the true one.
func rogue(invite string, home *lab.Node) func(*world) string {
	return func(w *world) string {
		w.Helper()
		addrs := home.Host.Addrs()
		w.must(home.Terminate())
		w.must(home.Host.Renumber())
		impostor := w.net.Host("impostor", lab.HostConfig{})
		w.must(w.lab.Ready(w.within(10 * time.Second)))
		w.must(impostor.Impersonate(addrs...))
		w.net.SetName("home.example", addrs...)
		n := lab.NewNode(impostor, w.bin, filepath.Join(w.dir, "impostor"))
		w.must(n.Up())
		w.must(n.Ready(w.within(10 * time.Second)))
		return invite
	}
}

// TestInviteStaysSecret looks for the invite where it must not be: logs, process list, the underlay.
func TestInviteStaysSecret(t *testing.T) {
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{}), "--log-level", "debug")
	invite := w.invite(home)
	host := w.net.Host("laptop", lab.HostConfig{})
	underlay, err := host.Capture("eth0")
	w.must(err)
	n := w.node(host)
	w.must(n.Up("--join", invite, "--log-level", "debug"))
	w.must(n.Ready(w.within(10 * time.Second)))
	if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n.PID())); err != nil || len(args) == 0 {
		t.Errorf("read the joiner's arguments: %v", err)
	} else if piece := leak(string(args), invite); piece != "" {
		t.Errorf("the process list shows %q of the invite: %q", piece, args)
	}
	if piece := leak(home.Output()+n.Output(), invite); piece != "" {
		t.Errorf("the logs show %q of the invite", piece)
	}
	for _, f := range underlay.Frames() {
		if piece := leak(string(f.Data), invite); piece != "" {
			t.Fatalf("the underlay shows %q of the invite", piece)
		}
	}
	if len(underlay.Frames()) == 0 {
		t.Error("nothing was captured")
	}
}

// leak returns a piece of the secret that is in text. The first characters are the same in all invites.
func leak(text, secret string) string {
	const size = 12
	for i := 16; i+size <= len(secret); i++ {
		if strings.Contains(text, secret[i:i+size]) {
			return secret[i : i+size]
		}
	}
	return ""
}

// TestJoinSideBySide lets two hosts of one LAN join at the same time. They find each other there before they have heard
// of anybody else, and must not take that for the whole network.
func TestJoinSideBySide(t *testing.T) {
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{V4: true, Link: lab.Link{Delay: 50 * time.Millisecond}}))
	site := w.net.Site("site", lab.SiteConfig{V4: true, NAT: lab.Home})
	invite := w.invite(home, "--uses", "2")
	nodes := []*lab.Node{w.node(site.Host("left")), w.node(site.Host("right"))}
	w.must(w.lab.Ready(t.Context()))
	for _, n := range nodes {
		w.must(n.UpWithInput(strings.NewReader(invite+"\n"), "--join", "-"))
	}
	w.all(nodes, func(n *lab.Node) error { return n.Ready(w.within(20 * time.Second)) })
	w.waitPeers(home, nodes[0], nodes[1])
	w.pingAll(5, home, nodes[0], nodes[1])
}
