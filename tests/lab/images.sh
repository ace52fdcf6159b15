#!/usr/bin/env bash
# Builds the guests into target/lab/: vmlinuz + initramfs.gz for VMs, rootfs/ for containers. Nothing to do when they are newer than their sources.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
images=$(cd "$here/../.." && pwd -P)/target/lab/images
busybox=/bin/busybox

stamp=$images/.built
if [ -e "$stamp" ] && [ -z "$(find "$here/images.sh" "$here/guest" "$busybox" -newer "$stamp")" ]; then exit 0; fi
rm -rf "$images"
echo "lab: making the guests' images" >&2
mkdir -p "$images/download"

# The cloud kernel is only unpacked, never installed. The meta package says which one is current.
cd "$images/download"
[ -n "$(apt-cache search --names-only '^linux-image-cloud-amd64$')" ] || apt-get update -qq
kernel_package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p')
apt-get download -qq -o APT::Sandbox::User=root "$kernel_package" 2>/dev/null ||
    { apt-get update -qq; apt-get download -qq -o APT::Sandbox::User=root "$kernel_package"; }
dpkg-deb -x "$kernel_package"_*.deb .
cp boot/vmlinuz-* "$images/vmlinuz"

# Applets are found through links; the modules are loaded by guest/init in the order of their names.
tree() {
    mkdir -p "$1"/{bin,dev,proc,sys,run,tmp,etc/udhcpc}
    ln -s bin "$1/sbin"
    for applet in $("$busybox" --list); do ln -s busybox "$1/bin/$applet"; done
    cp --remove-destination "$busybox" "$1/bin/busybox"
    install -m 755 "$here/guest/udhcpc.script" "$1/etc/udhcpc/default.script"
}
tree "$images/initramfs"
install -m 755 "$here/guest/init" "$images/initramfs/init"
mkdir "$images/initramfs/modules"
number=10
modules=$(find . -maxdepth 4 -path '*lib/modules/*' -type d -prune | head -n 1)
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net; do
    # Compressed from trixie on, and most of them built in.
    found=$(find "$modules" -name "$module.ko" -o -name "$module.ko.xz")
    case $found in
        *.ko) cp "$found" "$images/initramfs/modules/$number-$module.ko" ;;
        *.ko.xz) xz -dc "$found" >"$images/initramfs/modules/$number-$module.ko" ;;
        *) grep -q "/$module.ko$" "$modules/modules.builtin" || { echo "lab: the guests' kernel has no $module" >&2; exit 1; } ;;
    esac
    number=$((number + 1))
done
(cd "$images/initramfs" && find . | cpio --quiet -o -H newc | gzip -1) >"$images/initramfs.gz"

tree "$images/rootfs"
install -m 755 "$here/guest/container-init" "$images/rootfs/bin/container-init"

cd "$images"
rm -rf download initramfs
touch "$stamp"
