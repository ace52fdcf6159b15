#!/bin/sh
# systemd as the first process on a node, in a PID namespace of its own, for what packages do with it: systemd.sh NAME.
# It starts nothing by itself. What belongs to a booting machine (udev, clocks, timers) or is the lab's own (FRR) stays out; evpn-hook's is the scenarios'.
set -eu
mkdir -p /run/systemd/system
for unit in /lib/systemd/system/*.wants/* /etc/systemd/system/*.wants/*; do
    case $unit in */evpn-*) continue ;; esac
    [ ! -e "$unit" ] || ln -sf /dev/null "/run/systemd/system/${unit##*/}"
done
printf '[Unit]\nDefaultDependencies=no\n' >/run/systemd/system/lab.target
# It would give the node the machine's name, hence --uts. And it takes what it finds at /sys/fs/cgroup for all there is.
own=$(sed -n 's/^0:://p' /proc/self/cgroup)
cgroup=/sys/fs/cgroup${own%/}/systemd-$1
mkdir -p "$cgroup"
echo $$ >"$cgroup/cgroup.procs"
exec unshare --pid --fork --kill-child --mount --mount-proc --cgroup --uts -- sh -euc '
    umount /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    exec env -i container=lab "PATH=$PATH" /lib/systemd/systemd --system --unit=lab.target'
