#!/usr/bin/env bash
# unpack.sh ROOT SUITE NAMES PACKAGE…: unpacks these packages of a Debian suite, and of all that they want those whose names this pattern of grep's has, into ROOT.
# Nothing of what they want where the pattern is empty.
# Nothing is installed or configured, and nobody's apt is touched: it has a root of its own.
set -euo pipefail

root=$1 suite=$2 names=$3
shift 3

mirror=$("$(dirname "${BASH_SOURCE[0]}")/mirror")

# An apt that knows of no installed package and of this suite alone; its answer is the whole closure.
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt"/etc/apt/{apt.conf.d,preferences.d,trusted.gpg.d} "$apt"/var/lib/apt/lists/partial \
    "$apt"/var/cache/apt/archives/partial "$apt"/var/lib/dpkg "$root"
: >"$apt/var/lib/dpkg/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/etc/apt/sources.list"
options=(-qq -o "Dir=$apt" -o "Dir::State::status=$apt/var/lib/dpkg/status" -o APT::Sandbox::User=root -o Acquire::Retries=3
         -o Acquire::Languages=none
         # A mirror that is some weeks behind has packages that are as good; signatures are checked all the same.
         -o Acquire::Check-Valid-Until=false)
apt-get "${options[@]}" update
fetched=$apt/var/cache/apt/archives
if [ -n "$names" ]; then
    apt-get "${options[@]}" install --yes --no-install-recommends --download-only "$@" >&2
else
    (cd "$fetched" && apt-get "${options[@]}" download "$@" >&2)
fi
for package in "$fetched"/*.deb; do
    ! grep -qE "$names" <<<"${package##*/}" || dpkg-deb -x "$package" "$root"
done
rm -rf "$root"/usr/share/{doc,man,locale}
