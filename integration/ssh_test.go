//go:build linux

package integration

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"meshd/integration/lab"
)

// login is a shell on another node, by ssh across the mesh.
type login struct {
	w     *world
	in    io.WriteCloser
	lines chan string
	count int
}

// ssh logs in from one node to another.
func (w *world) ssh(from, to *lab.Node) *login {
	w.Helper()
	dir := w.TempDir()
	key, hostKey := filepath.Join(dir, "key"), filepath.Join(dir, "host")
	for _, file := range []string{key, hostKey} {
		out, err := to.Host.Command(w.within(10*time.Second), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput()
		if err != nil {
			w.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	config := filepath.Join(dir, "config")
	w.must(os.WriteFile(config, []byte(fmt.Sprintf("ListenAddress [%v]:22\nHostKey %s\nAuthorizedKeysFile %s.pub\nStrictModes no\nUsePAM no\nPidFile none\n",
		w.addr(to), hostKey, key)), 0o600))
	server := to.Host.Command(w.Context(), "sh", "-c", "mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -f "+config)
	var log strings.Builder
	server.Stderr = &log
	w.must(server.Start())
	w.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if w.Failed() {
			w.Logf("sshd: %s", log.String())
		}
	})
	l := &login{w: w, lines: make(chan string, 100)}
	w.eventually(10*time.Second, "sshd listens", func() error {
		out, err := to.Host.Command(w.Context(), "sh", "-c", "ss -Hltn sport = :22").CombinedOutput()
		if err != nil || len(out) == 0 {
			return fmt.Errorf("%w %s", err, out)
		}
		return nil
	})
	client := from.Host.Command(w.Context(), "ssh", "-T", "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "LogLevel=ERROR", "-F", "none", "root@"+w.addr(to).String(), "cat")
	client.Stderr = &log
	in, err := client.StdinPipe()
	w.must(err)
	out, err := client.StdoutPipe()
	w.must(err)
	w.must(client.Start())
	w.Cleanup(func() {
		_ = client.Process.Kill()
		_ = client.Wait()
	})
	l.in = in
	go func() {
		defer close(l.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			l.lines <- s.Text()
		}
	}()
	return l
}

// works sends a line there and waits for it to come back.
func (l *login) works() {
	l.w.Helper()
	l.count++
	want := fmt.Sprint("line ", l.count)
	_, err := fmt.Fprintln(l.in, want)
	l.w.must(err)
	select {
	case got, ok := <-l.lines:
		if !ok || got != want {
			l.w.Fatalf("by ssh came %q, want %q", got, want)
		}
	case <-time.After(15 * time.Second):
		l.w.Fatal("nothing came back by ssh")
	}
}
