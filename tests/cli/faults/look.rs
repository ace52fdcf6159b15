//! The whole host at one time, in few processes: hundreds of points are looked at three times each.

use crate::common::sh;
use serde_json::{Deserializer, Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// One object a line, sorted; what changes by itself is left out.
#[derive(Clone, PartialEq, Eq)]
pub struct Look(Vec<String>);

/// Devices whose MAC the kernel draws anew each time.
const RANDOM: &[&str] = &["vxlan", "vrf"];
const STATE: &str = "/run/evpn-hook";

impl Look {
    pub fn now() -> Look {
        let batch = |more: &[&str], text| {
            answers(Command::new("ip").args(["-d", "-j", "-force"]).args(more).args(["-batch", "-"]), text)
        };
        let mut lines = Vec::new();
        let both = batch(&[], "address show\nneigh show nud permanent\nrule\nroute show table all\n");
        for object in both.into_iter().chain(batch(&["-6"], "rule\nroute show table all\n")).flatten() {
            lines.extend(line(&object));
        }
        for object in answers(Command::new("bridge").args(["-j", "-d", "fdb", "show"]), "").into_iter().flatten() {
            let fixed = object["state"] == "static" || object["flags"].to_string().contains("extern_learn");
            if fixed {
                lines.push(format!("fdb {} on {} {}", object["mac"], object["ifname"], object["flags"]));
            }
        }
        for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            lines.push(format!("{path} = {}", fs::read_to_string(Path::new("/proc/sys").join(path)).unwrap().trim()));
        }
        state(Path::new(STATE), &mut lines);
        lines.sort_unstable();
        Look(lines)
    }

    /// What one has and the other has not.
    pub fn against(&self, other: &Look) -> String {
        let only = |a: &Look, b: &Look, sign: &str| -> Vec<String> {
            a.0.iter().filter(|line| !b.0.contains(line)).map(|line| format!("      {sign} {line}")).collect()
        };
        [only(other, self, "-"), only(self, other, "+")].concat().join("\n")
    }
}

/// A command's JSON answers, one after the other.
fn answers(command: &mut Command, stdin: &str) -> Vec<Vec<Value>> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Deserializer::from_slice(&output.stdout).into_iter().map(|answer| answer.unwrap()).collect()
}

fn link(link: &Value) -> String {
    let (name, info) = (link["ifname"].as_str().unwrap(), &link["linkinfo"]);
    let kind = info["info_kind"].as_str().unwrap_or_default();
    let mac = if RANDOM.contains(&kind) { &Value::Null } else { &link["address"] };
    let up = link["flags"].as_array().unwrap().contains(&"UP".into());
    let (data, port) = (&info["info_data"], &info["info_slave_data"]);
    let options = match kind {
        "vxlan" => {
            json!([data["id"], data["local"], data["port"], data["learning"], port["learning"], port["neigh_suppress"]])
        }
        "bridge" => json!([data["stp_state"], data["forward_delay"], data["vlan_default_pvid"]]),
        "vrf" => json!([data["table"]]),
        _ => Value::Null,
    };
    let conf = |family, key| {
        fs::read_to_string(format!("/proc/sys/net/{family}/conf/{name}/{key}")).unwrap_or_default().trim().to_owned()
    };
    let of_bridge = match kind {
        "bridge" => {
            ["accept_ra", "disable_ipv6"].map(|key| conf("ipv6", key)).join(" ") + " " + &conf("ipv4", "rp_filter")
        }
        _ => String::new(),
    };
    // Without IPv6 a device generates no address, whatever its mode.
    let addrgen = if conf("ipv6", "disable_ipv6") == "1" { &Value::Null } else { &link["inet6_addr_gen_mode"] };
    format!(
        "link {name} {kind} {options} master {} mac {mac} mtu {} up {up} alias {} addrgen {} {of_bridge}",
        link["master"], link["mtu"], link["ifalias"], addrgen
    )
}

/// A device with its addresses, a neighbour, a rule or a route.
fn line(object: &Value) -> Vec<String> {
    if let Some(addresses) = object["addr_info"].as_array() {
        let global = addresses.iter().filter(|a| a["scope"] == "global");
        let global = global.map(|a| format!("address {}/{} on {}", a["local"], a["prefixlen"], object["ifname"]));
        return std::iter::once(link(object)).chain(global).collect();
    }
    match &object["state"] {
        Value::Null => rule_or_route(object).into_iter().collect(),
        _ => {
            let [ip, mac, dev, protocol] = ["dst", "lladdr", "dev", "protocol"].map(|key| &object[key]);
            vec![format!("neigh {ip} {mac} on {dev} proto {protocol}")]
        }
    }
}

fn rule_or_route(object: &Value) -> Option<String> {
    if object["priority"].is_u64() {
        // The kernel's own rule for table local comes back as ours.
        let mut rule = object.clone();
        rule["protocol"].take();
        return Some(format!("rule {rule}"));
    }
    // The kernel tells of a device's carrier up to a second late (net/core/link_watch.c), and link-local and multicast routes come and go with it.
    let text = object.to_string().replace("\"linkdown\"", "");
    let of_itself = ["fe80::", "ff00::", "anycast", "multicast"].iter().any(|word| text.contains(word));
    let of_device = object["table"] == "local" || object["protocol"] == "kernel" && object["dst"].is_string();
    (!of_itself && !of_device).then(|| format!("route {text}"))
}

fn state(dir: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            lines.push(format!("state {} -> {}", path.display(), fs::read_link(&path).unwrap().display()));
        } else if path.is_dir() {
            // What spares a look at everything, and is no state.
            if !path.ends_with("hints") {
                state(&path, lines);
            }
        } else {
            let text = fs::read_to_string(&path).unwrap();
            if path.ends_with("host.lock") || path.ends_with("host.json") && is_as_remembered(&text) {
                continue;
            }
            let told = serde_json::from_str(&text).map(|mut record: Value| {
                // Seconds since boot.
                if let Some(since) = record.get_mut("incoming_since") {
                    *since = true.into();
                }
                // How long the hook took.
                record.as_object_mut().map(|record| record.remove("hook"));
                record.to_string()
            });
            lines.push(format!("state {} {}", path.display(), told.unwrap_or(text)));
        }
    }
}

/// Does the host's memory tell only of settings that are as they were? Then it is a run's that was killed before it changed them, and
/// `uninstall` has nothing to do.
fn is_as_remembered(text: &str) -> bool {
    let memory: std::collections::BTreeMap<String, String> = serde_json::from_str(text).unwrap();
    memory
        .iter()
        .filter(|(path, _)| path.contains('/'))
        .all(|(path, was)| fs::read_to_string(Path::new("/proc/sys").join(path)).is_ok_and(|now| now.trim() == was))
}

/// Deletes devices that are there and that are not.
pub fn delete(devices: &[&str]) {
    let batch: String = devices.iter().map(|device| format!("link del {device}\n")).collect();
    sh(&format!("printf '{batch}' | ip -force -batch - 2>/dev/null || true"));
}
