package api

import (
	"context"
	"net"
	"slices"
)

// credential is who is at the other end of a connection, by the kernel's word.
type credential struct {
	uid    int
	groups []int
	// known is false where the kernel does not say. The folder's access list has then been the only guard.
	known bool
}

// rights is what a credential may do.
type rights int

const (
	mayNothing rights = iota
	mayRead
	mayChange
)

// rightsOf decides what c may do at a socket that belongs to owner and group (-1: none): reading is for the group,
// changing for root and the owner.
func rightsOf(c credential, owner, group int) rights {
	switch {
	case !c.known:
		return mayChange
	case c.uid == 0 || c.uid == owner:
		return mayChange
	case group >= 0 && slices.Contains(c.groups, group):
		return mayRead
	default:
		return mayNothing
	}
}

// rightsKey is the context key of a connection's rights.
type rightsKey struct{}

// withRights notes in the context of a connection's requests what its other end may do.
func withRights(ctx context.Context, conn net.Conn) context.Context {
	c, ok := conn.(*limitedConn)
	if !ok {
		return ctx
	}
	return context.WithValue(ctx, rightsKey{}, c.rights)
}

// rightsIn is what the sender of a request may do: nothing, if nobody has looked.
func rightsIn(ctx context.Context) rights {
	r, _ := ctx.Value(rightsKey{}).(rights)
	return r
}
