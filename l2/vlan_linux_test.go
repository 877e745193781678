package l2_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tagAll has the kernel tag all that leaves an interface, and untag all that comes, as
// a VLAN interface on it would, also where the kernel knows none (8021q).
func tagAll(t *testing.T, n *network, name string, vlan int32) {
	t.Helper()
	ethertype := int32(binary.NativeEndian.Uint16([]byte{0x81, 0}))
	const (
		move, call, exit  = 0xb7, 0x85, 0x95 // BPF_ALU64|BPF_MOV|BPF_K and BPF_JMP codes
		vlanPush, vlanPop = 18, 19           // helpers
	)
	ok := []instruction{{code: move}, {code: exit}} // r0 = TC_ACT_OK
	push := append([]instruction{
		{code: move, registers: register(2), immediate: ethertype},
		{code: move, registers: register(3), immediate: vlan},
		{code: call, immediate: vlanPush},
	}, ok...)
	pop := append([]instruction{{code: call, immediate: vlanPop}}, ok...)
	n.do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		at := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_CLSACT, Handle: netlink.MakeHandle(0xffff, 0)}
		err = netlink.QdiscAdd(&netlink.GenericQdisc{QdiscAttrs: at, QdiscType: "clsact"})
		return errors.Join(err,
			addProgram(link, netlink.HANDLE_MIN_EGRESS, push),
			addProgram(link, netlink.HANDLE_MIN_INGRESS, pop))
	})
}

// instruction is struct bpf_insn.
type instruction struct {
	code, registers uint8
	offset          int16
	immediate       int32
}

// register is a destination as it stands in an instruction.
func register(n uint8) uint8 {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return n
	}
	return n << 4
}

func addProgram(link netlink.Link, parent uint32, program []instruction) error {
	license := []byte("BSD\x00")
	var pins runtime.Pinner
	defer pins.Unpin()
	pins.Pin(&program[0])
	pins.Pin(&license[0])
	attr := struct { // union bpf_attr of BPF_PROG_LOAD
		kind, count      uint32
		program, license uint64
		_                [12]uint64
	}{
		kind: unix.BPF_PROG_TYPE_SCHED_CLS, count: uint32(len(program)),
		program: uint64(uintptr(unsafe.Pointer(&program[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return fmt.Errorf("load program: %w", errno)
	}
	defer unix.Close(int(fd))
	return netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs:  netlink.FilterAttrs{LinkIndex: link.Attrs().Index, Parent: parent, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:           int(fd),
		Name:         "tag",
		DirectAction: true,
	})
}
