package traversal

import (
	"context"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// retry is the pause before a failed socket is replaced.
const retry = 5 * time.Second

// watchSystem listens to the kernel's notifications (rtnetlink(7)) of the network
// namespace that it is called in. What it returns hands them on until ctx is done.
func watchSystem() (run func(ctx context.Context, changed func())) {
	s, err := subscribe()
	return func(ctx context.Context, changed func()) {
		for ; err == nil; s, err = subscribe() {
			listen(ctx, s, changed)
			select {
			case <-ctx.Done():
				return
			case <-time.After(retry):
			}
			changed() // nobody has listened meanwhile
		}
		pollInterfaces(ctx, changed) // a sandbox forbids netlink
	}
}

func subscribe() (*nl.NetlinkSocket, error) {
	return nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
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
