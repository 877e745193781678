package portmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// NAT-PMP's messages (RFC 6886, section 3); those of an answer in brackets.
//
//	address  version 0, op 0                                    [op 128, result (2), epoch (4), address (4)]
//	map      version 0, op 1, 0 (2), inner (2), outer (2),      [op 129, result (2), epoch (4), inner (2),
//	         lifetime (4)                                        outer (2), lifetime (4)]
const (
	natpmpAddress    = 0
	natpmpMapUDP     = 1
	natpmpAnswer     = 128
	natpmpHeader     = 8
	natpmpAddressLen = 12
	natpmpMapLen     = 16
)

// errNotAnswer is for a datagram that does not answer the question.
var errNotAnswer = errors.New("not an answer to this question")

// ResultError is a router's refusal.
type ResultError struct {
	Protocol Protocol
	Code     int
	Text     string // from the router; UPnP only
}

// Error names the code; those of PCP and NAT-PMP have names in their RFCs.
func (e *ResultError) Error() string {
	names := map[Protocol][]string{
		PCP: {
			"success", "unsupported version", "not authorized", "malformed request", "unsupported operation", "unsupported option",
			"malformed option", "network failure", "no resources", "unsupported protocol", "user exceeded quota",
			"cannot provide external", "address mismatch", "excessive remote peers",
		},
		NATPMP: {"success", "unsupported version", "not authorized", "network failure", "out of resources", "unsupported operation"},
	}[e.Protocol]
	text := e.Text
	if e.Code >= 0 && e.Code < len(names) {
		text = names[e.Code]
	}
	return fmt.Sprintf("the router refuses (%v, %d): %s", e.Protocol, e.Code, text)
}

func natpmpAddressRequest() []byte { return []byte{0, natpmpAddress} }

// natpmpMapRequest asks for an outer port for an inner one; a lifetime of 0 removes it.
func natpmpMapRequest(inner, outer uint16, lifetime time.Duration) []byte {
	b := []byte{0, natpmpMapUDP, 0, 0}
	b = binary.BigEndian.AppendUint16(b, inner)
	b = binary.BigEndian.AppendUint16(b, outer)
	return binary.BigEndian.AppendUint32(b, seconds(lifetime))
}

// natpmpHead checks what all answers begin with.
func natpmpHead(b []byte, op byte, size int) (epoch uint32, err error) {
	if len(b) < natpmpHeader || b[0] != 0 || b[1] != natpmpAnswer+op {
		return 0, errNotAnswer
	}
	epoch = binary.BigEndian.Uint32(b[4:])
	if code := binary.BigEndian.Uint16(b[2:]); code != 0 {
		return epoch, &ResultError{Protocol: NATPMP, Code: int(code)}
	}
	if len(b) != size {
		return 0, errNotAnswer
	}
	return epoch, nil
}

func parseNATPMPAddress(b []byte) (external netip.Addr, epoch uint32, err error) {
	if epoch, err = natpmpHead(b, natpmpAddress, natpmpAddressLen); err != nil {
		return netip.Addr{}, epoch, err
	}
	return netip.AddrFrom4([4]byte(b[8:12])), epoch, nil
}

// natpmpGrant is the answer to a map request.
type natpmpGrant struct {
	inner, outer uint16
	lifetime     time.Duration
	epoch        uint32
}

func parseNATPMPMap(b []byte, inner uint16) (g natpmpGrant, err error) {
	if g.epoch, err = natpmpHead(b, natpmpMapUDP, natpmpMapLen); err != nil {
		return g, err
	}
	g.inner, g.outer = binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint16(b[10:])
	g.lifetime = time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Second
	if g.inner != inner {
		return g, errNotAnswer
	}
	return g, nil
}

func seconds(d time.Duration) uint32 { return uint32(min(max(d/time.Second, 0), 1<<31)) }
