package l2

import (
	"encoding/binary"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"meshd/l2/offload"
)

// tapQueue is one of the queues of a TAP, which has a descriptor for each.
type tapQueue struct {
	file *os.File
	raw  syscall.RawConn
	in   tapReader
	out  tapWriter
}

// addQueue takes over an attached descriptor, and lets the poller have it.
func (t *TAP) addQueue(fd int) error {
	q := &tapQueue{file: os.NewFile(uintptr(fd), "/dev/net/tun")}
	t.queues = append(t.queues, q)
	var err error
	if q.raw, err = q.file.SyscallConn(); err != nil {
		return &DeviceError{"open tap", t.cfg.Name, err, ""}
	}
	return nil
}

// moreQueues adds the further queues, if the kernel lets us say which frame comes by
// which. By itself it moves a flow to the queue that an answer was last written to,
// also while frames of it wait in another: they would be overtaken.
func (t *TAP) moreQueues(flags uint16) error {
	if t.steer() != nil {
		return nil // it needs a right that we do not have: one queue will do
	}
	for len(t.queues) < min(t.cfg.Queues, maxQueues) {
		fd, err := attachAs(t.cfg.Name, flags)
		if err != nil {
			return err
		}
		if err := t.addQueue(fd); err != nil {
			return err
		}
	}
	return nil
}

// instruction is struct bpf_insn (linux/bpf.h).
type instruction struct {
	code, registers uint8 // of the latter dst and src have four bits each
	offset          int16
	immediate       int32
}

const (
	bpfLoadWord = 0x61 // BPF_LDX | BPF_MEM | BPF_W
	bpfExit     = 0x95 // BPF_JMP | BPF_EXIT
	skbHash     = 68   // offset of hash in struct __sk_buff
)

// steer has the kernel choose the queue by the hash that a frame carries: that of its
// flow, or 0 where nobody has computed one.
func (t *TAP) steer() error {
	program := [...]instruction{
		{code: bpfLoadWord, registers: 0x10, offset: skbHash}, // r0 = *(u32 *)(r1 + skbHash)
		{code: bpfExit},
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		program[0].registers = 0x01
	}
	license := [...]byte{'B', 'S', 'D', 0}
	var pins runtime.Pinner // the kernel reads them by address
	defer pins.Unpin()
	pins.Pin(&program)
	pins.Pin(&license)
	attr := struct { // union bpf_attr of BPF_PROG_LOAD
		kind, count      uint32
		program, license uint64
		_                [12]uint64
	}{
		kind: unix.BPF_PROG_TYPE_SOCKET_FILTER, count: uint32(len(program)),
		program: uint64(uintptr(unsafe.Pointer(&program[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	prog, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return errno
	}
	defer unix.Close(int(prog)) // the TAP keeps it
	var err error
	if cerr := t.raw.Control(func(fd uintptr) { err = unix.IoctlSetPointerInt(int(fd), unix.TUNSETSTEERINGEBPF, int(prog)) }); cerr != nil {
		return cerr
	}
	return err
}

// Queues is Queued.Queues.
func (t *TAP) Queues() int { return len(t.queues) }

// ReadQueue is Queued.ReadQueue.
func (t *TAP) ReadQueue(queue int, frames []Frame) (int, error) { return t.queues[queue].read(frames) }

// ServeQueue is Served.ServeQueue.
func (t *TAP) ServeQueue(queue int, frames []Frame, handle func([]Frame)) error {
	return t.queues[queue].serve(frames, handle)
}

// Read is Device.Read: it reads the first queue.
func (t *TAP) Read(frames []Frame) (int, error) { return t.queues[0].read(frames) }

// Write is Device.Write. It tries every frame and returns the first error. All queues
// lead to the same place: the first that nobody is writing to will do.
func (t *TAP) Write(frames []Frame) error {
	for _, q := range t.queues {
		if q.out.mu.TryLock() {
			return q.write(frames)
		}
	}
	q := t.queues[0]
	q.out.mu.Lock()
	return q.write(frames)
}

func (q *tapQueue) init(mtu int, offloads offload.Features, hasHeader bool) {
	q.in.init(mtu, offloads, hasHeader)
	q.out.init(hasHeader)
}
