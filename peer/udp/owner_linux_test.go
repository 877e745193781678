package udp

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const procNetUDP = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1234: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12345 2 0000000000000000 0
 1235: 0100007F:CA76 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 0000000000000000 0
 broken line
 1236: xyz 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 0
`

func TestPortInode(t *testing.T) {
	for _, c := range []struct {
		port  uint16
		inode uint64
		ok    bool
	}{{53, 12345, true}, {0xca76, 0, true}, {54, 0, false}} {
		inode, ok := portInode(strings.NewReader(procNetUDP), c.port)
		if inode != c.inode || ok != c.ok {
			t.Errorf("port %d: %d, %v", c.port, inode, ok)
		}
	}
}

func TestSocketOwner(t *testing.T) {
	proc := t.TempDir()
	for pid, inode := range map[string]int{"17": 12345, "18": 9} {
		fd := filepath.Join(proc, pid, "fd")
		if err := os.MkdirAll(fd, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(fmt.Sprintf("socket:[%d]", inode), filepath.Join(fd, "3")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, pid, "comm"), []byte("prog "+pid+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for inode, want := range map[uint64]string{12345: `"prog 17" (pid 17)`, 9: `"prog 18" (pid 18)`, 10: ""} {
		if got := socketOwner(proc, inode); got != want {
			t.Errorf("inode %d: %s, want %s", inode, got, want)
		}
	}
}
