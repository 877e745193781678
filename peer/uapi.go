package peer

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"meshd/keys"
)

// ServeUAPI answers one client of WireGuard's cross-platform userspace API
// (wireguard.com/xplatform), so that `wg show` and wgctrl read a running node.
// It is read only: set would go around the certificates and is refused.
func (e *Engine) ServeUAPI(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(io.LimitReader(conn, 1<<20))
	out := bufio.NewWriter(conn)
	for {
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		switch line {
		case "get=1\n":
			if blank, err := in.ReadString('\n'); err != nil || blank != "\n" {
				return
			}
			e.writeUAPI(out)
			fmt.Fprintf(out, "errno=0\n\n")
		case "set=1\n":
			for line != "\n" {
				if line, err = in.ReadString('\n'); err != nil {
					return
				}
			}
			fmt.Fprintf(out, "errno=%d\n\n", -eperm)
		default:
			return
		}
		if out.Flush() != nil {
			return
		}
	}
}

// eperm is the errno of "operation not permitted" on every system with this API.
const eperm = 1

// writeUAPI lists the device and its peers. The private key stays with us; the
// format wants one to derive the public key from, so it is left out and the
// peers alone are shown.
func (e *Engine) writeUAPI(w io.Writer) {
	if len(e.conns) > 0 {
		fmt.Fprintf(w, "listen_port=%d\n", e.conns[0].LocalAddr().Port())
	}
	remotes := e.Remotes()
	slices.SortFunc(remotes, func(a, b *Remote) int { return strings.Compare(hexKey(a.Public), hexKey(b.Public)) })
	for _, r := range remotes {
		st := r.Status()
		wg := r.session.Stats()
		fmt.Fprintf(w, "public_key=%s\n", hexKey(r.Public))
		if st.Endpoint.IsValid() {
			fmt.Fprintf(w, "endpoint=%s\n", st.Endpoint)
		}
		var sec, nsec int64
		if t := st.LastHandshake; !t.IsZero() {
			sec, nsec = t.Unix(), int64(t.Nanosecond())
		}
		fmt.Fprintf(w, "last_handshake_time_sec=%d\nlast_handshake_time_nsec=%d\n", sec, nsec)
		fmt.Fprintf(w, "tx_bytes=%d\nrx_bytes=%d\npersistent_keepalive_interval=0\nprotocol_version=1\n", wg.TxBytes, wg.RxBytes)
	}
}

func hexKey(p keys.Public) string { return hex.EncodeToString(p.WireGuard[:]) }
