package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

var errNoSpace = error(syscall.ENOSPC)

// openOn is Open on an in-memory disk.
func openOn(d disk) (*Store, error) {
	s := &Store{dir: "/state", disk: d, journals: map[string]*journal{}}
	return s, s.recover()
}

// number reads a body that is a number; -1: nothing is there.
func number(t *testing.T, s *Store, name string) int {
	t.Helper()
	b, err := s.Load(name)
	if errors.Is(err, fs.ErrNotExist) {
		return -1
	}
	if err != nil {
		t.Fatalf("load after a crash: %v", err)
	}
	n, err := strconv.Atoi(strings.TrimRight(string(b), " "))
	if err != nil {
		t.Fatalf("load gives %q", b)
	}
	return n
}

// padded is a body long enough to be torn in the middle.
func padded(n int) []byte { return []byte(strconv.Itoa(n) + strings.Repeat(" ", 700)) }

// TestSaveAtEveryCrashPoint crashes, at each change of the disk, a run of saves
// that itself begins after such a crash, and holds: what was saved or read once
// is never older afterwards, and the store always opens and saves again.
func TestSaveAtEveryCrashPoint(t *testing.T) {
	const lives = 4
	for seed := range uint64(120) {
		for crashAt := range 40 {
			r := rand.New(rand.NewPCG(seed, uint64(crashAt)))
			d, known := newMemDisk(), -1
			for life := range lives {
				d.crashAt = crashAt
				if life > 0 {
					d.crashAt = r.IntN(40)
				}
				known = liveOnce(t, d, known)
				if !d.crashed {
					break
				}
				if r.IntN(4) == 0 {
					d = d.kill()
				} else {
					d = d.reboot(r)
				}
			}
			d = d.reboot(r)
			s := must(openOn(d))(t)
			if got := number(t, s, "a"); got < known {
				t.Fatalf("seed %d, crash at %d: %d after %d was known", seed, crashAt, got, known)
			}
			if err := s.Save("a", padded(1000)); err != nil || number(t, s, "a") != 1000 {
				t.Fatalf("seed %d, crash at %d: cannot save again: %v", seed, crashAt, err)
			}
		}
	}
}

// liveOnce opens, reads, and saves counting upwards until the crash. It returns
// the highest value that it was told or told others.
func liveOnce(t *testing.T, d *memDisk, known int) int {
	t.Helper()
	s, err := openOn(d)
	if err != nil {
		if !errors.Is(err, errCrashed) {
			t.Fatalf("open: %v", err)
		}
		return known
	}
	if !d.crashed {
		got := number(t, s, "a")
		if got < known {
			t.Fatalf("%d after %d was known", got, known)
		}
		known = got
	}
	for n := known + 1; n < known+100; n++ {
		if err := s.Save("a", padded(n)); err != nil {
			return n - 1
		}
		if d.ops > 45 {
			return n
		}
	}
	return known + 99
}

// TestEpochNeverComesTwice goes through a thousand crashes.
func TestEpochNeverComesTwice(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	d, last := newMemDisk(), uint32(0)
	for range 1500 {
		d.crashAt, d.ops = r.IntN(12), 0
		s, err := openOn(d)
		for err == nil {
			var epoch uint32
			if epoch, err = s.NextEpoch(); err == nil {
				if epoch <= last {
					t.Fatalf("epoch %d after %d", epoch, last)
				}
				last = epoch
			}
		}
		if !errors.Is(err, errCrashed) {
			t.Fatal(err)
		}
		if r.IntN(5) == 0 {
			d = d.kill()
		} else {
			d = d.reboot(r)
		}
	}
	if last < 250 {
		t.Errorf("only %d epochs: the test crashes too early to mean anything", last)
	}
}

