//go:build linux

package lab

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ruleset is NAT and firewall of a router whose interfaces are wan0 and lan0.
type ruleset struct {
	nat      NAT
	public   netip.Addr   // of wan0, for NAT
	inner    netip.Prefix // of lan0
	openV6   bool
	accepts  bool
	hairpin  bool
	blockUDP bool
	onlyTCP  uint16
	timeout  time.Duration
}

// natTable is the table of NAT; the firewall's is another.
const natTable = "labnat"

// streamTimeout is the kernel's default for UDP flows that have seen an answer.
const streamTimeout = 120 * time.Second

// External ports of mapped flows: portRange from a start between firstPort and twice that.
const (
	firstPort = 20000
	portRange = 20000
)

// load gives a router its rules.
func (r ruleset) load(ns *namespace) error {
	if r.timeout > 0 {
		seconds := strconv.Itoa(max(1, int(r.timeout/time.Second)))
		err := ns.sysctl(map[string]string{"netfilter/nf_conntrack_udp_timeout": seconds, "netfilter/nf_conntrack_udp_timeout_stream": seconds})
		if err != nil {
			return err
		}
	}
	return flush(ns.fd, func(b *batch) {
		r.filter(b)
		r.translate(b)
	})
}

// reload replaces NAT after a change of the public address. As in a router that gets a new address, nothing that was
// mapped to the old one is kept.
func (r ruleset) reload(ns *namespace) error {
	err := flush(ns.fd, func(b *batch) {
		b.conn.DelTable(b.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: natTable}))
		r.translate(b)
	})
	if err != nil {
		return err
	}
	return ns.do(func() error {
		if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
			return fmt.Errorf("forget flows of %q: %w", ns.name, err)
		}
		return nil
	})
}

// probeRules tries what a ruleset needs in an empty namespace.
func probeRules(fd int) error {
	return flush(fd, func(b *batch) {
		r := ruleset{nat: FullCone, public: dns4}
		r.filter(b)
		r.translate(b)
	})
}

// batch collects rules that are loaded at once.
type batch struct {
	conn *nftables.Conn
	sets uint32
	err  error
}

// flush opens nftables in a namespace and loads what add adds.
func flush(fd int, add func(*batch)) error {
	conn, err := nftables.New(nftables.WithNetNSFd(fd))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	b := &batch{conn: conn}
	add(b)
	if b.err != nil {
		return fmt.Errorf("make rules: %w", b.err)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("load rules: %w", err)
	}
	return nil
}

// base makes a chain that the kernel calls.
func (b *batch) base(t *nftables.Table, kind nftables.ChainType, hook *nftables.ChainHook, prio int32, drop bool) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	if drop {
		policy = nftables.ChainPolicyDrop
	}
	return b.conn.AddChain(&nftables.Chain{
		Name: fmt.Sprintf("%s%d_%d", kind, *hook, prio+1000), Table: t, Type: kind, Hooknum: hook,
		Priority: nftables.ChainPriorityRef(nftables.ChainPriority(prio)), Policy: &policy,
	})
}

// rule appends a rule: matches and actions in their order.
func (b *batch) rule(c *nftables.Chain, parts ...[]expr.Any) { b.named(c, "", parts...) }

// named appends a rule with a name, by which its counter is found.
func (b *batch) named(c *nftables.Chain, name string, parts ...[]expr.Any) {
	var exprs []expr.Any
	for _, p := range parts {
		exprs = append(exprs, p...)
	}
	b.conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: exprs, UserData: []byte(name)})
}

// set makes a set, or a map when data is given, that rules fill and whose elements die when they are not renewed.
func (b *batch) set(t *nftables.Table, name string, life time.Duration, data nftables.SetDatatype, key ...nftables.SetDatatype) *nftables.Set {
	b.sets++ // numbered here, since the library numbers by a variable of the whole process
	s := &nftables.Set{
		Table: t, ID: b.sets, Name: name, Dynamic: true, HasTimeout: true, Timeout: life, Size: 65535,
		KeyType: key[0],
	}
	if len(key) > 1 {
		s.KeyType, s.Concatenation = nftables.MustConcatSetType(key...), true
	}
	if data.Bytes > 0 {
		s.IsMap, s.DataType = true, data
	}
	if err := b.conn.AddSet(s, nil); err != nil && b.err == nil {
		b.err = err
	}
	return s
}

// Registers: 1 to 4 have 16 bytes each, of which 8 to 23 are the four-byte pieces, as a concatenation needs them.
const (
	reg1, reg2, reg3 = 1, 2, 3
	reg1hi, reg3hi   = 9, 17 // the second pieces of 1 and 3
)

