package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// TestStore runs the same on the real disk and on the one that the other tests use.
func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	memory := newMemDisk()
	for name, open := range map[string]func() (*Store, error){
		"real":   func() (*Store, error) { return Open(dir) },
		"memory": func() (*Store, error) { return openOn(memory) },
	} {
		t.Run(name, func(t *testing.T) { testStore(t, open) })
	}
}

func testStore(t *testing.T, open func() (*Store, error)) {
	s := must(open())(t)
	reopen := func() {
		t.Helper()
		if s.lock != nil {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		s = must(open())(t)
	}
	if _, err := s.Load("network"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("before the first save: %v", err)
	}
	if entries, err := s.ReadLog("log"); err != nil || entries != nil {
		t.Fatalf("before the first entry: %v, %v", entries, err)
	}
	for n := range 5 {
		body := bytes.Repeat([]byte{byte(n)}, n*1000)
		if err := s.Save("network", body); err != nil {
			t.Fatal(err)
		}
		if err := s.Append("log", body); err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 {
			reopen()
		}
		if got := must(s.Load("network"))(t); !bytes.Equal(got, body) {
			t.Fatalf("load gives %d bytes", len(got))
		}
		entries := must(s.ReadLog("log"))(t)
		if len(entries) != n+1 || !bytes.Equal(entries[n], body) {
			t.Fatalf("%d entries", len(entries))
		}
		if epoch := must(s.NextEpoch())(t); epoch != uint32(n+1) {
			t.Fatalf("epoch %d", epoch)
		}
	}
	first := must(s.LoadOrCreateIdentity())(t)
	reopen()
	if again := must(s.LoadOrCreateIdentity())(t); again.Public() != first.Public() {
		t.Error("another identity after a restart")
	}
	for _, bad := range []string{"", "A", "../x", "a.b", "a/b", "-"} {
		if err := errors.Join(s.Save(bad, nil)); err == nil {
			t.Errorf("saved under %q", bad)
		}
		if _, err := s.Load(bad); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("loaded %q: %v", bad, err)
		}
		if err := s.Append(bad, nil); err == nil {
			t.Errorf("logged to %q", bad)
		}
	}
	if err := s.Append("log", make([]byte, maxEntry+1)); err == nil {
		t.Error("took an entry that is too long")
	}
	if damaged := must(s.Damaged())(t); len(damaged) != 0 {
		t.Errorf("damaged: %v", damaged)
	}
}

