// Package guest runs small virtual machines on hosts of a lab: QEMU without
// KVM, Debian's cloud kernel, and an initramfs with busybox that takes
// commands. Tests plug them into meshd the way that users do.
//
//	files, err := guest.Load(ctx)            // of the cache, or of apt
//	g, err := guest.Boot(ctx, host, files, guest.Options{Name: "vm1", Netdev: "vde,sock=/run/mesh.vde"})
//	defer g.Close()
//	out, err := g.Run(ctx, "ping -c 3 -W 2 2001:db8::1")
//
// What a guest is made of, and how it is spoken to:
//
//	 test                       QEMU, a process on the host              guest
//	+-----+   stdin, stdout   +----------------------------+   +----------------------+
//	| Run |------------------>| virtio-serial port         |-->| /init: sh of busybox |
//	|     |<------------------|                            |<--|  a command at a time |
//	+-----+                   | -netdev vde|stream|dgram   |---| eth0, SLAAC          |
//	                          | serial port --> console log|<--| kernel's messages    |
//	                          +----------------------------+   +----------------------+
//
// A guest boots in 3 to 6 s on a free core, and QEMU takes some 200 MB. It ends
// with [Guest.Close], with its lab, and with this process.
package guest
