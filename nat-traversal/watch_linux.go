package traversal

import (
	"context"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watchSystem listens to the kernel's notifications (rtnetlink(7)) of the network
// namespace that it is called in, until ctx is done.
func watchSystem(ctx context.Context, changed func()) {
	const retry = 5 * time.Second
	for ctx.Err() == nil {
		s, err := nl.Subscribe(unix.NETLINK_ROUTE,
			unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
			unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
		if err != nil { // forbidden by a sandbox
			pollInterfaces(ctx, changed)
			return
		}
		listen(ctx, s, changed)
		changed() // what happened between the sockets is not known
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

// listen returns when ctx is done or the socket has failed. The socket is closed then.
func listen(ctx context.Context, s *nl.NetlinkSocket, changed func()) {
	stop := context.AfterFunc(ctx, s.Close) // wakes Receive
	defer func() {
		if stop() {
			s.Close()
		}
	}()
	for {
		// What the messages say does not matter. ENOBUFS means that some are lost.
		_, _, err := s.Receive()
		if err != nil && err != unix.ENOBUFS && err != unix.EINTR {
			return
		}
		changed()
	}
}
