#!/usr/bin/env bash
# other.sh SUITE PACKAGE: unpacks a package of another Debian suite with all libraries that it wants into target/lab/PACKAGE-SUITE/root/.
#   frr              trixie's is what most users have, and bookworm's has no IPv6 VTEPs, which came with 10.6 (sid)
#   user-mode-linux  other kernels
# Nothing is installed and nobody's apt is touched: it has a root of its own. Nothing to do when it is there and newer than this script.
set -euo pipefail

usage="usage: $0 SUITE PACKAGE"
suite=${1:?$usage} wanted=${2:?$usage}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
other=$(cd "$here/../.." && pwd -P)/target/lab/$wanted-$suite

stamp=$other/.unpacked
[ ! -e "$stamp" ] || [ "${BASH_SOURCE[0]}" -nt "$stamp" ] || exit 0
rm -rf "$other"
echo "lab: fetching $wanted of Debian $suite" >&2

mirror=$("$here/mirror")

# An apt that knows of no installed package and of this suite alone; its answer is the whole closure.
apt=$other/apt
mkdir -p "$apt"/etc/apt/{apt.conf.d,preferences.d,trusted.gpg.d} "$apt"/var/lib/apt/lists/partial \
    "$apt"/var/cache/apt/archives/partial "$apt"/var/lib/dpkg "$other/root"
: >"$apt/var/lib/dpkg/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/etc/apt/sources.list"
options=(-qq -o "Dir=$apt" -o "Dir::State::status=$apt/var/lib/dpkg/status" -o APT::Sandbox::User=root -o Acquire::Retries=3
         -o Acquire::Languages=none
         # A mirror that is some weeks behind has packages that are as good; signatures are checked all the same.
         -o Acquire::Check-Valid-Until=false)
apt-get "${options[@]}" update
apt-get "${options[@]}" install --yes --no-install-recommends --download-only "$wanted" >&2

# Of what it wants only libraries: what would start, configure or log is the lab's own affair.
for package in "$apt"/var/cache/apt/archives/*.deb; do
    case $(basename "$package") in
        "$wanted"_* | lib*) dpkg-deb -x "$package" "$other/root" ;;
        zlib1g_*) dpkg-deb -x "$package" "$other/root" ;;
    esac
done
rm -rf "$apt" "$other/root/usr/share/doc"
# What the package base-files makes.
for dir in bin sbin lib lib64; do ln -sfn usr/$dir "$other/root/$dir"; done
touch "$stamp"