// filter is the stateful firewall: the LAN may do everything, others may answer. It counts as well.
func (r ruleset) filter(b *batch) {
	t := b.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "lab"})
	in := b.base(t, nftables.ChainTypeFilter, nftables.ChainHookInput, 0, false)
	if !r.accepts {
		b.named(in, countDropped, iif(wanName), proto(unix.IPPROTO_UDP), ctNew(), count(), verdict(expr.VerdictDrop))
		b.named(in, countDropped, iif(wanName), proto(unix.IPPROTO_TCP), ctNew(), count(), verdict(expr.VerdictDrop))
	}

	fwd := b.base(t, nftables.ChainTypeFilter, nftables.ChainHookForward, 0, false)
	if r.blockUDP {
		b.rule(fwd, oif(wanName), proto(unix.IPPROTO_UDP), port(dstPort, 53, expr.CmpOpNeq), verdict(expr.VerdictDrop))
	}
	if r.onlyTCP != 0 {
		b.rule(fwd, oif(wanName), proto(unix.IPPROTO_UDP), port(dstPort, 53, expr.CmpOpEq), verdict(expr.VerdictAccept))
		b.rule(fwd, oif(wanName), proto(unix.IPPROTO_TCP), port(dstPort, r.onlyTCP, expr.CmpOpEq), verdict(expr.VerdictAccept))
		b.rule(fwd, oif(wanName), verdict(expr.VerdictDrop))
	}
	b.rule(fwd, ctKnown(), verdict(expr.VerdictAccept))
	b.rule(fwd, iif(lanName), verdict(expr.VerdictAccept))
	b.rule(fwd, ctDNAT(), verdict(expr.VerdictAccept))
	if r.nat == None {
		b.rule(fwd, family(unix.NFPROTO_IPV4), verdict(expr.VerdictAccept))
	}
	if r.openV6 {
		b.rule(fwd, family(unix.NFPROTO_IPV6), verdict(expr.VerdictAccept))
	}
	b.named(fwd, countDropped, count(), verdict(expr.VerdictDrop))

	first := b.base(t, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300, false)
	last := b.base(t, nftables.ChainTypeFilter, nftables.ChainHookPostrouting, 300, false)
	b.named(first, countIn, iif(wanName), count())
	b.named(first, countUDPIn, iif(wanName), proto(unix.IPPROTO_UDP), count())
	b.named(last, countOut, oif(wanName), count())
	b.named(last, countUDPOut, oif(wanName), proto(unix.IPPROTO_UDP), count())
}

// translate is NAT.
//
// Endpoint-independent mapping is three tables that packets on their way out fill, and keep alive:
//
//	ports  inner address . inner port -> external port       what SNAT uses
//	inner  external port -> inner address . inner port       what a full cone lets everyone in by
//	seen   remote address . external port                    what restricts the cone
func (r ruleset) translate(b *batch) {
	if r.nat == None {
		return
	}
	t := b.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: natTable})
	post := b.base(t, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 100, false)
	switch r.nat {
	case HomePortKept:
		b.rule(post, oif(wanName), []expr.Any{&expr.Masq{}})
		return
	case Symmetric:
		b.rule(post, oif(wanName), []expr.Any{&expr.Masq{FullyRandom: true}})
		return
	}
	life := r.timeout
	if life == 0 {
		life = streamTimeout
	}
	addr, service := nftables.TypeIPAddr, nftables.TypeInetService
	ports := b.set(t, "ports", life, service, addr, service)
	inner := b.set(t, "inner", life, nftables.MustConcatSetType(addr, service), service)
	seen := b.set(t, "seen", life, nftables.SetDatatype{}, addr, service)

	remember := [][]expr.Any{
		update(ports, reg1, reg2), update(inner, reg2, reg1),
		{load(dstAddr, reg3)},
		lookup(ports, reg1, reg3hi), update(seen, reg3, 0),
	}
	fwd := b.base(t, nftables.ChainTypeFilter, nftables.ChainHookForward, 10, false)
	udpOut := join(oif(wanName), proto(unix.IPPROTO_UDP), []expr.Any{load(srcAddr, reg1), load(srcPort, reg1hi)})
	b.rule(fwd, append([][]expr.Any{udpOut, lookup(ports, reg1, reg2)}, append(remember, verdict(expr.VerdictAccept))...)...)
	b.rule(fwd, append([][]expr.Any{udpOut, nextPort(reg2)}, remember...)...)

	b.rule(post, udpOut, lookup(ports, reg1, reg2), r.toOuter())
	b.rule(post, oif(wanName), []expr.Any{&expr.Masq{}})
	r.admit(b, t, inner, seen)
	if r.hairpin {
		r.loop(b, t, [2]*nftables.Chain{fwd, post}, [2]*nftables.Set{ports, inner})
	}
}

// toOuter gives a packet the public address and the port in register 2 as its source.
func (r ruleset) toOuter() []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: reg1, Data: r.public.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, RegProtoMin: reg2, Specified: true},
	}
}

// toInner sends a packet to whom its destination port belongs.
func toInner(inner *nftables.Set) []expr.Any {
	return join([]expr.Any{load(dstPort, reg2)}, lookup(inner, reg2, reg1), []expr.Any{
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, RegProtoMin: reg1hi, Specified: true},
	})
}