// TestEpochWithADamagedFile damages or removes either file.
func TestEpochWithADamagedFile(t *testing.T) {
	for _, count := range []int{1, 2, 3, 4} {
		for _, file := range []string{"epoch.a", "epoch.b"} {
			for _, harm := range []string{"flip", "remove", "empty"} {
				d := newMemDisk()
				s := must(openOn(d))(t)
				last := uint32(0)
				for range count {
					last = must(s.NextEpoch())(t)
				}
				inode := d.live[file]
				if inode == nil {
					continue
				}
				switch harm {
				case "flip":
					inode.data[generationHeader+3] ^= 1
				case "remove":
					delete(d.live, file)
				case "empty":
					inode.data = nil
				}
				s = must(openOn(d))(t)
				epoch, err := s.NextEpoch()
				switch {
				case harm == "remove" && (count == 1 || count == 2 && file == "epoch.b"): // as if it had never been
				case count == 1:
					if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), file) {
						t.Errorf("%d, %s of %s: %d, %v", count, harm, file, epoch, err)
					}
				case err != nil || epoch <= last:
					t.Errorf("%d, %s of %s: %d after %d, %v", count, harm, file, epoch, last, err)
				}
			}
		}
	}
}

// TestAppendAtEveryCrashPoint holds a log to: what was acknowledged is there, in
// order, and at most one entry more.
func TestAppendAtEveryCrashPoint(t *testing.T) {
	for seed := range uint64(120) {
		for crashAt := range 20 {
			r := rand.New(rand.NewPCG(seed, uint64(crashAt)))
			d := newMemDisk()
			known := 0
			for range 4 {
				d.crashAt = crashAt
				s, err := openOn(d)
				if err == nil {
					known = checkLog(t, s, d, known)
				}
				for err == nil && known < 100 {
					if err = s.Append("log", padded(known)); err == nil {
						known++
					}
				}
				if !errors.Is(err, errCrashed) {
					t.Fatal(err)
				}
				crashAt = r.IntN(20)
				if r.IntN(4) == 0 {
					d = d.kill()
				} else {
					d = d.reboot(r)
				}
			}
			checkLog(t, must(openOn(d))(t), d, known)
		}
	}
}

// checkLog reads a log whose first known entries are certain.
func checkLog(t *testing.T, s *Store, d *memDisk, known int) int {
	t.Helper()
	entries, err := s.ReadLog("log")
	if d.crashed {
		return known
	}
	if err != nil {
		t.Fatalf("read log: %v", err)
	}
	if len(entries) < known || len(entries) > known+1 {
		t.Fatalf("%d entries, %d were acknowledged", len(entries), known)
	}
	for n, entry := range entries {
		if !bytes.Equal(entry, padded(n)) {
			t.Fatalf("entry %d is %.20q", n, entry)
		}
	}
	return len(entries)
}

