#!/usr/bin/env bash
# Unpacks ufw and firewalld of a Debian suite with all that they want into target/lab/firewalls-SUITE/root/, where tests/cli/firewall/ runs them by chroot:
# installed, a firewalld would start with the machine's next boot.
# Nothing to do when they are there and newer than their scripts.
set -euo pipefail

suite=${1:?usage: $0 SUITE}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
there=$(cd "$here/../.." && pwd -P)/target/lab/firewalls-$suite

stamp=$there/.unpacked
[ ! -e "$stamp" ] || [ -n "$(find "$here"/{firewalls,unpack}.sh -newer "$stamp")" ] || exit 0
rm -rf "$there"
echo "lab: fetching ufw and firewalld of Debian $suite" >&2
root=$there/root
# From trixie on no package has anything in /bin, /sbin or /lib: base-files has the links.
"$here/unpack.sh" "$root" "$suite" '^[^_]*_' base-files ufw firewalld dbus-daemon iptables nftables dash coreutils procps

# What their installation would do: the alternatives of iptables, ufw's configuration (ufw.postinst), the one user.
for program in iptables ip6tables; do
    for what in '' -save -restore; do ln -sf xtables-nft-multi "$root/usr/sbin/$program$what"; done
done
cp "$root"/usr/share/ufw/iptables/*.rules "$root"/usr/share/ufw/{*.init,ufw.conf} "$root/etc/ufw"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
# Whatever they write goes to what a test mounts there.
mkdir -p "$root"/{dev,proc,run,sys,tmp,var/log}
ln -sfn /run "$root/var/run"
touch "$stamp"
