//go:build unix

package plug

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"meshd/l2/offload"
)

const patience = 10 * time.Second

func listen(t *testing.T, text string) Listener {
	t.Helper()
	s, err := ParseSpec(text)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accept(t *testing.T, l Listener) *Cable {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// busy is a listener of a process that has no descriptors left for a while.
type busy struct {
	*net.UnixListener
	fails int
}

func (b *busy) AcceptUnix() (*net.UnixConn, error) {
	if b.fails--; b.fails >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return b.UnixListener.AcceptUnix()
}

func TestAcceptFails(t *testing.T) {
	l, err := listenUnix(context.Background(), filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	b := &busy{l, 3}
	conn, err := acceptFrom(b)
	if err != nil {
		t.Fatalf("after failures that pass: %v", err)
	}
	conn.Close()
	l.Close()
	if _, err := acceptFrom(b); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// receives waits for one frame on a cable.
func receives(t *testing.T, c *Cable, want []byte) {
	t.Helper()
	got := make(chan error, 1)
	go func() {
		frames := make([]offload.Frame, 8)
		n, err := c.Read(frames)
		if err == nil && (n != 1 || !bytes.Equal(frames[0].Data, want)) {
			err = errors.New("not the frame that was sent")
		}
		got <- err
	}()
	select {
	case err := <-got:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("no frame")
	}
}

func sends(t *testing.T, c *Cable, frame []byte) {
	t.Helper()
	if err := c.Write([]offload.Frame{{Data: frame}}); err != nil {
		t.Fatal(err)
	}
}

func TestStreamPlug(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := listen(t, "stream:"+path)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := accept(t, l)
	if _, err := conn.Write(framed(framingQEMU, frameOf(60))); err != nil {
		t.Fatal(err)
	}
	receives(t, c, frameOf(60))
	sends(t, c, frameOf(1514))
	got := make([]byte, 4+1514)
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, framed(framingQEMU, frameOf(1514))) {
		t.Errorf("received %d bytes, %v", len(got), err)
	}
	conn.Close()
	if _, err := c.Read(make([]offload.Frame, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("unplugged: %v", err)
	}
}

func TestDgramPlug(t *testing.T) {
	dir := t.TempDir()
	l := listen(t, "dgram:"+dir+"/s")
	c := accept(t, l)
	sends(t, c, frameOf(60)) // nobody is there yet
	if c.Dropped() != 1 {
		t.Errorf("%d dropped", c.Dropped())
	}
	for _, own := range []string{dir + "/vm", dir + "/vm-restarted"} {
		conn, err := net.DialUnix("unixgram", &net.UnixAddr{Net: "unixgram", Name: own}, &net.UnixAddr{Net: "unixgram", Name: dir + "/s"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(frameOf(60)); err != nil {
			t.Fatal(err)
		}
		receives(t, c, frameOf(60))
		sends(t, c, frameOf(1514))
		got := make([]byte, 2000)
		if n, err := conn.Read(got); err != nil || !bytes.Equal(got[:n], frameOf(1514)) {
			t.Errorf("received %d bytes, %v", n, err)
		}
	}
	// One that does not read holds nobody up: its queue is short.
	for range 5000 {
		sends(t, c, frameOf(1514))
	}
	if c.Dropped() < 1000 {
		t.Errorf("%d dropped", c.Dropped())
	}
	if _, err := os.Stat(dir + "/s"); err != nil {
		t.Error(err)
	}
	c.Close()
	if _, err := os.Stat(dir + "/s"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestVDEPlug plugs in vde2's own vde_plug.
func TestVDEPlug(t *testing.T) {
	program, err := exec.LookPath("vde_plug")
	if err != nil {
		if os.Geteuid() == 0 {
			t.Fatal("Debian package vde2 is missing: make deps installs it")
		}
		t.Skip("needs vde_plug (Debian package vde2)")
	}
	dir := filepath.Join(t.TempDir(), "ctl")
	l := listen(t, "vde:"+dir)
	cmd := exec.Command(program, "vde://"+dir)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = cmd.Wait() }()
	c := accept(t, l)
	if _, err := in.Write(framed(framingVDE, frameOf(60))); err != nil {
		t.Fatal(err)
	}
	receives(t, c, frameOf(60))
	sends(t, c, frameOf(1514))
	got := make([]byte, 2+1514)
	if _, err := io.ReadFull(out, got); err != nil || !bytes.Equal(got, framed(framingVDE, frameOf(1514))) {
		t.Errorf("received %v", err)
	}
	in.Close()
	if _, err := c.Read(make([]offload.Frame, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("unplugged: %v", err)
	}
	c.Close()
	l.Close()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestVDERefusesOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ctl")
	listen(t, "vde:"+dir)
	for name, said := range map[string][]byte{"nonsense": []byte("hello"), "nobody's socket": request("/nonexistent/s")} {
		conn, err := net.Dial("unix", ctlPath(dir))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(said); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if n, err := conn.Read(make([]byte, 200)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: answered %d bytes, %v", name, n, err)
		}
		conn.Close()
	}
}

func TestSocketFiles(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"stream:" + dir + "/s", "dgram:" + dir + "/d", "vde:" + dir + "/v"} {
		l := listen(t, text)
		spec, _ := ParseSpec(text)
		path := spec.Path
		if spec.Kind == "vde" {
			path = ctlPath(path)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", text, info.Mode(), err)
		}
		if _, err := Listen(context.Background(), spec); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s, a second time: %v", text, err)
		}
		l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s, closed: %v", text, err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: left its socket: %v", text, err)
		}
	}
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(context.Background(), Spec{"stream", dir + "/file"}); err == nil {
		t.Error("took the place of a file")
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: dir + "/dead"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	listen(t, "stream:"+dir+"/dead")
}
