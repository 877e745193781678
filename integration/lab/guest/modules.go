//go:build linux

package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// orderFile lists the modules in the order in which they can be loaded.
const orderFile = "modules"

// module is one driver of the kernel.
type module struct {
	name    string
	content []byte // ELF
}

// loader finds out which modules others need, as depmod would: its list is made at installation, and is in no package.
type loader struct {
	ctx   context.Context // of one unpacking
	paths map[string]string
	seen  map[string]bool
	order []module
}

// add appends a module, behind those that it needs.
func (l *loader) add(name string) error {
	if l.seen[name] {
		return nil
	}
	l.seen[name] = true
	path, ok := l.paths[name]
	if !ok {
		return fmt.Errorf("unpack kernel: it has no module %q", name)
	}
	content, err := readModule(l.ctx, path)
	if err != nil {
		return err
	}
	needs, err := dependsOn(content)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	for _, n := range needs {
		if err := l.add(n); err != nil {
			return err
		}
	}
	l.order = append(l.order, module{name: name, content: content})
	return nil
}

func (l *loader) list() string {
	var names strings.Builder
	for _, m := range l.order {
		names.WriteString(m.name + "\n")
	}
	return names.String()
}

// findModules maps names, with underscores only, to the files of an unpacked package.
func findModules(root string) (map[string]string, error) {
	all := make(map[string]string)
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if name, _, ok := strings.Cut(filepath.Base(path), ".ko"); ok {
			all[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	return all, err
}

// readModule reads a module, which newer packages have compressed.
func readModule(ctx context.Context, path string) ([]byte, error) {
	if filepath.Ext(path) != ".xz" {
		return os.ReadFile(path)
	}
	out, err := exec.CommandContext(ctx, "xz", "-dc", path).Output()
	if err != nil {
		return nil, fmt.Errorf("decompress %s: %w", path, err)
	}
	return out, nil
}

// dependsOn reads the names in "depends=" of section .modinfo: strings with a 0 behind each.
func dependsOn(content []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no section .modinfo")
	}
	data, err := section.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		if list, ok := strings.CutPrefix(string(entry), "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}
