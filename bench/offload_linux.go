package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of <linux/ethtool.h>.
const (
	stringsOfFeatures = 4  // ETH_SS_FEATURES
	stringLength      = 32 // ETH_GSTRING_LEN
	maxFeatures       = 512
)

// ifreqData is struct ifreq with a pointer in it.
type ifreqData struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

// offloadsOff turns off every offload of an interface in the calling thread's namespace that can be turned off:
// checksums, scatter-gather, segmentation of TCP and UDP, and merging.
func offloadsOff(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket for ethtool: %w", err)
	}
	defer unix.Close(fd)

	set := make([]byte, 12, 12+maxFeatures*stringLength) // struct ethtool_gstrings: cmd, string_set, len, data
	set = append(set, make([]byte, maxFeatures*stringLength)...)
	binary.NativeEndian.PutUint32(set, unix.ETHTOOL_GSTRINGS)
	binary.NativeEndian.PutUint32(set[4:], stringsOfFeatures)
	if err := ethtool(fd, name, set); err != nil {
		return fmt.Errorf("list features of %s: %w", name, err)
	}
	count := int(binary.NativeEndian.Uint32(set[8:]))
	if count > maxFeatures {
		return fmt.Errorf("list features of %s: %d are more than expected", name, count)
	}
	blocks := (count + 31) / 32
	change := make([]byte, 8+8*blocks) // struct ethtool_sfeatures: cmd, size, {valid, requested} of 32 features each
	binary.NativeEndian.PutUint32(change, unix.ETHTOOL_SFEATURES)
	binary.NativeEndian.PutUint32(change[4:], uint32(blocks))
	for i := range count {
		text := set[12+i*stringLength:][:stringLength]
		feature, _, _ := bytes.Cut(text, []byte{0})
		if isOffload(string(feature)) {
			at := change[8+8*(i/32):]
			binary.NativeEndian.PutUint32(at, binary.NativeEndian.Uint32(at)|1<<(i%32))
		}
	}
	if err := ethtool(fd, name, change); err != nil {
		return fmt.Errorf("turn offloads of %s off: %w", name, err)
	}
	return nil
}

// isOffload reports whether a feature changes who does the work on a packet.
func isOffload(feature string) bool {
	switch feature {
	case "rx-gro", "rx-gro-list", "rx-udp-gro-forwarding", "rx-checksum", "rx-lro", "rx-gro-hw":
		return true
	}
	for _, prefix := range []string{"tx-checksum", "tx-scatter-gather", "tx-tcp", "tx-udp", "tx-gso", "tx-generic-segmentation", "tx-sctp"} {
		if strings.HasPrefix(feature, prefix) {
			return true
		}
	}
	return false
}

// ethtool passes a command, which the kernel may overwrite. A positive result tells of features that cannot be changed.
func ethtool(fd int, name string, command []byte) error {
	var pin runtime.Pinner
	pin.Pin(&command[0])
	defer pin.Unpin()
	request := ifreqData{data: unsafe.Pointer(&command[0])}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}
