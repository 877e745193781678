package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A generation is one saved state of a named body, in a file of its own:
//
//	 0          8       16      20         52
//	+----------+-------+-------+----------+------
//	| magic    | gen   | len   | SHA-256  | body
//	+----------+-------+-------+----------+------
//
// The hash covers the file's name, the generation and the body. Odd generations
// live in NAME.a, even ones in NAME.b; each is written to NAME.tmp and synced
// before it is renamed. So the newest complete one is always whole in one of the
// three, and the one before it in another.
const (
	generationMagic  = "meshdst1"
	generationHeader = 52

	// maxBody bounds what is saved and what is read back.
	maxBody = 64 << 20
)

// ErrCorrupt says that a file's content is not what was written. The text names
// the file.
var ErrCorrupt = errors.New("damaged")

func slot(name string, gen uint64) string {
	if gen%2 == 1 {
		return name + ".a"
	}
	return name + ".b"
}

func temporary(name string) string { return name + ".tmp" }

func encodeGeneration(name string, gen uint64, body []byte) []byte {
	out := make([]byte, 0, generationHeader+len(body))
	out = append(out, generationMagic...)
	out = binary.BigEndian.AppendUint64(out, gen)
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
	sum := hashGeneration(name, gen, body)
	return append(append(out, sum[:]...), body...)
}

func hashGeneration(name string, gen uint64, body []byte) [sha256.Size]byte {
	return digest("meshd/1/state", binary.BigEndian.AppendUint64(nil, gen), []byte(name), []byte{0}, body)
}

// decodeGeneration returns the body inside b, which it does not copy.
func decodeGeneration(name string, b []byte) (gen uint64, body []byte, err error) {
	if len(b) < generationHeader || string(b[:8]) != generationMagic {
		return 0, nil, ErrCorrupt
	}
	gen = binary.BigEndian.Uint64(b[8:])
	body = b[generationHeader:]
	if gen == 0 || uint64(binary.BigEndian.Uint32(b[16:])) != uint64(len(body)) {
		return 0, nil, ErrCorrupt
	}
	if sum := hashGeneration(name, gen, body); !bytes.Equal(sum[:], b[20:generationHeader]) {
		return 0, nil, ErrCorrupt
	}
	return gen, body, nil
}

// generations is what the files of one name hold.
type generations struct {
	gen  uint64 // the highest that is whole; 0: none
	body []byte

	// damaged lists files that should hold a generation and do not. Perhaps
	// they held a newer one.
	damaged []string
}

// readGenerations looks at both slots of a name. A temporary file does not count
// until settle has put it into its slot: before, it is not durable.
func readGenerations(d disk, name string) (generations, error) {
	var g generations
	for _, file := range []string{name + ".a", name + ".b"} {
		b, err := d.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return g, err
		}
		gen, body, err := decodeGeneration(name, b)
		switch {
		case err != nil, slot(name, gen) != file:
			g.damaged = append(g.damaged, file)
		case gen > g.gen:
			g.gen, g.body = gen, body
		}
	}
	if g.gen > 1 && len(g.damaged) == 0 {
		// The other slot can be missing only if somebody removed it.
		if other := slot(name, g.gen-1); !exists(d, other) {
			g.damaged = append(g.damaged, other)
		}
	}
	if g.gen == 0 && len(g.damaged) > 0 {
		return g, fmt.Errorf("%v: %w; restore from a backup, or remove to start without",
			g.damaged, ErrCorrupt)
	}
	return g, nil
}

func exists(d disk, name string) bool {
	_, err := d.ReadFile(name)
	return err == nil
}

// writeGeneration makes body the newest of its name. On an error the one before
// it is untouched; whether the new one is found later is open.
func writeGeneration(d disk, name string, body []byte) error {
	if len(body) > maxBody {
		return fmt.Errorf("%d bytes, at most %d", len(body), maxBody)
	}
	g, err := readGenerations(d, name)
	if err != nil {
		return err
	}
	gen := g.gen + 1
	if err := writeFile(d, temporary(name), encodeGeneration(name, gen, body)); err != nil {
		return errors.Join(err, d.Remove(temporary(name)))
	}
	return place(d, name, gen)
}

// settle ends a write that a crash has cut short between sync and rename.
// Nobody was told that it succeeded, but it is whole and newer, and on a file
// system that loses renames it is all there is. It comes before the first read.
// What is not whole stays where the next write replaces it.
func settle(d disk, name string) error {
	b, err := d.ReadFile(temporary(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	gen, _, err := decodeGeneration(name, b)
	if err != nil {
		return nil
	}
	g, err := readGenerations(d, name)
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return err
	}
	if gen <= g.gen {
		return nil
	}
	f, err := d.OpenFile(temporary(name), os.O_APPEND)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return place(d, name, gen)
}

// place moves the temporary file into the slot of its generation.
func place(d disk, name string, gen uint64) error {
	if err := d.Rename(temporary(name), slot(name, gen)); err != nil {
		return err
	}
	return d.SyncDir()
}

// writeFile fills a file and syncs it.
func writeFile(d disk, name string, b []byte) error {
	f, err := d.OpenFile(name, os.O_TRUNC)
	if err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}