func TestStoreIsSafeForConcurrentUse(t *testing.T) {
	s := must(Open(filepath.Join(t.TempDir(), "state")))(t)
	defer s.Close()
	epochs := make(chan uint32, 40)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for range 5 {
				epoch, err := s.NextEpoch()
				if err = errors.Join(err, s.Save("a", []byte{byte(n)}), s.Append("log", []byte{byte(n)})); err != nil {
					t.Error(err)
				}
				epochs <- epoch
			}
		})
	}
	wg.Wait()
	close(epochs)
	seen := map[uint32]bool{}
	for epoch := range epochs {
		if seen[epoch] {
			t.Errorf("epoch %d twice", epoch)
		}
		seen[epoch] = true
	}
	if entries := must(s.ReadLog("log"))(t); len(entries) != 40 {
		t.Errorf("%d entries", len(entries))
	}
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := must(Open(dir))(t)
	_, err := Open(dir)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("second open: %v", err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := s.Save("a", nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("save after close: %v", err)
	}
	s = must(Open(dir))(t)
	if s.Dir() != dir {
		t.Errorf("dir is %s", s.Dir())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestLockEndsWithItsProcess holds the lock in another process and kills it.
func TestLockEndsWithItsProcess(t *testing.T) {
	if dir := os.Getenv("MESHD_TEST_HOLD_LOCK"); dir != "" {
		must(Open(dir))(t)
		fmt.Println("locked")
		select {}
	}
	dir := filepath.Join(t.TempDir(), "state")
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockEndsWithItsProcess$")
	cmd.Env = append(os.Environ(), "MESHD_TEST_HOLD_LOCK="+dir)
	out := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", cmd.Process.Pid)) {
		t.Errorf("while the other lives: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	s := must(Open(dir))(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPermissions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no mode bits on Windows")
	}
	dir := filepath.Join(t.TempDir(), "deep", "state")
	s := must(Open(dir))(t)
	if err := errors.Join(s.Save("a", []byte("x")), s.Append("log", nil), s.Close()); err != nil {
		t.Fatal(err)
	}
	if info := must(os.Stat(dir))(t); info.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %o", info.Mode().Perm())
	}
	for _, entry := range must(os.ReadDir(dir))(t) {
		if info := must(entry.Info())(t); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", entry.Name(), info.Mode().Perm())
		}
	}
	for _, tt := range []struct {
		path, remedy string
		wide, right  fs.FileMode
	}{
		{dir, "chmod 700 " + dir, 0o755, 0o700},
		{dir, "chmod 700 " + dir, 0o710, 0o700},
		{filepath.Join(dir, "a.a"), "chmod 600 " + dir + "/*", 0o640, 0o600},
		{filepath.Join(dir, "log.log"), "chmod 600 " + dir + "/*", 0o604, 0o600},
	} {
		if err := os.Chmod(tt.path, tt.wide); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), tt.remedy) || strings.Contains(err.Error(), "\n") {
			t.Errorf("mode %o of %s: %v", tt.wide, tt.path, err)
		}
		if err := os.Chmod(tt.path, tt.right); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "meshd.sock"), nil, 0o666); err != nil { // another's file is another's matter
		t.Fatal(err)
	}
	s = must(Open(dir))(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Log("not root: another user's directory is not tried")
		return
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("another user's directory: %v", err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "choose a directory") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestRemove(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := must(Open(dir))(t)
	if err := errors.Join(s.Save("a", nil), s.Save("a", nil), s.Append("log", nil)); err != nil {
		t.Fatal(err)
	}
	must(s.LoadOrCreateIdentity())(t)
	if err := os.WriteFile(filepath.Join(dir, "b.tmp"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory stays: %v", err)
	}
	s = must(Open(dir))(t)
	if err := os.WriteFile(filepath.Join(dir, "mine.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(); err != nil {
		t.Fatal(err)
	}
	if entries := must(os.ReadDir(dir))(t); len(entries) != 1 || entries[0].Name() != "mine.txt" {
		t.Errorf("left: %v", entries)
	}
}

// TestDiscard: of a start that came to nothing nothing is left, and folders that were there before stay.
func TestDiscard(t *testing.T) {
	top := t.TempDir()
	for _, c := range []struct {
		name  string
		there string // made before
	}{{"all folders are new", ""}, {"one is not", "a"}, {"none is", "a/b"}} {
		t.Run(c.name, func(t *testing.T) {
			parent := must(os.MkdirTemp(top, "*"))(t)
			if err := os.MkdirAll(filepath.Join(parent, c.there), 0o700); err != nil {
				t.Fatal(err)
			}
			s := must(Open(filepath.Join(parent, "a", "b")))(t)
			if !s.Fresh() {
				t.Error("it is said to hold state")
			}
			must(s.LoadOrCreateIdentity())(t)
			if err := s.Discard(); err != nil {
				t.Fatal(err)
			}
			var left []string
			err := filepath.WalkDir(parent, func(path string, _ fs.DirEntry, err error) error {
				if name := strings.TrimPrefix(path, parent); name != "" {
					left = append(left, name[1:])
				}
				return err
			})
			if got := strings.Join(left, " "); err != nil || len(left) > 0 && left[len(left)-1] != c.there || got == "" && c.there != "" {
				t.Errorf("left: %q, %v", got, err)
			}
		})
	}
	dir := filepath.Join(top, "state")
	s := must(Open(dir))(t)
	must(s.LoadOrCreateIdentity())(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s = must(Open(dir))(t); s.Fresh() {
		t.Error("a folder with an identity is said to hold no state")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestIdentitySurvivesDamage damages either copy of what is written only once.
func TestIdentitySurvivesDamage(t *testing.T) {
	for _, file := range []string{"identity.a", "identity.b"} {
		d := newMemDisk()
		first := must(must(openOn(d))(t).LoadOrCreateIdentity())(t)
		for range 2 {
			d.live[file].data[70] ^= 4
			s := must(openOn(d))(t)
			if again := must(s.LoadOrCreateIdentity())(t); again.Public() != first.Public() {
				t.Errorf("%s: another identity", file)
			}
			if damaged := must(s.Damaged())(t); len(damaged) != 0 {
				t.Errorf("%s: not mended: %v", file, damaged)
			}
		}
	}
	d := newMemDisk()
	must(must(openOn(d))(t).LoadOrCreateIdentity())(t)
	d.live["identity.a"].data, d.live["identity.b"].data = nil, nil
	if _, err := must(openOn(d))(t).LoadOrCreateIdentity(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("makes a new identity over a damaged one: %v", err)
	}
}
