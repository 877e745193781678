//go:build linux

package integration

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"

	"meshd/integration/lab"
)

// TestWireGuardTools reads a running node with wg and with wgctrl.
func TestWireGuardTools(t *testing.T) {
	if os.Getenv("INTEGRATION_WGCTRL") != "" { // on the host: see below
		client, err := wgctrl.New()
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		device, err := client.Device("mesh0")
		if err != nil {
			t.Fatal(err)
		}
		if len(device.Peers) != 2 || device.ListenPort != 51830 {
			t.Errorf("port %d, %d peers: want 51830 and 2", device.ListenPort, len(device.Peers))
		}
		for _, p := range device.Peers {
			if p.LastHandshakeTime.IsZero() || p.Endpoint == nil || p.ReceiveBytes == 0 {
				t.Errorf("no handshake, endpoint or bytes: %+v", p)
			}
		}
		return
	}
	w := newWorld(t)
	home, laptop, office := w.threeSites(lab.HostConfig{})
	w.pingAll(5, home, laptop, office)
	if _, err := exec.LookPath("wg"); err != nil {
		t.Error("needs wg: apt-get install wireguard-tools")
	} else {
		out, err := home.Host.Command(w.within(10*time.Second), "wg", "show", "mesh0").CombinedOutput()
		if err != nil || strings.Count(string(out), "latest handshake") != 2 {
			t.Errorf("wg show: %v\n%s", err, out)
		}
	}
	self := home.Host.Command(w.within(30*time.Second), "/proc/self/exe", "-test.run=^TestWireGuardTools$", "-test.v")
	self.Env = append(os.Environ(), "INTEGRATION_WGCTRL=1")
	if out, err := self.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestWireGuardTools")) {
		t.Errorf("wgctrl: %v\n%s", err, out)
	}
}

// TestCertificates lets openssl read every certificate in a member's state.
func TestCertificates(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs openssl: apt-get install openssl")
	}
	w := newWorld(t)
	home := w.found(w.net.Host("home", lab.HostConfig{}))
	laptop := w.join(w.net.Host("laptop", lab.HostConfig{}), w.invite(home))
	found := 0
	for _, n := range []*lab.Node{home, laptop} {
		for path, der := range w.certificates(n.State) {
			cmd := exec.CommandContext(w.within(10*time.Second), "openssl", "x509", "-inform", "DER", "-noout", "-text")
			cmd.Stdin = bytes.NewReader(der)
			out, err := cmd.CombinedOutput()
			if err != nil || !bytes.Contains(bytes.ToLower(out), []byte("ed25519")) {
				t.Errorf("%s: openssl: %v\n%s", path, err, out)
			}
			found++
		}
	}
	if found < 3 { // the founder's signer and node, the laptop's node
		t.Errorf("%d certificates in two members' state", found)
	}
}

// certificates finds X.509 in files of whatever format, by its ASN.1.
func (w *world) certificates(dir string) map[string][]byte {
	w.Helper()
	found := make(map[string][]byte)
	w.must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := 0; i+4 < len(data); i++ {
			if data[i] != 0x30 || data[i+1] != 0x82 {
				continue
			}
			end := i + 4 + int(data[i+2])<<8 + int(data[i+3])
			if end > len(data) {
				continue
			}
			if _, err := x509.ParseCertificate(data[i:end]); err == nil {
				found[fmt.Sprintf("%s@%d", path, i)] = data[i:end]
				i = end - 1
			}
		}
		return nil
	}))
	return found
}

// TestNothingInClear captures the underlay while members join, gossip and talk, and looks for what must be hidden.
func TestNothingInClear(t *testing.T) {
	w := newWorld(t)
	hosts := []*lab.Host{w.net.Host("grandma-home", lab.HostConfig{}), w.net.Host("secret-laptop", lab.HostConfig{}), w.net.Host("hidden-office", lab.HostConfig{})}
	var captures []*lab.Capture
	for _, h := range hosts {
		c, err := h.Capture("eth0")
		w.must(err)
		captures = append(captures, c)
	}
	home := w.found(hosts[0])
	laptop := w.join(hosts[1], w.invite(home))
	office := w.joinByApprovalAt(hosts[2], home, home.Host.Addr4().String())
	nodes := []*lab.Node{home, laptop, office}
	w.waitPeers(nodes...)
	w.pingAll(20, nodes...)
	payload := []byte("a payload that nobody may read")
	w.must(home.Host.SendFrame("mesh0", ethernet(w.mac(laptop), w.mac(home), append([]byte{0x88, 0xb5}, payload...))))
	inner, err := laptop.Host.Capture("mesh0")
	w.must(err)
	w.must(home.Host.SendFrame("mesh0", ethernet(w.mac(laptop), w.mac(home), append([]byte{0x88, 0xb5}, payload...))))
	_, err = inner.Wait(w.within(5*time.Second), func(f lab.Frame) bool { return bytes.Contains(f.Data, payload) })
	w.must(err)

	secrets := map[string][]byte{"payload": payload}
	for _, n := range nodes {
		s := w.status(n)
		mac, err := net.ParseMAC(s.Self.MAC)
		w.must(err)
		secrets["name "+s.Self.Name] = []byte(s.Self.Name)
		secrets["MAC "+s.Self.MAC] = mac
		secrets["MAC in text "+s.Self.MAC] = []byte(s.Self.MAC)
		for _, a := range s.Self.Addresses {
			// Its last eight bytes are the node's own; the first ones are every member's.
			secrets["address "+a.String()] = a.AsSlice()[8:]
			secrets["address in text "+a.String()] = []byte(a.String())
		}
		prefix := s.Network.Prefixes[0].Addr().AsSlice()[:6]
		secrets["prefix"] = prefix
	}
	for i, c := range captures {
		if n := len(c.Frames()); n < 100 || c.Lost() > 0 {
			t.Errorf("%d frames captured at %s, %d lost", n, hosts[i].Name(), c.Lost())
		}
		for what, secret := range secrets {
			if f, found := c.Find(secret); found {
				t.Errorf("%s is in clear in a packet at %s: %x", what, hosts[i].Name(), f.Data)
			}
		}
	}
}
