#!/bin/busybox sh
# The first program of the guest: finds the disks and goes on from the first of them.
/bin/busybox mkdir -p /proc /sys /dev /new
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do
    # What one processor lacks another module does: crc32c has two.
    /bin/busybox insmod "/modules/$module" 2>/dev/null
done </modules/order
tries=0
until [ -b /dev/vdb ] || [ "$tries" = 300 ]; do
    tries=$((tries + 1))
    /bin/busybox sleep 0.1
done
/bin/busybox mount -t ext4 /dev/vda /new || exit 1
/bin/busybox mount -t ext4 /dev/vdb /new/mnt || exit 1
/bin/busybox mount -o move /dev /new/dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /new /bin/sh /mnt/init
