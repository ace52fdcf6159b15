#!/usr/bin/env bash
# Unpacks libvirt's own AppArmor profile and AppArmor's parser and abstractions into target/lab/apparmor/: their packages want a booted
# system, and are not installed. Nothing to do when they are there and newer than this script.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)/target/lab/apparmor

stamp=$root/.unpacked
[ ! -e "$stamp" ] || [ "${BASH_SOURCE[0]}" -nt "$stamp" ] || exit 0
rm -rf "$root"
mkdir -p "$root"
echo "lab: fetching libvirt's AppArmor profile" >&2
cd "$root"
# The profile moved from the one to the other in trixie.
download() { apt-get download -qq -o APT::Sandbox::User=root apparmor libvirt-daemon libvirt-daemon-system; }
download 2>/dev/null || { apt-get update -qq; download; }
for package in *.deb; do dpkg-deb -x "$package" .; done
# What an administrator would add; the package's installation makes it, empty.
mkdir -p etc/apparmor.d/local
touch etc/apparmor.d/local/usr.sbin.libvirtd
# Which of the kernel's rules a profile is about: without it the parser leaves out the network's.
mv usr/share/apparmor-features/features .
rm -rf ./*.deb usr
touch "$stamp"
