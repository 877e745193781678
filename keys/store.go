package keys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// ErrLocked says that another process has the state directory open. Two nodes
// over one directory would be one identity twice.
var ErrLocked = errors.New("in use by another meshd")

// Names of what the store itself keeps.
const (
	lockName     = "lock"
	epochName    = "epoch"
	identityName = "identity"
)

// Store is a node's state directory, locked for this process. All methods are
// safe for concurrent use. What has been saved, appended or counted without error
// survives a kill and a loss of power.
type Store struct {
	dir  string
	root *os.Root
	lock *os.File

	fresh bool     // it held no state when it was opened
	made  []string // folders that Open made, the innermost first
	empty []string // those to be swept, likewise

	mu       sync.Mutex
	disk     disk
	journals map[string]*journal
}

// Open locks the directory, creating it with mode 0700 when absent, and ends
// what a crash has left half done. It refuses a directory or files that other
// users could read, and one that is in use (ErrLocked).
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	made, err := makeDir(dir)
	if err != nil {
		removeDirs(made)
		return nil, fmt.Errorf("open state directory: %w", remedy(err, dir))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		removeDirs(made)
		return nil, fmt.Errorf("open state directory: %w", remedy(err, dir))
	}
	s, err := open(dir, root)
	if err != nil {
		err = errors.Join(fmt.Errorf("open state directory: %w", remedy(err, dir)), root.Close())
		removeDirs(made)
		return nil, err
	}
	s.made = made
	return s, nil
}

func open(dir string, root *os.Root) (*Store, error) {
	d := realDisk{root}
	if err := d.checkAccess(dir); err != nil {
		return nil, err
	}
	lock, err := root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := takeLock(dir, lock); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s := &Store{dir: dir, root: root, lock: lock, disk: d, journals: map[string]*journal{}}
	if err := s.recover(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	files, err := d.List()
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.fresh = !slices.ContainsFunc(files, func(file string) bool { return ours(file) && file != lockName })
	return s, nil
}

// makeDir creates the directory, and its name durably. It lists the folders that
// it had to make, the innermost first, also with an error.
func makeDir(dir string) (made []string, err error) {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return nil, fmt.Errorf("%s: %w", dir, syscall.ENOTDIR)
	}
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Lstat(at); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, at)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return made, err
	}
	parent, err := os.OpenRoot(filepath.Dir(dir))
	if err != nil {
		return made, err
	}
	return made, errors.Join(realDisk{parent}.SyncDir(), parent.Close())
}

// removeDirs removes folders as far as there is nothing else in them.
func removeDirs(dirs []string) {
	for _, dir := range dirs {
		_ = os.Remove(dir) // one that holds something, or was never made, stays as it is
	}
}

// takeLock locks the file and writes this process into it.
func takeLock(dir string, lock *os.File) error {
	held, err := lockFile(lock)
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	if held {
		text := make([]byte, 20)
		n, _ := lock.ReadAt(text, 0)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n]))); err == nil {
			return fmt.Errorf("%s: %w (pid %d)", dir, ErrLocked, pid)
		}
		return fmt.Errorf("%s: %w", dir, ErrLocked)
	}
	// Who holds it is a service to others; a full disk must not keep us out.
	if err := lock.Truncate(0); err == nil {
		_, _ = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return nil
}

// remedy adds what to do, where the reason alone does not tell.
func remedy(err error, dir string) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; run as root, or choose a directory of your own with --state", err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; make it writable, or choose another directory with --state", err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w; free some space on the disk of %s", err, dir)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w; choose a directory with --state", err)
	}
	return err
}

// recover ends what a crash has left half done, so that all that is read from
// now on is durable.
func (s *Store) recover() error {
	files, err := s.disk.List()
	if err != nil {
		return err
	}
	for _, file := range files {
		name, isTemporary := strings.CutSuffix(file, ".tmp")
		if !isTemporary || validStateName(name) != nil {
			continue
		}
		if err := settle(s.disk, name); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return s.disk.SyncDir()
}

// Fresh reports whether the directory held no state when it was opened.
func (s *Store) Fresh() bool { return s.fresh }

// Dir is the directory's absolute path.
func (s *Store) Dir() string { return s.dir }

// Close unlocks the directory.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return nil
	}
	err := errors.Join(s.lock.Close(), s.root.Close())
	s.lock, s.disk = nil, closedDisk{}
	return err
}

// Remove deletes all state, then unlocks. What is not the store's own stays, and
// the directory with it.
func (s *Store) Remove() error {
	s.empty = []string{s.dir}
	return s.clear()
}

// Discard deletes all state of a start that has come to nothing, then unlocks. Of
// folders it removes those that Open made.
func (s *Store) Discard() error {
	s.empty = s.made
	return s.clear()
}

// Sweep removes folders that Remove or Discard had to leave, if they are empty now.
func (s *Store) Sweep() {
	for _, dir := range s.empty {
		_ = os.Remove(dir) // fails while it holds anything
	}
}

// clear deletes all files of the store, closes it and sweeps.
func (s *Store) clear() error {
	s.mu.Lock()
	files, err := s.disk.List()
	slices.Sort(files) // .a and .b before .tmp: nothing old comes back when it is cut short
	for _, file := range files {
		if ours(file) && file != lockName {
			err = errors.Join(err, s.disk.Remove(file))
		}
	}
	err = errors.Join(err, s.disk.SyncDir(), s.disk.Remove(lockName))
	s.mu.Unlock()
	if err = errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	s.Sweep()
	return nil
}

