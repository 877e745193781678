// Package udp is the seam between meshd and the network below it: datagrams in
// batches, with segmentation offload where the system has it.
//
//	            Packet: datagrams of one size, back to back
//	Receive ◄── recvmmsg ◄── UDP_GRO ◄──┐
//	                                    ├── one socket per IP family
//	Send ─────► sendmmsg ─► UDP_SEGMENT ┘
//
// Conn is the seam. Its implementations are Socket, which is one for Linux and a
// plain one for all other systems, and the in-memory twin in package udptest;
// udptest.TestConn says what all of them do. Classify tells the protocols apart
// that share the socket.
//
// On Linux each feature that the kernel or a device refuses is left out: groups
// that fail are sent again as single datagrams, and groups are tried again later.
package udp
