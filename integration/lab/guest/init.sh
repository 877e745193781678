#!/bin/busybox sh
# The guest's first process. It configures eth0 by SLAAC, as any machine would,
# and then runs commands that come on a virtio-serial port, each beside the
# others: a line "NUMBER COMMAND" for each, and for the answer "NUMBER STATUS
# OUTPUT", command and output in base64.
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
export PATH=/bin HOME=/

while read -r module; do
	insmod "/modules/$module.ko"
done </modules/order

hostname "$(sed -n 's/.*guest.name=\([^ ]*\).*/\1/p' /proc/cmdline)"
echo 0 >/proc/sys/net/ipv6/conf/all/use_tempaddr
ip link set lo up
ip link set eth0 up

for port in /dev/vport*; do exec 3<>"$port"; done
answer() {
	until mkdir /tmp/lock 2>/dev/null; do sleep 0.01; done
	echo "$1 $2 $(base64 -w 0 "/tmp/$1")" >&3
	rmdir /tmp/lock
}
: >/tmp/0
answer 0 0
while read -r number command <&3; do
	(
		echo "$command" | base64 -d >"/tmp/$number.sh"
		sh "/tmp/$number.sh" >"/tmp/$number" 2>&1 </dev/null 3>&-
		answer "$number" $?
	) &
done
poweroff -f
