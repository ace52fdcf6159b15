//! The hooks' symlinks. Symlinks to /usr/bin/evpn-hook, never copies: libvirtd's AppArmor profile runs what lies in
//! /etc/libvirt/hooks confined, where a netlink socket is refused, but `/usr/bin/*` unconfined
//! (apparmor/usr.sbin.libvirtd.in, `/usr/bin/* PUx`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the links point to. Where `make install` puts the binary.
pub const BINARY: &str = "/usr/bin/evpn-hook";

/// libvirt runs every executable of these directories, in order of their names (since 6.5.0, hooks.html).
const LIBVIRT: [&str; 2] = ["etc/libvirt/hooks/qemu.d/50-evpn-hook", "etc/libvirt/hooks/network.d/50-evpn-hook"];

/// Where LXC's own hooks lie. Containers choose it one by one (`lxc.include`): a hook in common.conf.d would set
/// lxc.hook.version for containers whose other hooks count on version 0.
const LXC: &str = "usr/share/lxc/hooks/evpn-hook";

/// Why a link was not made.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct InstallError {
    path: PathBuf,
    why: String,
}

/// Each place that a hook of ours is linked at, and whether it is libvirt's (else LXC's).
pub fn places(root: &Path) -> Vec<(PathBuf, bool)> {
    let all = |libvirt: bool| links(root, libvirt, !libvirt).into_iter().map(move |(path, _)| (path, libvirt));
    all(true).chain(all(false)).collect()
}

fn links(root: &Path, libvirt: bool, lxc: bool) -> Vec<(PathBuf, &'static Path)> {
    let both = libvirt == lxc;
    let mut links = Vec::new();
    if libvirt || both {
        links.extend(LIBVIRT.iter().map(|l| (root.join(l), Path::new(BINARY))));
    }
    if lxc || both {
        links.push((root.join(LXC), Path::new(BINARY)));
    }
    links
}

/// Makes the links, or none where one place is somebody else's; what is right already is left alone. Returns what was made.
pub fn install(root: &Path, libvirt: bool, lxc: bool) -> Result<Vec<PathBuf>, InstallError> {
    let mut missing = Vec::new();
    for (link, target) in links(root, libvirt, lxc) {
        let fail = |why: String| Err(InstallError { path: link.clone(), why });
        match fs::read_link(&link) {
            Ok(found) if found == target => {}
            Ok(found) => return fail(format!("it points to {}: remove it first", found.display())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push((link, target)),
            // readlink(2): EINVAL for what is no symlink.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                return fail("a file that is not evpn-hook's is there: remove it first".into());
            }
            Err(e) => return fail(e.to_string()),
        }
    }
    let mut made = Vec::new();
    for (link, target) in missing {
        let fail = |why: String| InstallError { path: link.clone(), why };
        if let Some(dir) = link.parent() {
            fs::create_dir_all(dir).map_err(|e| fail(e.to_string()))?;
        }
        std::os::unix::fs::symlink(target, &link).map_err(|e| fail(e.to_string()))?;
        made.push(link);
    }
    Ok(made)
}

/// Takes out the links that are ours. Returns what was removed.
pub fn uninstall(root: &Path, libvirt: bool, lxc: bool) -> Result<Vec<PathBuf>, InstallError> {
    let mut removed = Vec::new();
    for (link, target) in links(root, libvirt, lxc) {
        if fs::read_link(&link).is_ok_and(|found| found == target) {
            fs::remove_file(&link).map_err(|e| InstallError { path: link.clone(), why: e.to_string() })?;
            removed.push(link);
        }
    }
    Ok(removed)
}
