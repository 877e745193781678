//go:build linux

package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"meshd/integration/lab"
)

// Where UDP is blocked: a node connects over TLS, through a proxy or over ssh, each time with the real tools.

// connectLimit is how long a node may take to be connected there.
const connectLimit = 5 * time.Second

// joined starts a node that joins by an invite, and holds it to the limit.
func (w *world) joined(n *lab.Node, invite string, args ...string) {
	w.Helper()
	w.must(w.lab.Ready(w.within(10 * time.Second)))
	start := time.Now()
	w.must(n.UpWithInput(strings.NewReader(invite+"\n"), append([]string{"--join", "-"}, args...)...))
	w.must(n.Ready(w.within(connectLimit + 10*time.Second)))
	took := time.Since(start)
	w.Logf("%s is ready after %v", n.Host.Name(), took)
	if took > connectLimit {
		w.Errorf("%s is ready after %v, want %v at most", n.Host.Name(), took, connectLimit)
	}
}

// transport is how a node reaches another, by its own word.
func (w *world) transport(n *lab.Node, peer string) string {
	w.Helper()
	for _, p := range w.status(n).Peers {
		if p.Name == peer {
			return p.State + " " + p.Transport
		}
	}
	return "unknown"
}

// connected holds two nodes to a transport, both ways, and to losing nothing.
func (w *world) connected(a, b *lab.Node, want string) {
	w.Helper()
	for _, pair := range [][2]*lab.Node{{a, b}, {b, a}} {
		if got := w.transport(pair[0], pair[1].Host.Name()); got != want {
			w.Errorf("%s reaches %s: %s, want %s", pair[0].Host.Name(), pair[1].Host.Name(), got, want)
		}
	}
	w.pingAll(30, a, b)
}

func TestOverTLS(t *testing.T) {
	t.Run("no UDP", func(t *testing.T) {
		w := newWorld(t)
		home := w.found(w.net.Host("home", lab.HostConfig{}), "--listen-tls", ":443")
		worker := w.node(w.net.Site("office", lab.SiteConfig{NAT: lab.Home, BlockUDP: true}).Host("worker"))
		w.joined(worker, w.invite(home))
		w.connected(home, worker, "direct tcp")
		out, err := worker.Run(w.within(5*time.Second), "status")
		w.must(err)
		if !strings.Contains(out, "nobody is reached by UDP") {
			t.Errorf("status does not tell of UDP: %s", out)
		}
		// Restarted, it finds home again by what it knows of it.
		w.must(worker.Terminate())
		start := time.Now()
		w.must(worker.Up("--resume"))
		w.must(worker.Ready(w.within(10 * time.Second)))
		w.reached(connectLimit-time.Since(start), worker, w.addr(home))
		w.connected(home, worker, "direct tcp")
	})
	t.Run("approval", func(t *testing.T) {
		w := newWorld(t)
		home := w.found(w.net.Host("home", lab.HostConfig{}), "--listen-tls", ":443")
		office := w.net.Site("office", lab.SiteConfig{NAT: lab.Home, BlockUDP: true})
		worker := w.joinByApproval(office.Host("worker"), home)
		w.connected(home, worker, "direct tcp")
	})
	t.Run("only TCP to another port", func(t *testing.T) {
		w := newWorld(t)
		home := w.found(w.net.Host("home", lab.HostConfig{V4: true}), "--listen-tls", ":8443")
		office := w.net.Site("office", lab.SiteConfig{NAT: lab.Symmetric, OnlyTCP: 8443})
		worker := w.joinByApprovalAt(office.Host("worker"), home, "home.example:8443")
		w.connected(home, worker, "direct tcp")
	})
}

// Two who both have no UDP reach each other through a member that takes streams.
func TestNoUDPOnBothSides(t *testing.T) {
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{}), "--listen-tls", ":443")
	invite := w.invite(home, "--uses", "2")
	nodes := make([]*lab.Node, 2)
	for i := range nodes {
		site := w.net.Site("office"+strconv.Itoa(i), lab.SiteConfig{NAT: lab.Home, OnlyTCP: 443})
		nodes[i] = w.node(site.Host("worker" + strconv.Itoa(i)))
		w.joined(nodes[i], invite)
	}
	start := time.Now()
	w.reached(connectLimit, nodes[0], w.addr(nodes[1]))
	t.Logf("worker0 reaches worker1 after %v", time.Since(start))
	for i, n := range nodes {
		w.connected(home, n, "direct tcp")
		if got := w.transport(n, "worker"+strconv.Itoa(1-i)); !strings.HasPrefix(got, "relayed") {
			t.Errorf("%s reaches the other: %s", n.Host.Name(), got)
		}
	}
	w.pingAll(30, nodes...)
}

