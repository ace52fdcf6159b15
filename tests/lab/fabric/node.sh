#!/bin/sh
# One node of the fabric: node.sh NAME [SUITE], in fresh mount, net and uts namespaces. Gives the node a root of its own, so that it
# has its own /run, /etc, /var/lib, /usr/bin …, says "ready" and holds the namespaces until its stdin ends.
# Its files are those of a Debian suite, EVPN_LAB_USERLAND's if none is named: this machine's own, or another's (tests/lab/suite.sh). What the node has
# written lies above them, and is kept for a node of that name that comes up again.
set -eu
own=$(. /etc/os-release && echo "$VERSION_CODENAME")
name=$1 suite=${2:-${EVPN_LAB_USERLAND:-$own}}
files=/.lab-lower
[ "$suite" = "$own" ] || files=$EVPN_LAB_PROJECT/target/lab/suite-$suite
[ -e "$files" ] || { echo "no userland of $suite: tests/lab/suite.sh $suite" >&2; exit 1; }
base=/.lab-upper/nodes/$name
mkdir -p "$base/upper" "$base/work" "$base/root"
mount -t overlay "$name" -o "lowerdir=$files,upperdir=$base/upper,workdir=$base/work" "$base/root"
cd "$base/root"
mount --rbind /dev dev
mkdir -p ".$EVPN_LAB_PROJECT"
mount --rbind "$EVPN_LAB_PROJECT" ".$EVPN_LAB_PROJECT"
mkdir -p lib/modules .lab-old
[ ! -d /lib/modules ] || mount --bind /lib/modules lib/modules
mount -t proc proc proc
mount -t sysfs sysfs sys # a sysfs shows the interfaces of the namespace that mounted it
mount -t tmpfs run run
mount --bind /sys/fs/cgroup sys/fs/cgroup
pivot_root . .lab-old
umount -l /.lab-old

echo "$name" >/proc/sys/kernel/hostname
echo 127.0.0.1 localhost "$name" >/etc/hosts
ip link set lo up
# Duplicate address detection would hold the underlay's link-local addresses back for a second or two.
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding

# libvirtd looks these up even when qemu.conf says root; they come with libvirt-daemon-system, which wants systemd.
getent passwd libvirt-qemu >/dev/null || echo libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin >>/etc/passwd
getent group libvirt-qemu >/dev/null || echo libvirt-qemu:x:64055: >>/etc/group
# UML's kernel has nf_tables for bridges only.
if ! iptables --new-chain lab-probe 2>/dev/null; then
    for tables in iptables ip6tables; do ln -sf /usr/sbin/$tables-legacy /etc/alternatives/$tables; done
fi
iptables --delete-chain lab-probe 2>/dev/null || true
install -d -o frr -g frr /run/frr /var/log/frr
echo ready
exec cat
