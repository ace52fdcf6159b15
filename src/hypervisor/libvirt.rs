//! libvirt's status files below /run/libvirt: one for each domain that runs and each network that is up, replaced whole at each change.

use crate::config::{Config, Network};
use crate::input::libvirt_status::{self, Domain, Life};
use crate::input::{InputError, MAX_XML, inspect, libvirt_network};
use crate::model::{IfName, NetName};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Domains, `qemuStateInitialize`'s stateDir; the same for libvirtd and virtqemud.
pub const DOMAINS: &str = "/run/libvirt/qemu";
/// Networks, `networkStateInitialize`'s stateDir; the same for libvirtd and virtnetworkd.
pub const NETWORKS: &str = "/run/libvirt/network";

/// Networks that are defined, `networkStateInitialize`'s configDir.
const DEFINED: &str = "/etc/libvirt/qemu/networks";

/// How this domain lives; `None` where libvirt does not say.
pub fn life(name: &str) -> Option<Life> {
    let mut head = Vec::new();
    // The root element stands behind a comment with the name in it.
    File::open(file(DOMAINS, name)?).ok()?.take(4096).read_to_end(&mut head).ok()?;
    libvirt_status::life(&String::from_utf8_lossy(&head))
}

/// One domain; `None` where it has no status file: it does not run.
pub fn domain(name: &str) -> Option<Result<Domain, InputError>> {
    Some(contents(&file(DOMAINS, name)?)?.and_then(|text| libvirt_status::read(name, &text)))
}

/// Has this domain a status file: does it run?
pub fn runs(name: &str) -> bool {
    file(DOMAINS, name).is_some_and(|path| path.exists())
}

/// All domains that run, by name; `None` where libvirt keeps no such directory, and so says nothing.
pub fn domains() -> Option<Vec<(String, Result<Domain, InputError>)>> {
    Some(names(DOMAINS)?.into_iter().filter_map(|name| domain(&name).map(|domain| (name, domain))).collect())
}

/// A network that is up, and what it wants where it is ours.
pub type Listed = (NetName, Result<Option<Network>, InputError>);

/// All networks that are up, ours with what they want; `None` where libvirt says nothing.
pub fn networks(config: &Config) -> Option<Vec<Listed>> {
    Some(names(NETWORKS)?.iter().filter_map(|name| listed(name.parse().ok()?, config)).collect())
}

/// The same of one alone, in a list that is empty where it is not up.
pub fn network(name: &NetName, config: &Config) -> Option<Vec<Listed>> {
    Path::new(NETWORKS).is_dir().then(|| listed(name.clone(), config).into_iter().collect())
}

/// Networks that are defined and not up, each with the bridge that libvirt makes for it.
pub fn bridges_to_make() -> Vec<(String, IfName)> {
    let names = names(DEFINED).unwrap_or_default().into_iter();
    names.filter_map(|name| bridge_to_make(&name).map(|bridge| (name, bridge))).collect()
}

fn bridge_to_make(name: &str) -> Option<IfName> {
    if file(NETWORKS, name)?.exists() {
        return None;
    }
    let network = inspect::network(&contents(&file(DEFINED, name)?)?.ok()?).ok()?;
    // libvirt makes none in the modes that use somebody else's devices (network_conf.c `virNetworkDefParseXML`).
    let makes = matches!(network.forward.as_deref(), None | Some("nat" | "route" | "open"));
    network.bridge.filter(|_| makes)?.parse().ok()
}

fn listed(name: NetName, config: &Config) -> Option<Listed> {
    let text = contents(&file(NETWORKS, name.as_str())?)?;
    let network = text.and_then(|text| libvirt_network::status(&name, &text, config));
    Some((name, network))
}

fn names(dir: &str) -> Option<Vec<String>> {
    let entries = fs::read_dir(dir).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter_map(|name| name.strip_suffix(".xml").map(str::to_owned)).collect();
    names.sort();
    Some(names)
}

fn file(dir: &str, name: &str) -> Option<PathBuf> {
    // libvirt refuses '/' in names (virXMLCheckIllegalChars); a name is still never trusted as a path.
    let fine = !name.contains('/');
    fine.then(|| Path::new(dir).join(format!("{name}.xml")))
}

/// `None` where there is no such file: what cannot be read runs all the same.
fn contents(path: &Path) -> Option<Result<Vec<u8>, InputError>> {
    let read = |file: File| {
        // Most are some 5 KiB: one read, and one that finds the end.
        let mut text = Vec::with_capacity(16 << 10);
        file.take(MAX_XML as u64 + 1).read_to_end(&mut text).map(|_| text)
    };
    match File::open(path).and_then(read) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        read => Some(read.map_err(|e| InputError::new(&format!("cannot read {}: {e}", path.display()), false))),
    }
}
