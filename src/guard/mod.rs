//! The only room that knows nftables: the rules of port security, and what they say of each guest's port. See `rules.nft`.
//!
//! By the nft program, because its words are stable and the kernel's messages (nfnetlink) are not something to write by hand. All that it is given is made
//! from validated names, MACs and addresses. Where no network asks for port security nobody comes here.

use crate::config::PortSecurity;
use crate::exec::{self, Ended};
use crate::model::{IfName, Mac, one_line};
use crate::plan::guard::{Guard, Lets};
use crate::tape::{self, Untold};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv6Addr;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long nft may take. It needs some milliseconds; a guest waits for it, and another nft may hold the kernel's lock.
const PATIENCE: Duration = Duration::from_secs(5);
/// As much of its words as is read: 10,000 guests with four addresses have 8 MiB.
const MOST: usize = 64 << 20;

/// The table that is ours, in the bridge family.
pub const TABLE: &str = "evpn-hook";

const RULES: &str = include_str!("rules.nft");

/// The one rule that some kernels cannot have (NFT_BRIDGE_META, Linux 3.16, is left out of some): there a port of nobody's is open from when it joins its
/// bridge until it is locked.
const BRIDGE_RULE: &str = "meta ibrname @bridges meta iifkind != \"vxlan\" drop";
/// An empty chain, which says that it was left out.
const WITHOUT: &str = "without_bridge_names";

/// Why port security could not be set.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// No such program, or it cannot be run.
    #[error("port security: nft cannot be run ({0}): install nftables, or set port_security = \"off\" for the network")]
    NotThere(std::io::Error),
    /// It did not end.
    #[error("port security: nft did not end in {} s: is another program changing nftables?", PATIENCE.as_secs())]
    Slow,
    /// It would not.
    #[error(
        "port security: nft: {words}: see 'nft list table bridge evpn-hook'; nftables 1.0 and a kernel with nf_tables_bridge are needed"
    )]
    Refused {
        /// Its words.
        words: String,
        /// Something that it was to change is not there.
        missing: bool,
    },
    /// What a tape says, or has not.
    #[error(transparent)]
    Tape(#[from] Untold),
}

/// Lays the rules; what the sets say of ports stays.
pub fn lay() -> Result<(), GuardError> {
    lay_and("")
}

/// The same, and these words with it.
fn lay_and(words: &str) -> Result<(), GuardError> {
    match nft(&[RULES, words]) {
        Err(GuardError::Refused { words: why, .. }) if why.contains("not supported") => {
            let rules = RULES.replace(BRIDGE_RULE, "");
            let chain = format!("add chain bridge evpn-hook {WITHOUT}\n");
            nft(&[&rules, &chain, words]).map(drop)
        }
        done => done.map(drop),
    }
}

/// Holds all ports of a bridge that stand in no set, or does not any more. Lays the rules where they are not there.
pub fn secure(bridge: &IfName, on: bool) -> Result<(), GuardError> {
    let element = format!("element bridge evpn-hook bridges {{ \"{bridge}\" }}\n");
    let words = if on { format!("add {element}") } else { format!("add {element}delete {element}") };
    match nft(&[&words]) {
        Err(GuardError::Refused { missing: true, .. }) if on => lay_and(&words),
        Err(GuardError::Refused { missing: true, .. }) => Ok(()),
        done => done.map(drop),
    }
}

