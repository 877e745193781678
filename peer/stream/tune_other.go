//go:build !linux

package stream

import "net"

// tune sets a TCP connection up for datagrams.
func tune(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(true)
	}
}
