//! libvirt's own status file of a running domain, `/run/libvirt/qemu/NAME.xml`: what its events say, and sooner, also while libvirtd is down.
//!
//! A private format (qemu_domain.c `virDomainObjFormat`), unchanged since 2010 in what is read here: the root's `state` and `reason`, and in it
//! the `<domain>`, with `<actual>` beside what the XML asks for. Anything unexpected says nothing.

use super::libvirt_qemu::{Read, walk_domain};
use super::{InputError, label};
use crate::event::Nic;
use crate::model::Guest;

/// A domain as its status file shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Who.
    pub guest: Guest,
    /// Its NICs that may be on a network of ours.
    pub nics: Vec<Nic>,
    /// How it lives.
    pub life: Life,
}

/// Where a domain's processors run (domain_conf.c `virDomainState`, `virDomainPausedReason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Life {
    /// Here; or paused here, by a person or for a snapshot, and its addresses still its own.
    Here,
    /// Paused because it is on its way, to here or from here, or not yet begun: it may live on another host.
    Moving,
    /// Not any more: QEMU was told to end and has not yet. So ends a guest that ran here, and one that never came: a migration that failed.
    Ending,
    /// Not at all.
    Ended,
}

/// Reads one.
pub fn read(name: &str, text: &[u8]) -> Result<Domain, InputError> {
    let mut life = None;
    let read = walk_domain(name, text, |path, tag| {
        if path == ["domstatus"] {
            life = life_of(&tag.get("state").unwrap_or_default(), &tag.get("reason").unwrap_or_default());
        }
    });
    let told = read.map_err(String::from).and_then(|Read { guest, nics, flaw, .. }| {
        // What is wrong in our metadata of a guest that runs takes nothing away from it.
        let flaws = flaw.iter().chain(nics.iter().filter_map(|nic| nic.flaw.as_ref()));
        if let Some(flaw) = flaws.into_iter().find(|flaw| flaw.in_metadata) {
            return Err(flaw.why.clone());
        }
        match life {
            Some(life) => Ok(Domain { guest, nics, life }),
            None => Err("its status file names no state that evpn-hook knows: it is left alone".to_owned()),
        }
    });
    told.map_err(|why| InputError::new(&format!("vm {}: {why}", label(name)), false))
}

/// The same of the root element alone; `None` where this is no status file.
pub fn life(text: &str) -> Option<Life> {
    let root = text.split("<domstatus").nth(1)?.split('>').next()?;
    let value = |key: &str| root.split_once(&format!("{key}='")).and_then(|(_, rest)| rest.split('\'').next());
    life_of(value("state")?, value("reason").unwrap_or_default())
}

/// `None` for a word that is not libvirt's (conf/domain_conf.c `virDomainState`): silence withdraws nothing.
fn life_of(state: &str, reason: &str) -> Option<Life> {
    match (state, reason) {
        ("paused", "migration" | "starting up" | "post-copy" | "post-copy failed") => Some(Life::Moving),
        ("running" | "blocked" | "paused" | "pmsuspended", _) => Some(Life::Here),
        ("shutdown", _) => Some(Life::Ending),
        ("nostate" | "shutoff" | "crashed", _) => Some(Life::Ended),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_element_tells() {
        let file = |root: &str| format!("<!--\nWARNING\n-->\n\n<domstatus {root} pid='1'>\n  <taint");
        assert_eq!(life(&file("state='running' reason='booted'")), Some(Life::Here));
        assert_eq!(life(&file("state='running' reason='post-copy'")), Some(Life::Here));
        assert_eq!(life(&file("state='paused' reason='user'")), Some(Life::Here));
        assert_eq!(life(&file("state='paused' reason='api error'")), Some(Life::Here), "libvirt 9.2 and newer");
        assert_eq!(life(&file("state='paused' reason='migration'")), Some(Life::Moving));
        assert_eq!(life(&file("state='paused' reason='starting up'")), Some(Life::Moving));
        assert_eq!(life(&file("state='shutoff' reason='destroyed'")), Some(Life::Ended));
        assert_eq!(life(&file("state='shutdown' reason='unknown'")), Some(Life::Ending), "not yet");
        assert_eq!(life(&file("state='hibernating' reason='new'")), None);
        assert_eq!(life("<domain>"), None);
        assert_eq!(life(""), None);
    }

    #[test]
    fn a_whole_file_tells_what_libvirt_made_of_each_nic() {
        let text = include_str!("../../tests/golden/status/vm1.xml");
        let Domain { guest, nics, life } = read("vm1", text.as_bytes()).unwrap();
        assert_eq!((guest.id.as_str(), life), ("a1aa250e-03e9-4b75-90b0-3fe8ffbcca9d", Life::Here));
        let told: Vec<_> = nics
            .iter()
            .map(|nic| {
                let bridge = nic.bridge.as_ref().map_or("none".to_owned(), ToString::to_string);
                let ips: Vec<_> = nic.ips.iter().map(|a| a.ip).collect();
                format!("{} {bridge} {ips:?}", nic.device.as_ref().unwrap())
            })
            .collect();
        assert_eq!(told, ["vnet0 red-l2 [10.1.0.60]", "vnet1 red-l2 []", "tapeth none []"]);
    }
}
