#!/usr/bin/env bash
# Installs what the lab needs on a Debian (trixie and bookworm are what is tested). Does nothing, quickly, when all is there.
set -euo pipefail

packages=(
    gcc libc6-dev                                           # what cargo links with, and the bench's no-op
    frr frr-pythontools                                     # the fabric's routers, and what "systemctl reload frr" runs
    libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 dnsmasq-base iptables nftables
    keepalived                                              # a VIP that fails over between guests
    lxc uidmap                                              # containers, also those of users
    user-mode-linux kmod                                    # a kernel with VRF where this one has none
    busybox-static cpio                                     # guest images
    isc-dhcp-client                                         # DHCPv6, which busybox does not speak
    systemd udev network-manager                            # starts the packages' service; what else manages a host's network
    iproute2 iputils-ping tcpdump procps util-linux
    xz-utils debootstrap                                    # for libvirt's source package, and another suite's userland
    valgrind strace                                         # count what a hook does (benches/common/count.rs)
)
# In trixie libvirt's drivers are packages of their own, which nothing depends on.
. /etc/os-release
[ "${VERSION_ID:-0}" -lt 13 ] 2>/dev/null ||
    packages+=(libvirt-daemon-driver-network libvirt-daemon-driver-nwfilter libvirt-daemon-driver-secret)

missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
[ "$(id -u)" = 0 ] || { echo "lab: needs root to install: ${missing[*]}" >&2; exit 1; }

# No daemon may start here because its package was installed: the lab starts its own, inside.
policy=/usr/sbin/policy-rc.d
saved=
[ ! -e "$policy" ] || { saved=$(mktemp); cp -p "$policy" "$saved"; }
restore() { if [ -n "$saved" ]; then mv "$saved" "$policy"; else rm -f "$policy"; fi; }
trap restore EXIT
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod +x "$policy"

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
echo "lab: installing ${missing[*]}" >&2
apt-get install -y -q --no-install-recommends "${missing[@]}"
