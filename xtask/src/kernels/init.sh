# The guest's process 1: what a host has before Kiln comes to it, then the checks. What it says goes to the
# second serial port; the first is the kernel's.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
exec </dev/null >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
mkdir -p /lib/modules
mount --bind /mnt/modules /lib/modules
# Nodes that bring their module when they are opened, as every distribution makes them at boot.
[ -e /dev/loop-control ] || mknod -m 660 /dev/loop-control c 10 237
[ -e /dev/fuse ] || mknod -m 666 /dev/fuse c 10 229
ulimit -n 65536
hostname guest
echo 127.0.0.1 localhost guest >/etc/hosts
modprobe virtio_net
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
# The paths that the tests were built with.
read -r workspace </mnt/workspace
mkdir -p "$workspace"
mount --bind /mnt/workspace-tree "$workspace"
sh /mnt/checks
echo END
sync
sleep 1
busybox reboot -f
