#!/usr/bin/env bash
# apparmor.sh SUITE: unpacks libvirt's own AppArmor profile of a Debian suite, and AppArmor's parser and abstractions, into target/lab/apparmor-SUITE/: their
# packages want a booted system, and are not installed. Nothing to do when they are there and newer than their scripts.
set -euo pipefail

suite=${1:?usage: $0 SUITE}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)/target/lab/apparmor-$suite

stamp=$root/.unpacked
[ ! -e "$stamp" ] || [ -n "$(find "$here"/{apparmor,unpack}.sh -newer "$stamp")" ] || exit 0
rm -rf "$root"
echo "lab: fetching libvirt's AppArmor profile of Debian $suite" >&2
# The profile moved from libvirt-daemon-system to libvirt-daemon in trixie.
"$here/unpack.sh" "$root" "$suite" '' apparmor libvirt-daemon libvirt-daemon-system
cd "$root"
[ -e sbin ] || ln -s usr/sbin sbin
# What an administrator would add; the package's installation makes it, empty.
mkdir -p etc/apparmor.d/local
touch etc/apparmor.d/local/usr.sbin.libvirtd
# Which of the kernel's rules a profile is about: without it the parser leaves out the network's.
mv usr/share/apparmor-features/features .
touch "$stamp"
