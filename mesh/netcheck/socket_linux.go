package netcheck

import "golang.org/x/sys/unix"

// prepare has packets go around the mesh, and never in fragments, whatever size
// the kernel believes in (ip(7), IP_PMTUDISC_PROBE). What it may not do is left.
func prepare(fd uintptr, v6 bool, mark uint32) {
	if mark != 0 {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	}
	if v6 {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
		return
	}
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
}
