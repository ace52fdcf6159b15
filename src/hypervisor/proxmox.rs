//! Proxmox VE's configuration of a VM: a file below /etc/pve, which every node of the cluster sees (qemu-server's QemuConfig.pm `cfs_config_path`).

use crate::input::{InputError, proxmox};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// pmxcfs' mount point.
const ROOT: &str = "/etc/pve";

/// No file there is larger (pve-cluster's memdb.h `MEMDB_MAX_FILE_SIZE`).
const MAX_FILE: u64 = 1 << 20;

/// The configuration of this host's VM; of one that comes from another node, which moves the file when the VM is here, that node's.
pub fn configuration(vmid: u32, from: Option<&str>) -> Result<String, InputError> {
    let theirs = from.map(|node| Path::new(ROOT).join(format!("nodes/{node}/qemu-server/{vmid}.conf")));
    let path = theirs.filter(|path| path.exists()).unwrap_or_else(|| ours(vmid));
    read(&path).map_err(|error| {
        let what =
            format!("vm {vmid}: cannot read {} ({error}): the hookscript is for VMs of this host", path.display());
        InputError::new(&what, false)
    })
}

/// Is this VM on its way to another host? Its configuration is that one's before it runs there, and in between it is locked (qemu-server's QemuMigrate.pm
/// `phase3_cleanup`, which stops it here last).
pub fn leaves(id: &str) -> bool {
    let vmid = id.parse().unwrap_or_default();
    read(&ours(vmid)).map_or(true, |text| proxmox::migrates(&text))
}

fn ours(vmid: u32) -> PathBuf {
    Path::new(ROOT).join(format!("qemu-server/{vmid}.conf"))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
    match text.len() as u64 > MAX_FILE {
        true => Err(io::Error::other(format!("it has over {} MiB", MAX_FILE >> 20))),
        false => Ok(String::from_utf8_lossy(&text).into_owned()),
    }
}
