package udp

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// portOwner says which program has the port of addr, as far as /proc shows it to
// us; empty when it does not. Other users' descriptors need root.
func portOwner(addr netip.AddrPort) string {
	table := "udp"
	if addr.Addr().Is6() {
		table = "udp6"
	}
	// The thread's own, as it may be in another network namespace.
	f, err := os.Open("/proc/thread-self/net/" + table)
	if err != nil {
		return ""
	}
	defer f.Close()
	inode, ok := portInode(f, addr.Port())
	switch {
	case !ok:
		return ""
	case inode == 0:
		return "the kernel (a WireGuard interface?)"
	}
	return socketOwner("/proc", inode)
}

// portInode finds the first socket bound to port in a table of the format of
// /proc/net/udp: local address in column 1, inode in column 9.
func portInode(table io.Reader, port uint16) (inode uint64, ok bool) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		p, err := strconv.ParseUint(hex, 16, 16)
		if err != nil || uint16(p) != port {
			continue
		}
		inode, err = strconv.ParseUint(fields[9], 10, 64)
		return inode, err == nil
	}
	return 0, false
}

// socketOwner finds a process that has the socket open.
func socketOwner(proc string, inode uint64) string {
	want := fmt.Sprintf("socket:[%d]", inode)
	fds, _ := filepath.Glob(proc + "/[0-9]*/fd/*") // only a malformed pattern is an error
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || target != want {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue
		}
		return fmt.Sprintf("%q (pid %s)", bytes.TrimSpace(name), filepath.Base(dir))
	}
	return ""
}
