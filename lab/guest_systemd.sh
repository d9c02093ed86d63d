# Goes on where guest_init.sh has a systemd as the first process: it starts the command as a
# unit, and powers off when that has ended. Read by guest_init.sh.

# systemd and what it starts write there; it goes to memory.
modprobe -d /run/modules overlay
for place in etc tmp; do
    mkdir -p "/run/written/$place" "/run/written/$place.work"
    mount -t overlay overlay "/$place" \
        -o "lowerdir=/$place,upperdir=/run/written/$place,workdir=/run/written/$place.work"
done
: >/etc/fstab
echo 00000000000000000000000000000001 >/etc/machine-id
rm -rf /etc/systemd/system/*.wants

units=/run/systemd/system
mkdir -p "$units"
# What looks after hardware that the guest has not.
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket \
    systemd-udevd-kernel.socket systemd-modules-load.service systemd-random-seed.service \
    systemd-hwdb-update.service systemd-network-generator.service systemd-networkd.socket \
    systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service systemd-sysctl.service \
    systemd-update-utmp.service systemd-remount-fs.service kmod-static-nodes.service \
    modprobe@.service proc-sys-fs-binfmt_misc.automount sys-kernel-config.mount \
    sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
    dev-hugepages.mount dev-mqueue.mount; do
    ln -s /dev/null "$units/$unit"
done

cat >"$units/carnet-lab.service" <<END
[Unit]
DefaultDependencies=no
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate

[Service]
Environment=PATH=$PATH LANG=$LANG TMPDIR=$TMPDIR HOME=$HOME PYTHONDONTWRITEBYTECODE=1
ExecStart=/run/out/command
ExecStopPost=/bin/sh -c 'echo \$EXIT_STATUS >/run/out/status'
StandardOutput=append:/run/out/output
StandardError=inherit
END
cat >"$units/carnet-lab.target" <<END
[Unit]
DefaultDependencies=no
Wants=carnet-lab.service
END
date +%s >/run/out/started
# Where the machine outside is a container systemd takes this for one, and leaves that out.
mount --make-rshared /
exec /usr/lib/systemd/systemd --unit=carnet-lab.target --log-target=journal --show-status=no
