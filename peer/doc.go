// Package peer answers one question: how do bytes get to that node, secretly, now?
//
//	l2.Port.Send                                   FrameSink.Receive
//	    |                                                ^
//	send.go      queue or seal, cut to the path    receive.go   kind; key by index; open; inner header
//	    |                                                ^
//	udp.Conn.Send                                  udp.Conn.Receive      one goroutine per socket
//
//	engine.go    one goroutine owns handshakes, hellos, probes and every deadline
//
// A Remote is another node. Its keys come from a WireGuard session
// (peer/wireguard), its address from probes (peer/path, peer/probe), and the
// first acquaintance from a hello (peer/hello). Each of those is a pure state
// machine; this package gives them sockets and time.
//
// Transport data runs to completion in the goroutine that read it. Everything
// else is copied into bounded queues for the engine's goroutine.
package peer
