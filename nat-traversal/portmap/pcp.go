package portmap

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// PCP's messages (RFC 6887, sections 7 and 11); in brackets what differs in an answer.
//
//	version 2, op [128 + op], 0 (2) [0, result], lifetime (4), client's address (16) [epoch (4), 0 (12)]
//	MAP: nonce (12), protocol, 0 (3), inner port (2), suggested outer port (2), suggested outer address (16)
const (
	pcpVersion    = 2
	pcpAnnounce   = 0
	pcpMap        = 1
	pcpAnswer     = 128
	pcpHeader     = 24
	pcpMapLen     = pcpHeader + 36
	pcpMax        = 1100
	pcpUDP        = 17
	pcpErrVersion = 1
)

type pcpNonce [12]byte

func pcpRequest(op byte, lifetime time.Duration, client netip.Addr) []byte {
	b := []byte{pcpVersion, op, 0, 0}
	b = binary.BigEndian.AppendUint32(b, seconds(lifetime))
	a := client.As16() // IPv4 as ::ffff:a.b.c.d (section 5)
	return append(b, a[:]...)
}

func pcpAnnounceRequest(client netip.Addr) []byte { return pcpRequest(pcpAnnounce, 0, client) }

// pcpMapRequest asks for an outer address and port for inner; a lifetime of 0 removes it.
// Without a suggestion the outer address is zero, of inner's family.
func pcpMapRequest(inner, suggested netip.AddrPort, nonce pcpNonce, lifetime time.Duration) []byte {
	b := pcpRequest(pcpMap, lifetime, inner.Addr())
	b = append(b, nonce[:]...)
	b = append(b, pcpUDP, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, inner.Port())
	b = binary.BigEndian.AppendUint16(b, suggested.Port())
	outer := suggested.Addr()
	if outer.Is4() != inner.Addr().Is4() || !outer.IsValid() {
		outer = netip.IPv6Unspecified()
		if inner.Addr().Is4() {
			outer = netip.IPv4Unspecified()
		}
	}
	a := outer.As16()
	return append(b, a[:]...)
}

// pcpHead checks what all answers begin with. A NAT-PMP router answers with its own version.
func pcpHead(b []byte, op byte) (lifetime time.Duration, epoch uint32, err error) {
	if len(b) >= 4 && len(b) < pcpHeader && b[0] == 0 && b[1] >= pcpAnswer {
		return 0, 0, &ResultError{Protocol: PCP, Code: pcpErrVersion}
	}
	if len(b) < pcpHeader || len(b) > pcpMax || len(b)%4 != 0 || b[1] != pcpAnswer+op {
		return 0, 0, errNotAnswer
	}
	if b[0] != pcpVersion {
		return 0, 0, &ResultError{Protocol: PCP, Code: pcpErrVersion}
	}
	lifetime = time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second
	epoch = binary.BigEndian.Uint32(b[8:])
	if b[3] != 0 {
		return lifetime, epoch, &ResultError{Protocol: PCP, Code: int(b[3])}
	}
	return lifetime, epoch, nil
}

func parsePCPAnnounce(b []byte) (epoch uint32, err error) {
	_, epoch, err = pcpHead(b, pcpAnnounce)
	return epoch, err
}

// pcpGrant is the answer to a map request.
type pcpGrant struct {
	outer    netip.AddrPort
	lifetime time.Duration
	epoch    uint32
}

func parsePCPMap(b []byte, inner netip.AddrPort, nonce pcpNonce) (g pcpGrant, err error) {
	lifetime, epoch, err := pcpHead(b, pcpMap)
	if len(b) >= pcpMapLen && (pcpNonce(b[24:36]) != nonce || b[36] != pcpUDP || binary.BigEndian.Uint16(b[40:]) != inner.Port()) {
		return g, errNotAnswer // another's, also where it is a refusal
	}
	if err != nil {
		return g, err
	}
	if len(b) < pcpMapLen {
		return g, errNotAnswer
	}
	g.lifetime, g.epoch = lifetime, epoch
	g.outer = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[44:60])).Unmap(), binary.BigEndian.Uint16(b[42:]))
	return g, nil
}
