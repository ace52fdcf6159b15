#!/usr/bin/env bash
# other.sh SUITE PACKAGE: unpacks a package of another Debian suite, or one that is not to be installed, with all libraries that it wants into
# target/lab/PACKAGE-SUITE/root/.
#   frr              trixie's is what most users have, and bookworm's has no IPv6 VTEPs, which came with 10.6 (sid)
#   user-mode-linux  other kernels
#   incus-base       Incus for trixie's hosts; with its client, and the programs that it looks for when it starts
# Nothing is installed. Nothing to do when it is there and newer than its scripts.
set -euo pipefail

usage="usage: $0 SUITE PACKAGE"
suite=${1:?$usage} wanted=${2:?$usage}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
other=$(cd "$here/../.." && pwd -P)/target/lab/$wanted-$suite

stamp=$other/.unpacked
[ ! -e "$stamp" ] || [ -n "$(find "$here"/{other,unpack}.sh -newer "$stamp")" ] || exit 0
rm -rf "$other"
echo "lab: fetching $wanted of Debian $suite" >&2

# Of what it wants only libraries: what would start, configure or log is the lab's own affair.
"$here/unpack.sh" "$other/root" "$suite" "^($wanted|incus-client|rsync|attr|squashfs-tools|lib.*|zlib1g)_" "$wanted"
# What the package base-files makes.
for dir in bin sbin lib lib64; do ln -sfn usr/$dir "$other/root/$dir"; done
touch "$stamp"
