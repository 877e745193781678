// Package offload turns super-frames into frames that fit a path, and frames into
// super-frames. It knows Ethernet, IP, TCP and UDP headers, and does no I/O.
//
//	host --- super-frame, virtio_net_hdr ---> Cutter ---> frames ---> members
//	host <-- super-frame, virtio_net_hdr --- Merger <--- frames <--- members
//
// A host that may leave segmentation to its network card (TUNSETOFFLOAD) hands over
// up to 64 KB of one TCP connection, or of one run of UDP datagrams, under one set
// of headers. That is one look-up and one copy for forty frames.
//
// The Cutter gives TCP segments the size that the path to their destination takes,
// which may be less than what the host believes: hosts keep an MTU of 1500, and no
// segment needs an overlay fragment. UDP datagrams keep their boundaries.
//
// The Merger is the Cutter's inverse. It merges only what the Cutter would cut into
// the same bytes again (the identification of IPv4 packets with DF apart, which
// means nothing there, RFC 6864), and only after it has verified the checksums: a
// merged frame gets a new one, and must not make a damaged segment look sound. The
// frames of a flow keep their order.
//
// Nothing is allocated for a frame. Both read what others have written, so that
// every offset is checked.
package offload
