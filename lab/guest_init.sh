#!/bin/sh
# The first process of a guest kernel (lab/guest.py): mounts what a machine needs, loads
# the modules, runs the command that it was given, and powers off. CARNET_GUEST is the one
# directory of the machine outside that can be written to.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
for place in /run /var/lib /var/tmp /dev/shm; do
    mkdir -p "$place"
    mount -t tmpfs -o mode=0755 tmpfs "$place"
done
mkdir -p /dev/pts /dev/net
mount -t devpts devpts /dev/pts
mkdir -p /run/out /run/modules/lib
mount -t hostfs -o "$CARNET_GUEST" none /run/out
exec >/run/out/output 2>&1 </dev/null
export TMPDIR=/var/tmp HOME=/var/tmp PYTHONDONTWRITEBYTECODE=1

# All that is needed is loaded beforehand: the first use of a cipher would take seconds.
ln -s /usr/lib/uml/modules /run/modules/lib/modules
xargs modprobe -d /run/modules -a </run/out/modules
echo >/proc/sys/kernel/modprobe
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200

ip link set lo up
[ ! -e /run/out/systemd ] || . /run/out/systemd
date +%s >/run/out/started
/run/out/command
echo $? >/run/out/status.part
mv /run/out/status.part /run/out/status
# Power off by the system call: there is no init to ask, and a first process that ends panics.
exec python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)'