// serve runs a server on a host until the test ends, and waits until it listens on a port.
func (w *world) serve(h *lab.Host, port int, name string, args ...string) {
	w.Helper()
	w.must(w.lab.Ready(w.within(10 * time.Second)))
	cmd := h.Command(w.Context(), name, args...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.WaitDelay = time.Second // what it has started may hold them
	w.must(cmd.Start())
	w.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if w.Failed() {
			w.Logf("%s: %s", name, log.String())
		}
	})
	w.eventually(10*time.Second, name+" listens", func() error {
		out, err := h.Command(w.Context(), "ss", "-Hltn", "sport = :"+strconv.Itoa(port)).CombinedOutput()
		if err == nil && len(out) == 0 {
			err = errors.New("it does not")
		}
		return err
	})
}

// Where only a proxy leads out, which knows the names and the office does not.
func TestThroughProxy(t *testing.T) {
	proxies := []struct {
		name, url string
		port      int
		start     func(w *world, h *lab.Host)
	}{
		{"http", "HTTPS_PROXY=http://worker:s3cret@%s:8888", 8888, func(w *world, h *lab.Host) {
			config := filepath.Join(w.TempDir(), "tinyproxy.conf")
			w.must(os.WriteFile(config, []byte("Port 8888\nTimeout 600\nMaxClients 20\nConnectPort 443\nBasicAuth worker s3cret\nLogLevel Info\n"), 0o644))
			w.serve(h, 8888, "tinyproxy", "-d", "-c", config)
		}},
		{"socks5", "ALL_PROXY=socks5://worker:s3cret@%s:1080", 1080, func(w *world, h *lab.Host) {
			w.serve(h, 1080, "microsocks", "-p", "1080", "-u", "worker", "-P", "s3cret")
		}},
	}
	for _, p := range proxies {
		t.Run(p.name, func(t *testing.T) {
			w := newWorld(t)
			home := w.found(w.net.Host("home", lab.HostConfig{V4: true}), "--listen-tls", ":443")
			proxy := w.net.Host("proxy", lab.HostConfig{V4: true})
			p.start(w, proxy)
			office := w.net.Site("office", lab.SiteConfig{NAT: lab.Home, OnlyTCP: uint16(p.port)})
			worker := w.node(office.Host("worker"))
			worker.Env = []string{fmt.Sprintf(p.url, proxy.Addr4())}
			w.joined(worker, w.invite(home))
			w.connected(home, worker, "direct tcp")
			if out := worker.Output(); strings.Contains(out, "s3cret") {
				t.Errorf("the proxy's password is shown: %s", out)
			}
		})
	}
}

// sshd runs a server for root's logins, in which `meshd stdio` finds a node, and returns the folder in which a client
// finds an ssh that logs in there without asking.
func (w *world) sshd(n *lab.Node, port int) (bin string) {
	w.Helper()
	dir := w.TempDir()
	key, hostKey := filepath.Join(dir, "key"), filepath.Join(dir, "host")
	for _, file := range []string{key, hostKey} {
		out, err := n.Host.Command(w.within(10*time.Second), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput()
		if err != nil {
			w.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	config := filepath.Join(dir, "config")
	w.must(os.WriteFile(config, fmt.Appendf(nil,
		"Port %d\nHostKey %s\nAuthorizedKeysFile %s.pub\nStrictModes no\nUsePAM no\nPidFile none\nSetEnv PATH=%s:/usr/bin:/bin MESHD_STATE=%s\n",
		port, hostKey, key, filepath.Dir(n.Binary), n.State), 0o600))
	w.serve(n.Host, port, "sh", "-c", "mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -f "+config)
	script := "#!/bin/sh\nexec /usr/bin/ssh -F none -i " + key + " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \"$@\"\n"
	bin = filepath.Join(dir, "bin")
	w.must(os.Mkdir(bin, 0o755))
	w.must(os.WriteFile(filepath.Join(bin, "ssh"), []byte(script), 0o755))
	return bin
}

// Whoever has nothing but an ssh login joins by it, by approval and by invite; the login that breaks is made anew; and
// others reach such a node through the one that it has logged in to.
func TestOverSSH(t *testing.T) {
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{V4: true}))
	friend := w.join(w.net.Host("friend", lab.HostConfig{}), w.invite(home))
	bin := w.sshd(home, 22)
	office := w.net.Site("office", lab.SiteConfig{NAT: lab.Home, OnlyTCP: 22})

	worker := w.node(office.Host("worker"))
	worker.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
	w.must(w.lab.Ready(w.within(10 * time.Second)))
	w.must(worker.Up("--join", "ssh://root@home.example"))
	start := time.Now()
	words := w.words(worker, home)
	t.Logf("the words are shown after %v", time.Since(start))
	_, err := home.Run(w.within(10*time.Second), append([]string{"approve"}, strings.Fields(words)...)...)
	w.must(err)
	start = time.Now()
	w.must(worker.Ready(w.within(10 * time.Second)))
	t.Logf("ready %v after the approval", time.Since(start))
	w.connected(home, worker, "direct ssh")

	w.breakLogins(worker)
	w.reached(connectLimit, worker, w.addr(home))
	w.connected(home, worker, "direct ssh")

	guest := w.node(office.Host("guest"))
	guest.Env = worker.Env
	w.joined(guest, w.invite(home), "--join", "ssh://root@home.example:22")
	w.connected(home, guest, "direct ssh")

	w.reached(connectLimit, friend, w.addr(worker))
	if got := w.transport(friend, "worker"); !strings.HasPrefix(got, "relayed") {
		t.Errorf("friend reaches worker: %s", got)
	}

	// The end of the node is the end of its ssh.
	w.must(worker.Interrupt())
	w.must(guest.Interrupt())
	w.eventually(5*time.Second, "no login is left", func() error { return w.logins(home.Host) })
}

// breakLogins kills the ssh clients of a node.
func (w *world) breakLogins(n *lab.Node) {
	w.Helper()
	killed := 0
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", n.PID()))
	w.must(err)
	for _, list := range lists {
		children, _ := os.ReadFile(list) // threads end
		for field := range strings.FieldsSeq(string(children)) {
			pid, err := strconv.Atoi(field)
			w.must(err)
			if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); strings.TrimSpace(string(name)) == "ssh" {
				w.must(syscall.Kill(pid, syscall.SIGKILL))
				killed++
			}
		}
	}
	if killed == 0 {
		w.Fatalf("%s runs no ssh", n.Host.Name())
	}
}

