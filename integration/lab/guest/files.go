//go:build linux

package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// ErrMissing says that this system lacks what guests are made of; the error around it says what. `go run
// ./integration/deps` installs all of it.
var ErrMissing = errors.New("no guests here")

// metaPackage depends on Debian's newest kernel for virtual machines: few drivers, those of virtio as modules.
const metaPackage = "linux-image-cloud-amd64"

// modules are what a guest needs of the kernel's drivers, beside those that these need.
var modules = []string{"virtio_pci", "virtio_net", "virtio_console", "tun"}

// Files are what all guests boot from.
type Files struct {
	qemu, kernel, initrd string
}

// Load returns what guests boot from, and makes it first where the cache has none yet: the kernel comes from its Debian
// package, of which nothing is installed. It needs apt's network for that, and none from then on.
func Load(ctx context.Context) (*Files, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("%w: their kernel and busybox are amd64, this machine is %s", ErrMissing, runtime.GOARCH)
	}
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return nil, fmt.Errorf("%w: %w (Debian package qemu-system-x86)", ErrMissing, err)
	}
	busybox, err := staticBusybox()
	if err != nil {
		return nil, fmt.Errorf("%w: %w (Debian package busybox-static)", ErrMissing, err)
	}
	dir, err := cache()
	if err != nil {
		return nil, err
	}
	if err := fetchKernel(ctx, dir); err != nil {
		return nil, err
	}
	f := &Files{qemu: qemu, kernel: filepath.Join(dir, kernelFile), initrd: filepath.Join(dir, "initrd")}
	image, err := initramfs(busybox, dir)
	if err != nil {
		return nil, err
	}
	if old, err := os.ReadFile(f.initrd); err == nil && bytes.Equal(old, image) {
		return f, nil
	}
	return f, replace(f.initrd, image)
}

// Cached reports whether the kernel is there already, with the modules that guests need.
func Cached() bool {
	dir, err := cache()
	if err != nil {
		return false
	}
	if _, err := os.Stat(filepath.Join(dir, kernelFile)); err != nil {
		return false
	}
	order, err := os.ReadFile(filepath.Join(dir, orderFile))
	return err == nil && hasAll(string(order), modules)
}

// hasAll says whether a list of modules, made for fewer of them perhaps, has all of those that are wanted.
func hasAll(order string, want []string) bool {
	have := strings.Fields(order)
	return !slices.ContainsFunc(want, func(name string) bool { return !slices.Contains(have, name) })
}

// kernelFile is the kernel's name in the cache. It comes last: where it is, the modules are.
const kernelFile = "vmlinuz"

// cache is the folder for what is made once and kept.
func cache() (string, error) {
	if os.Geteuid() == 0 {
		return openCache("/var/cache", 0o755) // for guests of other users, too
	}
	base, err := os.UserCacheDir()
	if err != nil { // no $HOME
		base = filepath.Join(os.TempDir(), fmt.Sprintf("cache-%d", os.Getuid()))
	}
	return openCache(base, 0o700)
}

func openCache(base string, mode os.FileMode) (string, error) {
	dir := filepath.Join(base, "meshd-guest")
	if err := os.MkdirAll(dir, mode); err != nil {
		return "", fmt.Errorf("make cache for guests: %w", err)
	}
	return dir, nil
}

// fetchKernel puts kernel and modules into dir, unless they are there.
func fetchKernel(ctx context.Context, dir string) error {
	if Cached() {
		return nil
	}
	work, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	name, err := kernelPackage(ctx)
	if err != nil {
		return err
	}
	for _, step := range [][]string{
		{"sh", "-c", "exec apt-get download -q " + name}, // a shell, since apt says what it does on both outputs
		{"sh", "-c", "exec dpkg-deb -x *.deb x"},
	} {
		cmd := exec.CommandContext(ctx, step[0], step[1:]...)
		cmd.Dir = work
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: fetch kernel: %w: %s", ErrMissing, err, out)
		}
	}
	return unpackKernel(ctx, filepath.Join(work, "x"), dir)
}

// kernelPackage asks apt for the package that metaPackage stands for.
func kernelPackage(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", metaPackage).Output()
	if err != nil {
		return "", fmt.Errorf("%w: ask apt for %s: %w", ErrMissing, metaPackage, err)
	}
	if name, ok := dependency(string(out)); ok {
		return name, nil
	}
	return "", fmt.Errorf("%w: apt knows no %s: run apt-get update", ErrMissing, metaPackage)
}

// dependency is the kernel in the output of apt-cache depends.
func dependency(out string) (string, bool) {
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			return "linux-image-" + name, true
		}
	}
	return "", false
}

// unpackKernel copies what guests need from an unpacked package.
func unpackKernel(ctx context.Context, from, dir string) error {
	kernels, err := filepath.Glob(filepath.Join(from, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return fmt.Errorf("unpack kernel: %d kernels in the package (%w)", len(kernels), err)
	}
	all, err := findModules(from)
	if err != nil {
		return err
	}
	load := loader{ctx: ctx, paths: all, seen: make(map[string]bool)}
	for _, name := range modules {
		if err := load.add(name); err != nil {
			return err
		}
	}
	for _, m := range load.order {
		if err := replace(filepath.Join(dir, m.name+".ko"), m.content); err != nil {
			return err
		}
	}
	if err := replace(filepath.Join(dir, orderFile), []byte(load.list())); err != nil {
		return err
	}
	kernel, err := os.ReadFile(kernels[0])
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, kernelFile), kernel)
}

// replace writes a file at once: others may be reading or writing it.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "new-")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // of no use
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
