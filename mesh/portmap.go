package mesh

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"

	"meshd/nat-traversal"
	"meshd/nat-traversal/portmap"
)

// portMapping is what a Host may offer: routers that can be asked for a port.
type portMapping interface {
	PortMapper(cfg portmap.Config) *portmap.Mapper
}

// PortMapper makes what asks the routers of this machine.
func (m machine) PortMapper(cfg portmap.Config) *portmap.Mapper {
	cfg.Mark = m.mark
	return portmap.New(cfg)
}

// newMapper is nil where routers are not to be asked, or nobody could use the port.
func (n *Node) newMapper() *portmap.Mapper {
	host, ok := n.cfg.Host.(portMapping)
	if !ok || n.cfg.NoPortmap || n.cfg.Listen.Addr().IsLoopback() {
		return nil
	}
	private := n.identity.WireGuard
	secret, err := hkdf.Key(sha256.New, private[:], nil, "meshd/1/portmap", sha256.Size)
	if err != nil {
		return nil
	}
	return host.PortMapper(portmap.Config{
		Port:    n.conns[0].LocalAddr().Port(),
		Secret:  [sha256.Size]byte(secret),
		Changed: n.wake,
		Logger:  n.log,
	})
}

// mapPorts keeps ports open at the routers until ctx ends.
func (n *Node) mapPorts(ctx context.Context) error {
	if n.mapper == nil {
		return nil
	}
	return n.mapper.Run(ctx)
}

// unmapPorts closes them again, except where another process takes over at once:
// it then finds the same port.
func (n *Node) unmapPorts() {
	if n.mapper == nil || n.keepsTAP() {
		return
	}
	if err := n.mapper.Remove(context.Background()); err != nil {
		n.log.Info("close a mapped port", "err", err)
	}
}

func (n *Node) keepsTAP() bool { return n.cfg.KeepTAP != nil && n.cfg.KeepTAP() && !n.leaving.Load() }

// mapped are the addresses that routers let others in at. One that is not public
// is of no use: another NAT is in front of it.
func (n *Node) mapped() (list []traversal.Candidate) {
	if n.mapper == nil {
		return nil
	}
	for _, m := range n.mapper.Mappings() {
		if m.Public() {
			list = append(list, traversal.Candidate{Addr: m.External, Kind: traversal.Mapped})
		}
	}
	return list
}
