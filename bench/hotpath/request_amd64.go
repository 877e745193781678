package hotpath

import "unsafe"

// Requests of callgrind (callgrind.h).
const (
	callgrind  = uint64('C')<<24 | uint64('T')<<16
	dumpAt     = callgrind + 3
	zeroStats  = callgrind + 1
	startCount = callgrind + 4
	stopCount  = callgrind + 5
)

//go:noescape
func request(args *[6]uint64)

// count lets callgrind count the instructions of f, of all goroutines, and write
// them down under a label. Without callgrind it is f.
func count(label string, f func()) {
	text := append([]byte(label), 0)
	request(&[6]uint64{startCount})
	request(&[6]uint64{zeroStats})
	f()
	request(&[6]uint64{dumpAt, uint64(uintptr(unsafe.Pointer(&text[0])))})
	request(&[6]uint64{stopCount})
}
