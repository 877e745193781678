package plug

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// VDE's control protocol, as vde_switch 2.3 and libvdeplug speak it (vde-2,
// switch.h): the client asks for a port at the socket "ctl" and names the Unix
// datagram socket that it has bound, the switch answers with the name of its own.
// Frames are datagrams between the two; the end of the control connection is the
// end of the cable. Numbers and struct sockaddr_un have the machine's layout.
//
//	 0          4            8           12                 122
//	+----------+------------+-----------+------------------+-------------
//	| feedface | version 3  | request   | sockaddr_un (110)| description
//	+----------+------------+-----------+------------------+-------------
//
// The request is 0, a new port, with the wanted port's number above its low byte.
const (
	vdeMagic   = 0xfeedface
	vdeVersion = 3
	vdeNewPort = 0

	sockaddrLen = 110 // of struct sockaddr_un on Linux
	requestLen  = 12 + sockaddrLen
	maxDescribe = 128
	familyUnix  = 1
)

var errRequest = errors.New("not a VDE request")

// parseRequest returns the name of the client's datagram socket.
func parseRequest(b []byte) (name string, err error) {
	if len(b) < requestLen {
		return "", fmt.Errorf("%w: %d bytes", errRequest, len(b))
	}
	magic, version, kind := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:])
	switch {
	case magic != vdeMagic:
		return "", fmt.Errorf("%w: magic %#x", errRequest, magic)
	case version != vdeVersion:
		return "", fmt.Errorf("%w: version %d, want %d", errRequest, version, vdeVersion)
	case kind&0xff != vdeNewPort:
		return "", fmt.Errorf("%w: of type %d", errRequest, kind&0xff)
	}
	return parseSockaddr(b[12:requestLen])
}

// parseSockaddr reads a struct sockaddr_un that names a path.
func parseSockaddr(b []byte) (string, error) {
	if len(b) < sockaddrLen || binary.NativeEndian.Uint16(b) != familyUnix {
		return "", fmt.Errorf("%w: no Unix address", errRequest)
	}
	name, _, ended := bytes.Cut(b[2:sockaddrLen], []byte{0})
	if !ended || len(name) == 0 {
		return "", fmt.Errorf("%w: no path in its address", errRequest)
	}
	return string(name), nil
}

// appendSockaddr is the inverse of parseSockaddr. The name has at most 107 bytes.
func appendSockaddr(b []byte, name string) []byte {
	b = binary.NativeEndian.AppendUint16(b, familyUnix)
	var path [sockaddrLen - 2]byte
	copy(path[:len(path)-1], name)
	return append(b, path[:]...)
}
