//go:build linux

package guest

import (
	"bytes"
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/cavaliergopher/cpio"
)

//go:embed init.sh
var initScript []byte

// staticBusybox looks for a busybox that needs no libraries.
func staticBusybox() (string, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", err
	}
	file, err := elf.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			return "", fmt.Errorf("%s is linked dynamically", path)
		}
	}
	return path, nil
}

// initramfs makes the file system that a guest boots into: busybox, the modules of dir, and /init. It is not compressed:
// the guest would be longer at it than it takes to read.
func initramfs(busybox, dir string) ([]byte, error) {
	order, err := os.ReadFile(filepath.Join(dir, orderFile))
	if err != nil {
		return nil, fmt.Errorf("make initramfs: %w", err)
	}
	var out bytes.Buffer
	w := cpio.NewWriter(&out)
	put := func(name string, mode cpio.FileMode, content []byte) {
		err = errors.Join(err, w.WriteHeader(&cpio.Header{Name: name, Mode: mode, Size: int64(len(content))}))
		if len(content) > 0 {
			_, e := w.Write(content)
			err = errors.Join(err, e)
		}
	}
	copyOf := func(path string) []byte {
		content, e := os.ReadFile(path)
		err = errors.Join(err, e)
		return content
	}
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp", "modules"} {
		put(d, cpio.TypeDir|0o755, nil)
	}
	put("bin/busybox", cpio.TypeReg|0o755, copyOf(busybox))
	put("init", cpio.TypeReg|0o755, initScript)
	put("modules/order", cpio.TypeReg|0o644, order)
	for name := range strings.FieldsSeq(string(order)) {
		put("modules/"+name+".ko", cpio.TypeReg|0o644, copyOf(filepath.Join(dir, name+".ko")))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("make initramfs: %w", err)
	}
	return out.Bytes(), nil
}
