package keys

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
)

var errCrashed = errors.New("crashed")

// memDisk is a disk that can lose power. What was not synced may, after a crash,
// be there, be missing, be torn at any byte, or read as zeros; changes of the
// directory that were not synced survive in any combination.
type memDisk struct {
	live    map[string]*memInode
	durable map[string]*memInode // the directory as of the last SyncDir
	changes []func(map[string]*memInode)

	ops     int          // changes made so far
	crashAt int          // the change at which power goes; -1: never
	crashed bool         //
	fault   func() error // asked before each change; nil: none
	room    int          // bytes that may still be written; -1: any number
}

type memInode struct {
	data    []byte
	durable []byte
}

func newMemDisk() *memDisk {
	return &memDisk{live: map[string]*memInode{}, durable: map[string]*memInode{}, crashAt: -1, room: -1}
}

// change is asked before everything that alters the disk.
func (d *memDisk) change() error {
	if d.crashed {
		return errCrashed
	}
	if d.fault != nil {
		if err := d.fault(); err != nil {
			return err
		}
	}
	d.ops++
	if d.ops-1 == d.crashAt {
		d.crashed = true
		return errCrashed
	}
	return nil
}

func (d *memDisk) alter(f func(map[string]*memInode)) {
	f(d.live)
	d.changes = append(d.changes, f)
}

func (d *memDisk) ReadFile(name string) ([]byte, error) {
	if d.crashed {
		return nil, errCrashed
	}
	inode := d.live[name]
	if inode == nil {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(inode.data), nil
}

func (d *memDisk) OpenFile(name string, flag int) (diskFile, error) {
	if err := d.change(); err != nil {
		return nil, err
	}
	inode := d.live[name]
	if inode == nil {
		inode = &memInode{}
		d.alter(func(dir map[string]*memInode) { dir[name] = inode })
	}
	if flag&os.O_TRUNC != 0 {
		inode.data = nil
	}
	return &memFile{d, inode}, nil
}

func (d *memDisk) Rename(from, to string) error {
	if err := d.change(); err != nil {
		return err
	}
	inode := d.live[from]
	if inode == nil {
		return fs.ErrNotExist
	}
	d.alter(func(dir map[string]*memInode) {
		if dir[from] == inode {
			delete(dir, from)
		}
		dir[to] = inode
	})
	return nil
}

func (d *memDisk) Remove(name string) error {
	if err := d.change(); err != nil {
		return err
	}
	if d.live[name] == nil {
		return fs.ErrNotExist
	}
	d.alter(func(dir map[string]*memInode) { delete(dir, name) })
	return nil
}

func (d *memDisk) List() ([]string, error) {
	if d.crashed {
		return nil, errCrashed
	}
	return slices.Sorted(maps.Keys(d.live)), nil
}

func (d *memDisk) SyncDir() error {
	if err := d.change(); err != nil {
		return err
	}
	d.durable, d.changes = maps.Clone(d.live), nil
	return nil
}

type memFile struct {
	disk  *memDisk
	inode *memInode
}

func (f *memFile) Write(b []byte) (int, error) {
	if f.disk.room >= 0 && len(b) > f.disk.room {
		n := f.disk.room
		f.disk.room = 0
		f.inode.data = append(f.inode.data, b[:n]...)
		return n, errNoSpace
	}
	err := f.disk.change()
	if err == nil || errors.Is(err, errCrashed) && !f.disk.wasCrashed() {
		f.inode.data = append(f.inode.data, b...) // in memory; reboot decides what of it was written
	}
	if err != nil {
		return 0, err
	}
	if f.disk.room >= 0 {
		f.disk.room -= len(b)
	}
	return len(b), nil
}

// wasCrashed says whether the crash was at an earlier change.
func (d *memDisk) wasCrashed() bool { return d.ops-1 != d.crashAt }

func (f *memFile) Truncate(size int64) error {
	if err := f.disk.change(); err != nil {
		return err
	}
	f.inode.data = f.inode.data[:size]
	return nil
}

// Sync may have written everything also when it fails.
func (f *memFile) Sync() error {
	err := f.disk.change()
	if !f.disk.crashed {
		f.inode.durable = bytes.Clone(f.inode.data)
	}
	return err
}

func (f *memFile) Close() error { return nil }

// reboot is the disk after the power has come back.
func (d *memDisk) reboot(r *rand.Rand) *memDisk {
	dir := maps.Clone(d.durable)
	mode := r.IntN(3) // nothing un-synced has survived, all of it, or anything
	for _, change := range d.changes {
		if mode == 1 || mode == 2 && r.IntN(2) == 0 {
			change(dir)
		}
	}
	out := newMemDisk()
	seen := map[*memInode]*memInode{}
	for name, inode := range dir {
		if seen[inode] == nil {
			data := inode.survives(r)
			seen[inode] = &memInode{data, bytes.Clone(data)}
		}
		out.live[name] = seen[inode]
	}
	out.durable = maps.Clone(out.live)
	return out
}

// survives is what is left of a file's content.
func (i *memInode) survives(r *rand.Rand) []byte {
	switch r.IntN(4) {
	case 0:
		return bytes.Clone(i.durable)
	case 1:
		return bytes.Clone(i.data)
	}
	same := 0
	for same < min(len(i.data), len(i.durable)) && i.data[same] == i.durable[same] {
		same++
	}
	if same == len(i.data) && same == len(i.durable) {
		return bytes.Clone(i.data)
	}
	if len(i.data) < same || len(i.durable) > same && len(i.data) == same {
		return bytes.Clone(i.durable) // a truncation that was not synced
	}
	// A write that is torn: some of its bytes, or its length with zeros in it.
	out := bytes.Clone(i.data[:same+r.IntN(len(i.data)-same+1)])
	if r.IntN(2) == 0 {
		for len(out) < len(i.data) {
			out = append(out, 0)
		}
	}
	return out
}

// kill is the disk after the process has died and the machine has not: all is
// there, and what was not synced still is not.
func (d *memDisk) kill() *memDisk {
	d.crashed, d.crashAt, d.ops, d.fault, d.room = false, -1, 0, nil, -1
	return d
}
