package keys

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
)

// A journal is a log of entries, each on disk before the call that adds it
// returns:
//
//	header: magic (8), salt (8), CRC-32C of both (4)
//	entry:  length (4), number (4), CRC-32C (4), bytes
//
// Numbers count from 1. The CRC covers the salt, length, number and bytes; the
// salt keeps one who can choose an entry's bytes from hiding an entry in them.
//
// A torn last entry was never acknowledged and is dropped. Damage with a whole
// entry behind it is none of a crash: it is reported, not skipped, since what is
// lost might say that an invite has been used.
const (
	journalMagic  = "meshdlg1"
	journalHeader = 20
	entryHeader   = 12

	// maxEntry bounds one entry, maxJournal all of them.
	maxEntry   = 64 << 10
	maxJournal = 256 << 20
)

func journalFile(name string) string { return name + ".log" }

// journal is one log, open for appending.
type journal struct {
	file   string
	salt   [8]byte
	size   int64  // up to here, entries are whole
	number uint32 // of the last entry

	// broken is set when the end of the file is not known: an entry that the
	// caller was told has failed may be found there later. Only opening again
	// tells.
	broken error
}

// openJournal reads a log, creates it when absent, and makes what it has read
// durable. The entries are the caller's.
func openJournal(d disk, name string) (*journal, [][]byte, error) {
	j := &journal{file: journalFile(name)}
	b, err := d.ReadFile(j.file)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil, j.create(d)
	}
	if err != nil {
		return nil, nil, err
	}
	entries, err := j.read(b)
	if err != nil {
		return nil, nil, err
	}
	return j, entries, j.settle(d, int64(len(b)))
}

// create makes the file with its header, under a temporary name first.
func (j *journal) create(d disk) error {
	if _, err := rand.Read(j.salt[:]); err != nil {
		return fmt.Errorf("make salt: %w", err)
	}
	temporary := j.file + ".tmp"
	header := append([]byte(journalMagic), j.salt[:]...)
	header = binary.BigEndian.AppendUint32(header, j.sum(header, nil))
	if err := writeFile(d, temporary, header); err != nil {
		return errors.Join(err, d.Remove(temporary))
	}
	if err := d.Rename(temporary, j.file); err != nil {
		return err
	}
	j.size = journalHeader
	return d.SyncDir()
}

// settle cuts a torn tail off and syncs, because what has been read may still
// be in memory only when a killed process wrote it.
func (j *journal) settle(d disk, length int64) error {
	f, err := d.OpenFile(j.file, os.O_APPEND)
	if err != nil {
		return err
	}
	if length > j.size {
		if err := f.Truncate(j.size); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

// read takes a journal apart and sets salt, size and number.
func (j *journal) read(b []byte) ([][]byte, error) {
	if len(b) < journalHeader || string(b[:8]) != journalMagic || len(b) > maxJournal {
		return nil, ErrCorrupt
	}
	copy(j.salt[:], b[8:16])
	if j.sum(b[:16], nil) != binary.BigEndian.Uint32(b[16:]) {
		return nil, ErrCorrupt
	}
	j.size, j.number = journalHeader, 0
	var entries [][]byte
	for {
		entry, ok := j.entryAt(b[j.size:], j.number+1)
		if !ok {
			break
		}
		entries = append(entries, entry)
		j.size += entryHeader + int64(len(entry))
		j.number++
	}
	if j.entryBehind(b[j.size:]) {
		return nil, fmt.Errorf("entry %d: %w", j.number+1, ErrCorrupt)
	}
	return entries, nil
}

// entryAt returns the entry at the front of b if it is whole and has this number.
func (j *journal) entryAt(b []byte, number uint32) ([]byte, bool) {
	if len(b) < entryHeader || binary.BigEndian.Uint32(b[4:]) != number {
		return nil, false
	}
	length := binary.BigEndian.Uint32(b)
	if length > maxEntry || int(length) > len(b)-entryHeader {
		return nil, false
	}
	entry := b[entryHeader : entryHeader+length]
	return entry, j.sum(b[:8], entry) == binary.BigEndian.Uint32(b[8:])
}

// entryBehind says whether a whole entry follows the place where reading ended.
func (j *journal) entryBehind(b []byte) bool {
	for i := range b {
		if len(b)-i < entryHeader {
			return false
		}
		number := binary.BigEndian.Uint32(b[i+4:])
		if ahead := number - j.number; ahead < 2 || ahead > uint32(len(b)/entryHeader)+1 {
			continue // cheap: all but a few places end here
		}
		if _, ok := j.entryAt(b[i:], number); ok {
			return true
		}
	}
	return false
}

func (j *journal) sum(header, entry []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(crc32.Checksum(j.salt[:], table), table, header), table, entry)
}

// add writes one entry and syncs it. After an error the entry is not in the
// log, or the journal is broken and refuses all that follows.
func (j *journal) add(d disk, entry []byte) error {
	if j.broken != nil {
		return j.broken
	}
	if len(entry) > maxEntry {
		return fmt.Errorf("entry of %d bytes, at most %d", len(entry), maxEntry)
	}
	out := make([]byte, 0, entryHeader+len(entry))
	out = binary.BigEndian.AppendUint32(out, uint32(len(entry)))
	out = binary.BigEndian.AppendUint32(out, j.number+1)
	out = binary.BigEndian.AppendUint32(out, j.sum(out, entry))
	out = append(out, entry...)
	if j.size+int64(len(out)) > maxJournal {
		return fmt.Errorf("log is full: %d bytes", j.size)
	}
	f, err := d.OpenFile(j.file, os.O_APPEND)
	if err != nil {
		return err
	}
	_, err = f.Write(out)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return j.undo(f, err)
	}
	if err := f.Close(); err != nil {
		j.broken = fmt.Errorf("end of log unknown after: %w; restart", err)
		return j.broken
	}
	j.size += int64(len(out))
	j.number++
	return nil
}

// undo cuts a failed entry off again.
func (j *journal) undo(f diskFile, cause error) error {
	undone := f.Truncate(j.size)
	if undone == nil {
		undone = f.Sync()
	}
	if undone != nil {
		j.broken = fmt.Errorf("end of log unknown after: %w; restart", cause)
	}
	_ = f.Close()
	return cause
}