// loop lets hosts of the LAN reach each other at the public address. Source and destination are both translated, as RFC
// 4787, REQ-9 wants it ("External source IP address and port").
func (r ruleset) loop(b *batch, t *nftables.Table, chains [2]*nftables.Chain, maps [2]*nftables.Set) {
	fwd, post := chains[0], chains[1]
	ports, inner := maps[0], maps[1]
	toPublic := []expr.Any{load(dstAddr, reg1), &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: r.public.AsSlice()}}
	pre := b.base(t, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -99, false)
	b.rule(pre, iif(lanName), proto(unix.IPPROTO_UDP), toPublic, toInner(inner))

	mask := net.CIDRMask(r.inner.Bits(), 32)
	fromLAN := []expr.Any{
		load(srcAddr, reg1),
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: r.inner.Masked().Addr().AsSlice()},
	}
	looped := join(oif(lanName), proto(unix.IPPROTO_UDP), fromLAN, ctDNAT(), []expr.Any{load(srcAddr, reg1), load(srcPort, reg1hi)})
	remember := join(update(ports, reg1, reg2), update(inner, reg2, reg1))
	b.rule(fwd, looped, lookup(ports, reg1, reg2), remember, verdict(expr.VerdictAccept))
	b.rule(fwd, looped, nextPort(reg2), remember)
	b.rule(post, looped, lookup(ports, reg1, reg2), r.toOuter())
}

// admit lets in what the kind of NAT lets in beside answers.
func (r ruleset) admit(b *batch, t *nftables.Table, inner, seen *nftables.Set) {
	udpIn := join(iif(wanName), proto(unix.IPPROTO_UDP))
	dnat := toInner(inner)
	switch r.nat {
	case FullCone:
		pre := b.base(t, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -100, false)
		b.rule(pre, udpIn, dnat)
	case AddressRestricted:
		pre := b.base(t, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -100, false)
		known := []expr.Any{load(srcAddr, reg3), load(dstPort, reg3hi), &expr.Lookup{SourceRegister: reg3, SetID: seen.ID, SetName: seen.Name}}
		b.rule(pre, udpIn, known, dnat)
	}
}

// Fields of IPv4, TCP and UDP headers.
var (
	srcAddr = expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
	dstAddr = expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}
	srcPort = expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2}
	dstPort = expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
)

func load(field expr.Payload, reg uint32) expr.Any {
	field.DestRegister = reg
	return &field
}

func join(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func iif(name string) []expr.Any { return ifname(expr.MetaKeyIIFNAME, name) }

func oif(name string) []expr.Any { return ifname(expr.MetaKeyOIFNAME, name) }

func ifname(key expr.MetaKey, name string) []expr.Any {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return []expr.Any{&expr.Meta{Key: key, Register: reg1}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: data}}
}

func proto(p byte) []expr.Any { return meta(expr.MetaKeyL4PROTO, p) }

func family(f byte) []expr.Any { return meta(expr.MetaKeyNFPROTO, f) }

func meta(key expr.MetaKey, value byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: reg1}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{value}}}
}

func port(field expr.Payload, number uint16, op expr.CmpOp) []expr.Any {
	return []expr.Any{load(field, reg1), &expr.Cmp{Op: op, Register: reg1, Data: binaryutil.BigEndian.PutUint16(number)}}
}

// ctKnown matches packets of flows that are known, or belong to one.
func ctKnown() []expr.Any {
	return ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

func ctNew() []expr.Any { return ctBits(expr.CtKeySTATE, expr.CtStateBitNEW) }

// ctDNAT matches packets of flows whose destination has been translated: IPS_DST_NAT.
func ctDNAT() []expr.Any { return ctBits(expr.CtKeySTATUS, 1<<5) }

func ctBits(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
	}
}

func count() []expr.Any { return []expr.Any{&expr.Counter{}} }

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func lookup(m *nftables.Set, key, data uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: key, DestRegister: data, IsDestRegSet: true, SetID: m.ID, SetName: m.Name}}
}

// update adds an element, or renews the life of the one that is there.
func update(s *nftables.Set, key, data uint32) []expr.Any {
	return []expr.Any{&expr.Dynset{SrcRegKey: key, SrcRegData: data, SetID: s.ID, SetName: s.Name, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE)}}
}

// nextPort takes the next external port. They are counted and not drawn, so that two flows never get the same.
func nextPort(reg uint32) []expr.Any {
	return []expr.Any{
		&expr.Numgen{Register: reg, Modulus: portRange, Type: unix.NFT_NG_INCREMENTAL, Offset: firstPort + rand.Uint32N(firstPort)},
		&expr.Byteorder{SourceRegister: reg, DestRegister: reg, Op: expr.ByteorderHton, Len: 2, Size: 2},
	}
}
