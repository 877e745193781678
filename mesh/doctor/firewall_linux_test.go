package doctor

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"meshd/mesh/api"
)

const port = 51830

func isProtocol(p byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{p}}}
}

func isPort(n uint16, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: op, Register: 1, Data: binary.BigEndian.AppendUint16(nil, n)},
	}
}

// established is a rule of every firewall that we cannot weigh.
func established() []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, &expr.Bitwise{SourceRegister: 1}, &expr.Cmp{Op: expr.CmpOpNeq, Data: make([]byte, 4)}}
}

func rule(kind expr.VerdictKind, parts ...[]expr.Any) *nftables.Rule {
	r := &nftables.Rule{}
	for _, p := range parts {
		r.Exprs = append(r.Exprs, p...)
	}
	r.Exprs = append(r.Exprs, &expr.Counter{}, &expr.Verdict{Kind: kind})
	return r
}

func TestJudgeChain(t *testing.T) {
	udp, tcp := isProtocol(unix.IPPROTO_UDP), isProtocol(unix.IPPROTO_TCP)
	for _, test := range []struct {
		name   string
		rules  []*nftables.Rule
		policy bool // drops
		want   effect
	}{
		{"empty", nil, false, passes},
		{"empty, policy drop", nil, true, drops},
		{"our port accepted", []*nftables.Rule{rule(expr.VerdictAccept, udp, isPort(port, expr.CmpOpEq))}, true, passes},
		{"another port accepted", []*nftables.Rule{rule(expr.VerdictAccept, udp, isPort(22, expr.CmpOpEq))}, true, drops},
		{"our TCP port accepted", []*nftables.Rule{rule(expr.VerdictAccept, tcp, isPort(port, expr.CmpOpEq))}, true, drops},
		{"our port dropped", []*nftables.Rule{rule(expr.VerdictDrop, udp, isPort(port, expr.CmpOpEq))}, false, drops},
		{"all UDP dropped", []*nftables.Rule{rule(expr.VerdictDrop, udp)}, false, drops},
		{"all but one port dropped", []*nftables.Rule{rule(expr.VerdictDrop, udp, isPort(53, expr.CmpOpNeq))}, false, drops},
		{"all but ours dropped", []*nftables.Rule{rule(expr.VerdictDrop, udp, isPort(port, expr.CmpOpNeq))}, false, passes},
		{"accepted before it is dropped", []*nftables.Rule{rule(expr.VerdictAccept, udp, isPort(port, expr.CmpOpEq)), rule(expr.VerdictDrop)}, false, passes},
		{"dropped before it is accepted", []*nftables.Rule{rule(expr.VerdictDrop), rule(expr.VerdictAccept, udp, isPort(port, expr.CmpOpEq))}, true, drops},
		{"a rule that only counts", []*nftables.Rule{{Exprs: []expr.Any{&expr.Counter{}}}}, false, passes},
		{"not understood, policy drop", []*nftables.Rule{rule(expr.VerdictAccept, established())}, true, unclear},
		{"not understood, policy accept", []*nftables.Rule{rule(expr.VerdictAccept, established())}, false, passes},
		{"not understood, then all dropped", []*nftables.Rule{rule(expr.VerdictAccept, established()), rule(expr.VerdictDrop)}, false, drops},
		{"a jump", []*nftables.Rule{rule(expr.VerdictJump)}, true, drops},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := judgeChain(test.rules, test.policy, port); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestFirewallVerdict(t *testing.T) {
	c := firewallVerdict([]finding{{"filter input", passes}, {"ufw input", drops}}, port)[0]
	if c.State != api.CheckWarning || !strings.Contains(c.Text, "ufw input") || !strings.Contains(c.Remedy, "51830") {
		t.Errorf("%+v", c)
	}
	if c := firewallVerdict([]finding{{"filter input", unclear}}, port)[0]; c.State != api.CheckOK {
		t.Errorf("%+v", c)
	}
}