// logins fails while somebody is logged in by ssh.
func (w *world) logins(h *lab.Host) error {
	out, err := h.Command(w.within(5*time.Second), "ss", "-Htn", "state", "established", "sport", "=", ":22").CombinedOutput()
	if err == nil && len(out) > 0 {
		err = fmt.Errorf("%s", out)
	}
	return err
}

// What --join ssh:// says when it does not work: why, in one line.
func TestSSHRefused(t *testing.T) {
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{V4: true}))
	bin := w.sshd(home, 22)
	client := w.net.Host("client", lab.HostConfig{V4: true})
	w.must(w.lab.Ready(w.within(10 * time.Second)))
	for _, test := range []struct{ name, join, path, want string }{
		{"nobody listens", "ssh://root@home.example:2222", bin, "Connection refused"},
		{"no key", "ssh://nobody@home.example", bin, "Permission denied"},
		{"no ssh", "ssh://root@home.example", "", "executable file not found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := w.under(t)
			n := lab.NewNode(client, w.bin, filepath.Join(w.TempDir(), "state"))
			n.Env = []string{"PATH=" + test.path}
			if test.path != "" {
				n.Env[0] += ":/usr/bin:/bin"
			}
			start := time.Now()
			w.must(n.Up("--join", test.join))
			code, err := n.Wait(w.within(15 * time.Second))
			w.must(err)
			out := strings.TrimSpace(n.Output())
			last := out[strings.LastIndexByte(out, '\n')+1:]
			if code != 1 || !strings.Contains(last, test.want) {
				t.Errorf("exit status %d, %q, want 1 and %q", code, last, test.want)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// A prober sees a web server that has nothing for it: TLS 1.3, a certificate that names nobody, and a refusal.
func TestProberSeesWebServer(t *testing.T) {
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{V4: true}), "--listen-tls", ":443", "--name", "secretname")
	prober := w.net.Host("prober", lab.HostConfig{V4: true})
	w.must(w.lab.Ready(w.within(10 * time.Second)))
	at := netip.AddrPortFrom(home.Host.Addr4(), 443).String()
	probe := func(input string, args ...string) string {
		t.Helper()
		cmd := prober.Command(w.within(10*time.Second), "openssl", append([]string{"s_client", "-connect", at}, args...)...)
		cmd.Stdin = strings.NewReader(input)
		out, _ := cmd.CombinedOutput() // its status says that the certificate is its own signer's
		return string(out)
	}
	out := probe("GET / HTTP/1.1\r\nHost: home.example\r\nConnection: close\r\n\r\n", "-servername", "home.example", "-ign_eof", "-showcerts", "-alpn", "h2,http/1.1")
	for _, want := range []string{"TLSv1.3", "HTTP/1.1 403 Forbidden", "ALPN protocol: http/1.1"} {
		if !strings.Contains(out, want) {
			t.Errorf("openssl does not see %q:\n%s", want, out)
		}
	}
	for _, secret := range []string{"secretname", "mesh.internal", w.status(home).Network.ID, w.status(home).Self.ID} {
		if strings.Contains(out, secret) {
			t.Errorf("openssl sees %q:\n%s", secret, out)
		}
	}
	if out := probe("", "-tls1_2"); !strings.Contains(out, "alert") {
		t.Errorf("TLS 1.2 is not refused:\n%s", out)
	}
	browser := probe("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "-sigalgs", "ECDSA+SHA256:RSA-PSS+SHA256", "-ign_eof")
	if !strings.Contains(browser, "403 Forbidden") {
		t.Errorf("who does not know Ed25519 gets no answer:\n%s", browser)
	}
}