/// Are all ports of this bridge held that stand in no set?
pub fn is_secured(bridge: &IfName) -> Result<bool, GuardError> {
    tape::asked(format_args!("nft: are the ports of {bridge} held"), || {
        match nft(&[&format!("get element bridge evpn-hook bridges {{ \"{bridge}\" }}")]) {
            Ok(_) => Ok(true),
            Err(GuardError::Refused { missing: true, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    })
}

/// Takes rules and sets out; fine where there are none.
pub fn lift() -> Result<(), GuardError> {
    nft(&["add table bridge evpn-hook; delete table bridge evpn-hook"]).map(drop)
}

/// Changes what a port lets in, all at once. Lays the rules where somebody took them out (`nft flush ruleset`, a firewall that was started anew).
pub fn change(port: u32, more: &[Lets], less: &[Lets]) -> Result<(), GuardError> {
    let mut words = String::new();
    for lets in more {
        words += &command("add", port, *lets);
    }
    // `destroy` needs nftables 1.0.7 and Linux 6.3: what may not be there is added first.
    for lets in less {
        words += &command("add", port, *lets);
        words += &command("delete", port, *lets);
    }
    match nft(&[&words]) {
        Err(GuardError::Refused { missing: true, .. }) => lay_and(&words),
        done => done.map(drop),
    }
}

/// Does this port let in all of this?
pub fn lets(port: u32, wanted: &Guard) -> Result<bool, GuardError> {
    tape::asked(format_args!("nft: what index {port} lets in"), || {
        let words: String = wanted.iter().map(|lets| command("get", port, *lets)).collect();
        match nft(&[&words]) {
            Ok(_) => Ok(true),
            Err(GuardError::Refused { missing: true, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    })
}

/// Are the rules there as they were laid?
pub fn are_laid() -> Result<bool, GuardError> {
    tape::asked("nft: the rules of port security", || {
        Ok(listed(&["-j", "-t", "list", "table", "bridge", "evpn-hook"])?.is_some_and(|list| is_whole(&list)))
    })
}

/// What the sets say: what each guarded port lets in, and the bridges whose other ports are held.
pub type Said = (HashMap<u32, Guard>, BTreeSet<IfName>);

/// All of it; none where the rules are not as they were laid, for then nothing holds.
///
/// nft shows a port by its name where it has one still; `index` is asked for that name's index.
pub fn all(index: impl Fn(&IfName) -> Option<u32>) -> Result<Option<Said>, GuardError> {
    let list = listed(&["-j", "list", "table", "bridge", "evpn-hook"])?.filter(|list| is_whole(list));
    Ok(list.map(|list| (guards(&list, index), bridges(&list))))
}

fn listed(args: &[&str]) -> Result<Option<Vec<Value>>, GuardError> {
    let words = match nft(args) {
        Ok(ended) => ended.output,
        Err(GuardError::Refused { missing: true, .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    listing(&words).map(Some)
}

/// What nft's JSON holds.
pub(crate) fn listing(words: &str) -> Result<Vec<Value>, GuardError> {
    let strange = |words: String| GuardError::Refused { words, missing: false };
    let mut list: Value = serde_json::from_str(words).map_err(|e| strange(format!("its list is no JSON ({e})")))?;
    match list.get_mut("nftables").map(Value::take) {
        Some(Value::Array(list)) => Ok(list),
        _ => Err(strange("its list has no \"nftables\"".to_owned())),
    }
}

/// An element of the sets, as nft takes it.
pub(crate) fn command(verb: &str, port: u32, lets: Lets) -> String {
    let one = |set: &str, value: String| format!("{verb} element bridge evpn-hook {set} {{ {port}{value} }}\n");
    let number = |bytes: &[u8]| bytes.iter().fold(" . 0x".to_owned(), |text, byte| text + &format!("{byte:02x}"));
    match lets {
        Lets::Guarded(PortSecurity::MacIp) => one("mac_ip", String::new()),
        Lets::Guarded(_) => one("mac", String::new()),
        Lets::Mac(mac) => one("macs", format!(" . {mac}")),
        Lets::Names(mac) => one("names", number(&mac.octets())),
        Lets::V4(ip) => one("v4", format!(" . {ip}")),
        Lets::V6(ip) => one("v6", format!(" . {ip}")) + &one("targets", number(&ip.octets())),
    }
}

/// How many rules each chain has, by the file.
fn laid() -> BTreeMap<String, usize> {
    let mut chains = BTreeMap::<String, usize>::new();
    let mut chain = None;
    for line in RULES.lines().map(str::trim) {
        match line.strip_prefix("chain ").and_then(|line| line.strip_suffix(" {")) {
            Some(name) => chain = Some(name),
            None if line == "}" => chain = None,
            None if line.is_empty() || line.starts_with('#') || line.starts_with("type filter") => {}
            None => *chains.entry(chain.unwrap_or_default().to_owned()).or_default() += usize::from(chain.is_some()),
        }
    }
    chains.remove("");
    chains
}

/// Has nobody taken a rule out, or put one in?
fn is_whole(list: &[Value]) -> bool {
    let mut chains = BTreeMap::<String, usize>::new();
    for rule in list.iter().filter_map(|item| item["rule"]["chain"].as_str()) {
        *chains.entry(rule.to_owned()).or_default() += 1;
    }
    let mut laid = laid();
    if list.iter().any(|item| item["chain"]["name"] == WITHOUT) {
        laid.entry("prerouting".to_owned()).and_modify(|rules| *rules -= 1);
    }
    chains == laid
}

/// The bridges that stand in their set.
pub(crate) fn bridges(list: &[Value]) -> BTreeSet<IfName> {
    let sets = list.iter().map(|item| &item["set"]).filter(|set| set["name"] == "bridges");
    let names = sets.filter_map(|set| set["elem"].as_array()).flatten().filter_map(Value::as_str);
    names.filter_map(|name| name.parse().ok()).collect()
}

/// What the sets in it let in, by the port.
pub(crate) fn guards(list: &[Value], index: impl Fn(&IfName) -> Option<u32>) -> HashMap<u32, Guard> {
    let mut guards = HashMap::<u32, Guard>::new();
    // What stands in two sets counts where it is in both.
    let mut targets = HashSet::new();
    for set in list.iter().map(|item| &item["set"]) {
        let name = set["name"].as_str().unwrap_or_default();
        if name == "bridges" {
            continue;
        }
        for element in set["elem"].as_array().into_iter().flatten() {
            let (port, value) = match &element["concat"] {
                Value::Array(parts) => (parts.first().unwrap_or(&Value::Null), parts.get(1).unwrap_or(&Value::Null)),
                _ => (element, &Value::Null),
            };
            let named = port.as_str().and_then(|name| index(&name.parse().ok()?));
            let Some(port) = named.or(number(port).and_then(|n| u32::try_from(n).ok())) else { continue };
            let text = value.as_str().unwrap_or_default();
            let lets = match name {
                "mac" => Some(Lets::Guarded(PortSecurity::Mac)),
                "mac_ip" => Some(Lets::Guarded(PortSecurity::MacIp)),
                "macs" => text.parse().ok().map(Lets::Mac),
                "names" => number(value).and_then(|n| Mac::from_bytes(&n.to_be_bytes()[10..])).map(Lets::Names),
                "v4" => text.parse().ok().map(Lets::V4),
                "v6" => text.parse().ok().map(Lets::V6),
                "targets" => {
                    targets.extend(number(value).map(|n| (port, Lets::V6(Ipv6Addr::from(n)))));
                    None
                }
                _ => None,
            };
            guards.entry(port).or_default().extend(lets);
        }
    }
    for (port, guard) in &mut guards {
        guard.retain(|lets| !matches!(lets, Lets::V6(_)) || targets.contains(&(*port, *lets)));
    }
    guards
}

/// nft writes a small number as a number, and a large one as text.
fn number(value: &Value) -> Option<u128> {
    match value {
        Value::Number(number) => number.as_u64().map(u128::from),
        Value::String(text) => match text.strip_prefix("0x") {
            Some(hex) => u128::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        },
        _ => None,
    }
}

fn nft(words: &[&str]) -> Result<Ended, GuardError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut command = Command::new("nft");
        command.args(words).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        let ended = exec::run_up_to(MOST, command, until).map_err(GuardError::NotThere)?;
        let ended = ended.ok_or(GuardError::Slow)?;
        if ended.status.success() {
            return Ok(ended);
        }
        let words = ended.output.lines().find(|line| line.contains("Error")).unwrap_or(&ended.output);
        // Somebody changed the rules between its reading and its writing (NFT_MSG_GETGEN); it asks again by itself, but not always.
        if words.contains("Interrupted system call") {
            continue;
        }
        let words = one_line(words.trim()).chars().take(300).collect();
        return Err(GuardError::Refused { words, missing: ended.output.contains("No such file or directory") });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chain_of_the_file_is_counted() {
        let laid = laid();
        assert_eq!(
            laid.keys().map(String::as_str).collect::<Vec<_>>(),
            ["check_arp", "check_dhcp", "check_mac", "check_mac_ip", "check_nd", "check_v4", "check_v6", "prerouting"]
        );
        assert_eq!((laid["check_mac"], laid["check_mac_ip"], laid["prerouting"]), (2, 3, 3));
        assert_eq!(RULES.matches(BRIDGE_RULE).count(), 1);
    }
}
