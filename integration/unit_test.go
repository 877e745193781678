//go:build linux

package integration

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshd/integration/lab"
)

// asUnit starts a program with what packaging/meshd.service leaves it of rights: a user who owns nothing, and one capability. The TUN
// device is everybody's, as udev has it.
var asUnit = []string{
	"unshare", "--mount", "sh", "-c", `mount -t tmpfs -o mode=755 none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec "$0" "$@"`,
	"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs",
	"--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin",
}

// TestRightsOfUnit: a node that was founded by hand, as root, goes on with the rights of the systemd unit and no others. It says so to
// systemd, carries frames, keeps its addresses through a restart, and leaves nothing behind when it is told to go down.
func TestRightsOfUnit(t *testing.T) {
	t.Parallel()
	if os.Getenv("LAB_USERNS") != "" {
		t.Skip("needs a second user")
	}
	w := newWorld(t)
	for _, dir := range []string{filepath.Dir(w.dir), w.dir} { // that user finds program and state
		w.must(os.Chmod(dir, 0o755))
	}
	program := filepath.Join(w.dir, "meshd")
	w.must(copyFile(program, w.bin))
	host := w.net.Host("home", lab.HostConfig{V4: true, V6: true})
	settings := w.settings(host)
	home := w.found(host)
	office := w.join(w.net.Host("office", lab.HostConfig{V4: true, V6: true}), w.invite(home))
	w.waitPeers(home, office)
	before := w.addr(home)
	_, err := home.Run(w.within(10*time.Second), "down")
	w.must(err)
	w.must(filepath.WalkDir(home.State, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, 65534, 65534)
	}))
	path := filepath.Join(home.State, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	w.must(err)
	defer conn.Close()
	w.must(os.Chmod(path, 0o666))
	said := func(want string) {
		t.Helper()
		w.must(conn.SetReadDeadline(time.Now().Add(20 * time.Second)))
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			w.must(err)
			if strings.HasPrefix(string(buf[:n]), want) {
				return
			}
		}
	}
	home.Binary, home.Starts, home.Env = program, asUnit, append(home.Env, "NOTIFY_SOCKET="+path)
	for range 2 { // the second time there is a TAP already
		w.must(home.Up("--resume"))
		w.must(home.Ready(w.within(20 * time.Second)))
		said("READY=1")
		w.must(hasRights(home.PID()))
		w.waitPeers(home, office)
		if now := w.addr(home); now != before {
			t.Errorf("the address is %v, and was %v", now, before)
		}
		w.pingAll(20, home, office)
		w.must(home.Terminate())
		said("STOPPING=1")
	}
	w.must(home.Up("--resume"))
	w.must(home.Ready(w.within(20 * time.Second)))
	_, err = home.Run(w.within(10*time.Second), "down")
	w.must(err)
	if diff := cmp.Diff(settings, w.settings(host)); diff != "" {
		t.Errorf("after down:\n%s", diff)
	}
}

// hasRights fails unless a process has the one right of the unit, for good.
func hasRights(pid int) error {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	const netAdmin = "0000000000001000"
	for _, want := range []string{
		"Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "NoNewPrivs:\t1",
		"CapPrm:\t" + netAdmin, "CapEff:\t" + netAdmin, "CapBnd:\t" + netAdmin,
	} {
		if !bytes.Contains(status, []byte(want+"\n")) {
			return fmt.Errorf("the process lacks %q:\n%s", want, status)
		}
	}
	return nil
}
