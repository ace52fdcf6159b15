#!/usr/bin/env bash
# Unpacks FRR of another Debian suite (trixie, sid) with all libraries that it wants into target/lab/frr-SUITE/: trixie's is what most users will have,
# and bookworm's has no IPv6 VTEPs, which came with 10.6 (sid).
# Nothing is installed and nobody's apt is touched: it has a root of its own. Nothing to do when it is there and newer than this script.
set -euo pipefail

suite=${1:?usage: $0 SUITE}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
other=$(cd "$here/../.." && pwd -P)/target/lab/frr-$suite

stamp=$other/.unpacked
[ ! -e "$stamp" ] || [ "${BASH_SOURCE[0]}" -nt "$stamp" ] || exit 0
rm -rf "$other"
echo "lab: fetching FRR of Debian $suite" >&2

# The mirror that this machine has its own packages from: it carries all suites.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)
[ -n "$mirror" ] || { echo "lab: apt knows no Debian mirror ('apt-get indextargets'): run 'apt-get update' first" >&2; exit 1; }

# An apt that knows of no installed package and of this suite alone; its answer is the whole closure.
apt=$other/apt
mkdir -p "$apt"/etc/apt/{apt.conf.d,preferences.d,trusted.gpg.d} "$apt"/var/lib/apt/lists/partial \
    "$apt"/var/cache/apt/archives/partial "$apt"/var/lib/dpkg "$other/root"
: >"$apt/var/lib/dpkg/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/etc/apt/sources.list"
options=(-qq -o "Dir=$apt" -o "Dir::State::status=$apt/var/lib/dpkg/status" -o APT::Sandbox::User=root -o Acquire::Retries=3
         -o Acquire::Languages=none
         # A mirror that is some weeks behind has an FRR that is as good; signatures are checked all the same.
         -o Acquire::Check-Valid-Until=false)
apt-get "${options[@]}" update
apt-get "${options[@]}" install --yes --no-install-recommends --download-only frr >&2

# Of these only libraries are wanted: what would start, configure or log is FRR's own affair in the lab.
for package in "$apt"/var/cache/apt/archives/*.deb; do
    case $(basename "$package") in
        frr_* | lib*) dpkg-deb -x "$package" "$other/root" ;;
        zlib1g_*) dpkg-deb -x "$package" "$other/root" ;;
    esac
done
rm -rf "$apt" "$other/root/usr/share/doc"
touch "$stamp"
