//! libvirt's own status file of a domain: a hint, read only where a hook's input cannot tell.

use std::fs::File;
use std::io::Read;
use std::path::Path;

const DIR: &str = "/run/libvirt/qemu";

/// Do the domain's processors run? From the root element of `/run/libvirt/qemu/NAME.xml`, which libvirt writes just before
/// it calls `started` (qemu_process.c `qemuProcessFinishStartup`): `state='running'` for a cold boot or a restore,
/// `state='paused'` for a migration that has not arrived. A private format: anything unexpected is `None`.
pub fn runs(name: &str) -> Option<bool> {
    // libvirt refuses '/' in names (virXMLCheckIllegalChars); a name is still never trusted as a path.
    if name.contains('/') || name.starts_with('.') {
        return None;
    }
    let mut head = [0; 512];
    let mut file = File::open(Path::new(DIR).join(format!("{name}.xml"))).ok()?;
    let read = file.read(&mut head).ok()?;
    state_of(&String::from_utf8_lossy(head.get(..read)?))
}

fn state_of(head: &str) -> Option<bool> {
    let root = head.split("<domstatus").nth(1)?.split('>').next()?;
    let state = root.split("state=").nth(1)?.get(1..)?;
    Some(state.starts_with("running"))
}

#[cfg(test)]
mod tests {
    use super::state_of;

    #[test]
    fn the_root_element_tells() {
        let file = |state: &str| {
            format!("<!--\nWARNING\n-->\n\n<domstatus state='{state}' reason='booted' pid='1'>\n  <taint")
        };
        assert_eq!(state_of(&file("running")), Some(true));
        assert_eq!(state_of(&file("paused")), Some(false));
        assert_eq!(state_of("<domain>"), None);
        assert_eq!(state_of(""), None);
    }
}