// ours says whether a file in the directory is the store's.
func ours(file string) bool {
	if file == lockName {
		return true
	}
	for _, suffix := range []string{".a", ".b", ".log", ".log.tmp", ".tmp"} {
		if name, ok := strings.CutSuffix(file, suffix); ok && validStateName(name) == nil {
			return true
		}
	}
	return false
}

// validStateName accepts a-z, 0-9 and inner hyphens.
func validStateName(name string) error { return ValidateName(name) }

// Save makes body the newest generation of name. It returns nil only when that
// is durable. After an error, Load gives the one before or the one that failed.
func (s *Store) Save(name string, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.save(name, body)
}

func (s *Store) save(name string, body []byte) error {
	if err := validStateName(name); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	if err := writeGeneration(s.disk, name, body); err != nil {
		return fmt.Errorf("save %s in %s: %w", name, s.dir, remedy(err, s.dir))
	}
	return nil
}

// Load returns the newest whole generation of name: os.ErrNotExist when it was
// never saved, ErrCorrupt when there are only damaged ones.
func (s *Store) Load(name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, err := s.load(name)
	return g.body, err
}

func (s *Store) load(name string) (generations, error) {
	if err := validStateName(name); err != nil {
		return generations{}, fmt.Errorf("load state: %w", err)
	}
	g, err := readGenerations(s.disk, name)
	if err == nil && g.gen == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return generations{}, fmt.Errorf("load %s from %s: %w", name, s.dir, err)
	}
	return g, nil
}

// Damaged lists files of the directory that do not hold what was written, for
// people. What they should hold is read from another generation where there is
// one, and the next Save mends them.
func (s *Store) Damaged() ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	files, err := s.disk.List()
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", s.dir, err)
	}
	slices.Sort(files)
	var damaged []string
	for _, file := range files {
		for _, suffix := range []string{".a", ".b"} {
			name, ok := strings.CutSuffix(file, suffix)
			if !ok || validStateName(name) != nil {
				continue
			}
			g, _ := readGenerations(s.disk, name)
			damaged = append(damaged, g.damaged...)
		}
	}
	slices.Sort(damaged)
	return slices.Compact(damaged), nil
}

// Append adds an entry to a log. It returns nil only when the entry is durable;
// after an error the entry is not in the log.
func (s *Store) Append(log string, entry []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.journals[log]
	if j == nil {
		var err error
		if j, _, err = s.openJournal(log); err != nil {
			return err
		}
	}
	if err := j.add(s.disk, entry); err != nil {
		return fmt.Errorf("add to %s.log in %s: %w", log, s.dir, remedy(err, s.dir))
	}
	return nil
}

// ReadLog returns all entries of a log, none when it does not exist yet. A last
// entry whose writing was cut short is left out.
func (s *Store) ReadLog(log string) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.disk.ReadFile(journalFile(log)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	_, entries, err := s.openJournal(log)
	return entries, err
}

func (s *Store) openJournal(log string) (*journal, [][]byte, error) {
	if err := validStateName(log); err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	j, entries, err := openJournal(s.disk, log)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s.log in %s: %w", log, s.dir, remedy(err, s.dir))
	}
	if s.journals[log] == nil {
		s.journals[log] = j
	}
	return s.journals[log], entries, nil
}

// NextEpoch counts the starts of this node. No value comes twice, whatever
// happens to the disk short of both copies being gone.
func (s *Store) NextEpoch() (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, err := s.load(epochName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	var epoch uint32
	if err == nil {
		if len(g.body) != 4 {
			return 0, fmt.Errorf("load %s from %s: %w", epochName, s.dir, ErrCorrupt)
		}
		epoch = binary.BigEndian.Uint32(g.body)
	}
	step := uint32(1)
	if len(g.damaged) > 0 {
		step = 2 // what is damaged may have been the newest
	}
	if epoch > math.MaxUint32-step {
		return 0, fmt.Errorf("next epoch: all %d are used", uint32(math.MaxUint32))
	}
	epoch += step
	if err := s.save(epochName, binary.BigEndian.AppendUint32(nil, epoch)); err != nil {
		return 0, err
	}
	return epoch, nil
}

// LoadOrCreateIdentity returns the node's identity and makes one the first time.
func (s *Store) LoadOrCreateIdentity() (*Identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, err := s.load(identityName)
	if errors.Is(err, fs.ErrNotExist) {
		return s.createIdentity()
	}
	if err != nil {
		return nil, err
	}
	identity, err := parseIdentity(g.body)
	if err != nil {
		return nil, fmt.Errorf("load %s from %s: %w", identityName, s.dir, err)
	}
	if g.gen == 1 || len(g.damaged) > 0 {
		err = s.save(identityName, g.body) // nothing else would write the second copy
	}
	return identity, err
}

// createIdentity saves twice, so that either copy may be damaged later.
func (s *Store) createIdentity() (*Identity, error) {
	identity, err := NewIdentity()
	if err != nil {
		return nil, err
	}
	for range 2 {
		if err := s.save(identityName, identity.marshal()); err != nil {
			return nil, err
		}
	}
	return identity, nil
}

// closedDisk is the disk of a closed store.
type closedDisk struct{}

func (closedDisk) ReadFile(string) ([]byte, error)        { return nil, os.ErrClosed }
func (closedDisk) OpenFile(string, int) (diskFile, error) { return nil, os.ErrClosed }
func (closedDisk) Rename(string, string) error            { return os.ErrClosed }
func (closedDisk) Remove(string) error                    { return os.ErrClosed }
func (closedDisk) List() ([]string, error)                { return nil, os.ErrClosed }
func (closedDisk) SyncDir() error                         { return os.ErrClosed }
