package keys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
)

// disk is the state directory as the store needs it: flat, names only. The
// in-memory twin (memdisk_test.go) loses, tears and reorders what was not
// synced. Six methods, because each is one system call whose order matters.
type disk interface {
	// ReadFile returns a whole file, fs.ErrNotExist without one.
	ReadFile(name string) ([]byte, error)
	// OpenFile opens for writing: flag is os.O_TRUNC for a file to be filled,
	// os.O_APPEND for a log. Either creates it with mode 0600.
	OpenFile(name string, flag int) (diskFile, error)
	Rename(from, to string) error
	Remove(name string) error
	// List returns the names of all files.
	List() ([]string, error)
	// SyncDir makes creations, renames and removals durable.
	SyncDir() error
}

// diskFile is a file being written.
type diskFile interface {
	io.WriteCloser
	Truncate(size int64) error
	Sync() error
}

// realDisk is a directory of the operating system. os.Root keeps names inside.
type realDisk struct{ root *os.Root }

func (d realDisk) ReadFile(name string) ([]byte, error) { return d.root.ReadFile(name) }
func (d realDisk) Rename(from, to string) error         { return d.root.Rename(from, to) }
func (d realDisk) Remove(name string) error             { return d.root.Remove(name) }

func (d realDisk) OpenFile(name string, flag int) (diskFile, error) {
	return d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|flag, 0o600)
}

func (d realDisk) List() ([]string, error) {
	entries, err := d.entries()
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, nil
}

func (d realDisk) entries() ([]fs.DirEntry, error) {
	dir, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.ReadDir(-1)
}

func (d realDisk) SyncDir() error {
	if runtime.GOOS == "windows" { // directories cannot be synced there; NTFS journals renames
		return nil
	}
	dir, err := d.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// checkAccess refuses a directory, or a file in it, that others may open.
func (d realDisk) checkAccess(dir string) error {
	if runtime.GOOS == "windows" { // access there follows the profile's lists, not mode bits
		return nil
	}
	stat, err := d.root.Stat(".")
	if err != nil {
		return err
	}
	if err := checkOwner(dir, stat); err != nil {
		return err
	}
	if wide(stat) {
		return fmt.Errorf("%s is open to other users (mode %04o); run: chmod 700 %s", dir, stat.Mode().Perm(), dir)
	}
	entries, err := d.entries()
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() && ours(entry.Name()) && wide(info) {
			return fmt.Errorf("%s/%s is open to other users (mode %04o); run: chmod 600 %s/*",
				dir, entry.Name(), info.Mode().Perm(), dir)
		}
	}
	return nil
}

func wide(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }
