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
	return path, checkStatic(path)
}

// checkStatic refuses a program that needs libraries.
func checkStatic(path string) error {
	file, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is linked dynamically", path)
		}
	}
	return nil
}

// initramfs makes the file system that a guest boots into: busybox, the modules of dir, and /init. It is not compressed:
// the guest would be longer at it than it takes to read.
func initramfs(busybox, dir string) ([]byte, error) {
	order, err := os.ReadFile(filepath.Join(dir, orderFile))
	if err != nil {
		return nil, fmt.Errorf("make initramfs: %w", err)
	}
	a := newImage()
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp", "run", "modules"} {
		a.put(d, cpio.TypeDir|0o755, nil)
	}
	a.copy("bin/busybox", 0o755, busybox)
	a.put("init", cpio.TypeReg|0o755, initScript)
	a.put("modules/order", cpio.TypeReg|0o644, order)
	for name := range strings.FieldsSeq(string(order)) {
		a.copy("modules/"+name+".ko", 0o644, filepath.Join(dir, name+".ko"))
	}
	return a.bytes()
}

// archive makes what goes behind an initramfs: programs in /bin.
func archive(programs []string) ([]byte, error) {
	a := newImage()
	for _, p := range programs {
		a.err = errors.Join(a.err, checkStatic(p))
		a.copy("bin/"+filepath.Base(p), 0o755, p)
	}
	return a.bytes()
}

// image is a cpio archive in the making.
type image struct {
	out bytes.Buffer
	w   *cpio.Writer
	err error
}

func newImage() *image {
	a := new(image)
	a.w = cpio.NewWriter(&a.out)
	return a
}

func (a *image) put(name string, mode cpio.FileMode, content []byte) {
	a.err = errors.Join(a.err, a.w.WriteHeader(&cpio.Header{Name: name, Mode: mode, Size: int64(len(content))}))
	if len(content) > 0 {
		_, err := a.w.Write(content)
		a.err = errors.Join(a.err, err)
	}
}

// copy puts a file of this machine into the archive.
func (a *image) copy(name string, mode cpio.FileMode, path string) {
	content, err := os.ReadFile(path)
	a.err = errors.Join(a.err, err)
	a.put(name, cpio.TypeReg|mode, content)
}

func (a *image) bytes() ([]byte, error) {
	if err := errors.Join(a.err, a.w.Close()); err != nil {
		return nil, fmt.Errorf("make initramfs: %w", err)
	}
	return a.out.Bytes(), nil
}
