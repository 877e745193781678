#!/bin/sh
# Starts a virtual machine whose network card is plugged into a running meshd:
#
#   vm.sh SOCKET NAME QEMU-ARGUMENT...
#   vm.sh vde:$XDG_RUNTIME_DIR/mesh.vde alpine -accel kvm -m 1G -cdrom alpine.iso
#
# SOCKET is what the node was given as --plug: vde:DIR, stream:PATH or dgram:PATH.
# NAME is the virtual machine's; its MAC follows from it, so that it keeps its
# address on the segment. Nothing here needs root.
set -eu
socket=$1 name=$2
shift 2
path=${socket#*:}

# 52:54:00 is QEMU's own; no two machines on the segment may have the same MAC.
mac=52:54:00:$(printf %s "$name" | sha256sum | sed 's/^\(..\)\(..\)\(..\).*/\1:\2:\3/')

case $socket in
vde:*) netdev=vde,sock=$path ;;
stream:*) netdev=stream,server=off,addr.type=unix,addr.path=$path ;;
# Datagrams need an address to be answered at: a socket of this machine's own.
dgram:*) netdev=dgram,remote.type=unix,remote.path=$path,local.type=unix,local.path=$path.$name ;;
*)
	echo "vm.sh: $socket is not vde:DIR, stream:PATH or dgram:PATH" >&2
	exit 2
	;;
esac
exec qemu-system-x86_64 -name "$name" -netdev "$netdev,id=mesh" -device "virtio-net-pci,netdev=mesh,mac=$mac" "$@"
