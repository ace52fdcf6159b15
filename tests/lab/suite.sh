#!/usr/bin/env bash
# suite.sh SUITE: the userland of a Debian suite, with all that the lab needs installed, in target/lab/suite-SUITE/: the files of the fabric's nodes where
# EVPN_LAB_USERLAND says so. Nothing of this machine is touched. Nothing to do when it is there and newer than its sources.
set -euo pipefail

suite=${1:?usage: $0 SUITE}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
project=$(cd "$here/../.." && pwd -P)
root=$project/target/lab/suite-$suite

stamp=$root/.installed
[ ! -e "$stamp" ] || [ -n "$(find "${BASH_SOURCE[0]}" "$here/deps.sh" -newer "$stamp")" ] || exit 0
rm -rf --one-file-system "$root"
mkdir -p "$root"
echo "lab: installing Debian $suite below target/lab" >&2
debootstrap --variant=minbase --include=make "$suite" "$root" "$("$here/mirror")" >&2

# Its packages' scripts see this machine's devices and processes of their own.
unshare --mount --pid --fork --kill-child --propagation private sh -ec '
    mount -t proc proc "$0/proc"
    mount --rbind /dev "$0/dev"
    mkdir -p "$0$1"
    mount --rbind "$1" "$0$1"
    cp --remove-destination /etc/resolv.conf "$0/etc/resolv.conf"
    exec chroot "$0" "$1/tests/lab/deps.sh"' "$root" "$project" >&2
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
touch "$stamp"