// TestEveryByteFlipped flips each byte of each file and cuts each file to each
// length: the store gives a generation or a log that was written, or an error
// that names the file.
func TestEveryByteFlipped(t *testing.T) {
	build := func() *memDisk {
		d := newMemDisk()
		s := must(openOn(d))(t)
		for n := range 3 {
			if err := errors.Join(s.Save("a", []byte(strconv.Itoa(n))), s.Append("log", []byte(strconv.Itoa(n)))); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	clean := build()
	for _, file := range []string{"a.a", "a.b", "log.log"} {
		length := len(clean.live[file].data)
		if length < 40 {
			t.Fatalf("%s has %d bytes", file, length)
		}
		for n := range 2 * length {
			d := build()
			inode := d.live[file]
			what := fmt.Sprintf("%s, byte %d flipped", file, n)
			if n < length {
				inode.data[n] ^= byte(1 + n%255)
			} else {
				inode.data = inode.data[:n-length]
				what = fmt.Sprintf("%s, cut to %d", file, n-length)
			}
			s := must(openOn(d))(t)
			body, err := s.Load("a")
			if want := map[string]string{"a.a": "1", "a.b": "2", "log.log": "2"}[file]; err != nil || string(body) != want {
				t.Fatalf("%s: load gives %q, %v", what, body, err)
			}
			entries, err := s.ReadLog("log")
			if err != nil && (!errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "log.log")) {
				t.Fatalf("%s: %v", what, err)
			}
			if err == nil && len(entries) < 2 && n < length {
				t.Fatalf("%s: %d entries and no error", what, len(entries))
			}
			for i, entry := range entries {
				if string(entry) != strconv.Itoa(i) {
					t.Fatalf("%s: entry %d is %q", what, i, entry)
				}
			}
			if file != "log.log" {
				checkHealed(t, s, what, file)
			}
		}
	}
}

// checkHealed sees the damage named and mended by the next saves.
func checkHealed(t *testing.T, s *Store, what, file string) {
	t.Helper()
	if damaged := must(s.Damaged())(t); len(damaged) != 1 || damaged[0] != file {
		t.Fatalf("%s: damaged files are %v", what, damaged)
	}
	for range 2 {
		if err := s.Save("a", []byte("9")); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if damaged := must(s.Damaged())(t); len(damaged) != 0 {
		t.Fatalf("%s: %v still damaged", what, damaged)
	}
}

func TestBothDamaged(t *testing.T) {
	d := newMemDisk()
	s := must(openOn(d))(t)
	for range 2 {
		if err := s.Save("network", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	d.live["network.a"].data[60-8] ^= 1
	d.live["network.b"].data = nil
	s = must(openOn(d))(t)
	_, err := s.Load("network")
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "network.a") || !strings.Contains(err.Error(), "/state") {
		t.Errorf("got %v", err)
	}
	if err := s.Save("network", []byte("y")); !errors.Is(err, ErrCorrupt) {
		t.Errorf("overwrites what might be saved by hand: %v", err)
	}
	// A whole file under another's name does not count.
	if err := s.Save("other", []byte("z")); err != nil {
		t.Fatal(err)
	}
	d.live["network.a"] = d.live["other.a"]
	if _, err := s.Load("network"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("took another name's file: %v", err)
	}
}

// TestFullDisk stops at each byte; the old state stays, and all goes on when
// there is room again.
func TestFullDisk(t *testing.T) {
	for room := range 900 {
		d := newMemDisk()
		s := must(openOn(d))(t)
		if err := errors.Join(s.Save("a", padded(1)), s.Append("log", padded(0))); err != nil {
			t.Fatal(err)
		}
		d.room = room
		saveErr := s.Save("a", padded(2))
		appendErr := s.Append("log", padded(1))
		for _, err := range []error{saveErr, appendErr} {
			if err != nil && (!errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free some space")) {
				t.Fatalf("room %d: %v", room, err)
			}
		}
		if saveErr == nil && appendErr == nil {
			t.Fatalf("room %d is no full disk", room)
		}
		saved, appended := 1, 1
		if saveErr == nil {
			saved = 2
		}
		if appendErr == nil {
			appended = 2
		}
		if got := number(t, s, "a"); got != saved {
			t.Fatalf("room %d: %d after an error", room, got)
		}
		d.room = -1
		if err := errors.Join(s.Save("a", padded(3)), s.Append("log", padded(appended))); err != nil {
			t.Fatal(err)
		}
		s = must(openOn(d.reboot(rand.New(rand.NewPCG(1, uint64(room))))))(t)
		if entries := must(s.ReadLog("log"))(t); number(t, s, "a") != 3 || len(entries) != appended+1 {
			t.Fatalf("room %d: %d entries after recovery", room, len(entries))
		}
	}
}

// TestReadOnlyDisk loads, and says what is wrong with saving.
func TestReadOnlyDisk(t *testing.T) {
	d := newMemDisk()
	s := must(openOn(d))(t)
	if err := errors.Join(s.Save("a", padded(1)), s.Append("log", padded(0))); err != nil {
		t.Fatal(err)
	}
	d.fault = func() error { return syscall.EROFS }
	if number(t, s, "a") != 1 {
		t.Error("cannot load")
	}
	for _, err := range []error{s.Save("a", nil), s.Append("log", nil), second(s.NextEpoch()), second(s.LoadOrCreateIdentity())} {
		if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "make it writable") {
			t.Errorf("got %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestFailingSync makes each single change fail once. The one that asked hears
// of it, an entry that was refused never appears, and a log that is not sure of
// its end refuses to go on.
func TestFailingSync(t *testing.T) {
	errIO := syscall.EIO
	for at := range 12 {
		for _, twice := range []bool{false, true} {
			d := newMemDisk()
			s := must(openOn(d))(t)
			if err := s.Append("log", padded(0)); err != nil {
				t.Fatal(err)
			}
			n, failed := 0, 0
			d.fault = func() error {
				n++
				if n-1 == at || twice && failed > 0 && failed < 2 {
					failed++
					return errIO
				}
				return nil
			}
			known := 1
			for range 4 {
				if err := s.Append("log", padded(known)); err == nil {
					known++
				}
			}
			d.fault = nil
			_, brokenErr := 0, s.Append("log", padded(known))
			if brokenErr == nil {
				known++
			}
			s = must(openOn(d))(t)
			entries := must(s.ReadLog("log"))(t)
			if len(entries) < known || brokenErr == nil && len(entries) != known {
				t.Fatalf("fault at %d, twice %v: %d entries, %d acknowledged", at, twice, len(entries), known)
			}
			for i := range known {
				if !bytes.Equal(entries[i], padded(i)) {
					t.Fatalf("fault at %d: entry %d is %.9q", at, i, entries[i])
				}
			}
		}
	}
}

func TestJournalTellsTornFromDamaged(t *testing.T) {
	d := newMemDisk()
	s := must(openOn(d))(t)
	var ends []int
	for n := range 5 {
		if err := s.Append("log", padded(n)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, len(d.live["log.log"].data))
	}
	whole := bytes.Clone(d.live["log.log"].data)
	for n, end := range ends[:4] {
		d.live["log.log"].data = bytes.Clone(whole)
		d.live["log.log"].data[end-1] ^= 1 // inside entry n
		if _, err := must(openOn(d))(t).ReadLog("log"); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), fmt.Sprintf("entry %d", n+1)) {
			t.Errorf("entry %d damaged: %v", n+1, err)
		}
		if err := must(openOn(d))(t).Append("log", nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("appends behind damage: %v", err)
		}
	}
	for cut := ends[3] + 1; cut < ends[4]; cut++ {
		d.live["log.log"].data = bytes.Clone(whole[:cut])
		s := must(openOn(d))(t)
		if err := s.Append("log", padded(4)); err != nil {
			t.Fatalf("cut to %d: %v", cut, err)
		}
		if !bytes.Equal(d.live["log.log"].data, whole) {
			t.Fatalf("cut to %d: the torn entry stays", cut)
		}
	}
	// An entry that holds the bytes of another is no sign of damage.
	d.live["log.log"].data = bytes.Clone(whole[:ends[0]])
	s = must(openOn(d))(t)
	j := journal{number: 2}
	inner := append([]byte{0, 0, 0, 1, 0, 0, 0, 3}, 0, 0, 0, 0, 'x')
	sum := j.sum(inner[:8], inner[12:]) // with another salt
	inner[8], inner[9], inner[10], inner[11] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
	if err := s.Append("log", append(inner, padded(0)...)); err != nil {
		t.Fatal(err)
	}
	d.live["log.log"].data = d.live["log.log"].data[:ends[0]+60]
	if entries, err := must(openOn(d))(t).ReadLog("log"); err != nil || len(entries) != 1 {
		t.Errorf("got %d, %v", len(entries), err)
	}
}

func FuzzGeneration(f *testing.F) {
	f.Add(encodeGeneration("a", 1, []byte("body")))
	f.Add([]byte(generationMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if gen, body, err := decodeGeneration("a", b); err == nil && !bytes.Equal(encodeGeneration("a", gen, body), b) {
			t.Fatal("another encoding")
		}
		d := newMemDisk()
		d.live["a.a"] = &memInode{data: b}
		d.live["a.tmp"] = &memInode{data: b}
		if s, err := openOn(d); err == nil {
			_, _ = s.Load("a")
			_, _ = s.Damaged()
		}
	})
}

func FuzzJournal(f *testing.F) {
	d := newMemDisk()
	s := must(openOn(d))(f)
	for n := range 3 {
		if err := s.Append("log", []byte(strconv.Itoa(n))); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(d.live["log.log"].data)
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newMemDisk()
		d.live["log.log"] = &memInode{data: b}
		s := must(openOn(d))(t)
		before, err := s.ReadLog("log")
		if err != nil {
			return
		}
		if err := s.Append("log", []byte("next")); err != nil {
			t.Fatal(err)
		}
		after := must(must(openOn(d))(t).ReadLog("log"))(t)
		if len(after) != len(before)+1 || string(after[len(before)]) != "next" {
			t.Fatalf("%d entries, then %d", len(before), len(after))
		}
	})
}

func FuzzParseRoot(f *testing.F) {
	f.Add(must(newParty(f).root.Marshal())(f))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = ParseRoot(b) })
}

// TestSaveAfterAFailedRename has a save fail between sync and rename: what Load
// shows before and after a restart survives crashes of the machine.
func TestSaveAfterAFailedRename(t *testing.T) {
	for crashAt := range 10 {
		for seed := range uint64(20) {
			d := newMemDisk()
			s := must(openOn(d))(t)
			for n := range 3 {
				if err := s.Save("a", padded(n)); err != nil {
					t.Fatal(err)
				}
			}
			n := 0
			d.fault = func() error {
				if n++; n == 4 { // open, write, sync, rename
					return syscall.EIO
				}
				return nil
			}
			if err := s.Save("a", padded(3)); !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
			d.fault = nil
			known := number(t, s, "a")
			if again := d.reboot(rand.New(rand.NewPCG(seed, 1))); number(t, must(openOn(again))(t), "a") < known {
				t.Fatalf("%d was read and is gone", known)
			}
			s = must(openOn(d.kill()))(t) // finds what failed, and shows it
			if known = number(t, s, "a"); known != 3 {
				t.Fatalf("got %d after the restart; the test misses its point", known)
			}
			d.crashAt, d.ops = crashAt, 0
			_ = s.Save("a", padded(4))
			s = must(openOn(d.reboot(rand.New(rand.NewPCG(seed, 0)))))(t)
			if got := number(t, s, "a"); got < known {
				t.Fatalf("crash at %d: %d after %d was read", crashAt, got, known)
			}
		}
	}
}

// TestFileInTheWrongPlace copies one generation over the other.
func TestFileInTheWrongPlace(t *testing.T) {
	d := newMemDisk()
	s := must(openOn(d))(t)
	for n := range 2 {
		if err := s.Save("a", padded(n)); err != nil {
			t.Fatal(err)
		}
	}
	d.live["a.a"] = &memInode{data: bytes.Clone(d.live["a.b"].data)}
	if damaged := must(s.Damaged())(t); len(damaged) != 1 || damaged[0] != "a.a" || number(t, s, "a") != 1 {
		t.Errorf("damaged are %v", damaged)
	}
}

// TestRefusedEntryStaysAway has an append fail, and then the power: the entry is
// not there, though the sync that failed had written it.
func TestRefusedEntryStaysAway(t *testing.T) {
	for at := range 3 { // open, write, sync
		for seed := range uint64(20) {
			d := newMemDisk()
			s := must(openOn(d))(t)
			if err := s.Append("log", padded(0)); err != nil {
				t.Fatal(err)
			}
			n := 0
			d.fault = func() error {
				if n++; n-1 == at {
					return syscall.EIO
				}
				return nil
			}
			if err := s.Append("log", padded(1)); !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
			s = must(openOn(d.reboot(rand.New(rand.NewPCG(seed, 0)))))(t)
			if entries := must(s.ReadLog("log"))(t); len(entries) != 1 {
				t.Fatalf("fault at %d: %d entries", at, len(entries))
			}
		}
	}
}
