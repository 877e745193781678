// Package stream carries datagrams where UDP does not pass: framed over TLS on
// a TCP connection, or over the standard streams of ssh.
//
//	Carrier.Send ─► queue ─► writer ─┐                  ┌─► reader ─► Carrier.Receive
//	                                 ├─ TLS 1.3 or ssh ─┤
//	Carrier.Receive ◄──── reader ◄───┘                  └── writer ◄─ queue ◄─ Carrier.Send
//
// A Carrier is an udp.Conn: each stream has a virtual address (package way), so
// that probes, hellos, handshakes and frames cross it as they cross UDP, and what
// they prove end to end they prove here. TLS hides and admits, and protects
// nothing that was not sealed before.
//
//	frame.go, queue.go, gate.go   pure: framing, what waits, who is let in
//	link.go      one stream: its writer and reader
//	carrier.go   all streams of a kind
//	line.go      a stream that this node dials, and dials again
//	server.go    --listen-tls: an ordinary web server to everybody else
//	client.go    TLS to such a server, directly or through a proxy
//	ssh.go       `ssh HOST meshd stdio`
//
// Sending never blocks: what does not fit a stream's queue displaces the oldest
// data in it, and is counted.
package stream
