//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Loss says which UDP packets a host loses on their way in, as a hostile program or a broken card would. What is zero
// matches all.
type Loss struct {
	Percent int           // how many of those that match; 100 if 0
	Longer  int           // bytes of UDP payload: only packets with more
	Payload []PayloadByte // only packets that have all of these
	From    netip.Addr    // IPv4: only packets that come from there
}

// PayloadByte is a byte of a UDP payload.
type PayloadByte struct {
	At    int
	Value byte
}

const lossTable = "lablosses"

// Lose drops packets that match any of the losses; those of earlier calls are forgotten. Without any it drops none.
func (h *Host) Lose(losses ...Loss) error {
	return h.lab.change(fmt.Sprintf("let %s lose %+v", h.name, losses), func() error {
		for _, l := range losses {
			if l.Percent < 0 || l.Percent > 100 || l.Longer < 0 || l.Longer > 1<<16-9 || l.From.IsValid() && !l.From.Is4() {
				return errors.New("that cannot be")
			}
		}
		return flush(h.ns.fd, func(b *batch) {
			b.conn.DelTable(b.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: lossTable}))
			t := b.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: lossTable})
			in := b.base(t, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -400, false)
			for _, l := range losses {
				b.rule(in, proto(unix.IPPROTO_UDP), l.match(), verdict(expr.VerdictDrop))
			}
		})
	})
}

// udpHeader is the length of UDP's header, and of what its length field counts in.
const udpHeader = 8

func (l Loss) match() []expr.Any {
	var m []expr.Any
	if l.From.IsValid() {
		from := l.From.As4()
		m = append(m, join(family(unix.NFPROTO_IPV4), []expr.Any{load(srcAddr, reg1), &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: from[:]}})...)
	}
	if l.Longer > 0 {
		length := expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 4, Len: 2}
		m = append(m, port(length, uint16(l.Longer+udpHeader), expr.CmpOpGt)...)
	}
	for _, b := range l.Payload {
		at := expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: uint32(b.At + udpHeader), Len: 1}
		m = append(m, load(at, reg1), &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{b.Value}})
	}
	if l.Percent > 0 && l.Percent < 100 {
		m = append(m,
			&expr.Numgen{Register: reg1, Modulus: 100, Type: unix.NFT_NG_RANDOM},
			&expr.Byteorder{SourceRegister: reg1, DestRegister: reg1, Op: expr.ByteorderHton, Len: 4, Size: 4},
			&expr.Cmp{Op: expr.CmpOpLt, Register: reg1, Data: []byte{0, 0, 0, byte(l.Percent)}})
	}
	return m
}
