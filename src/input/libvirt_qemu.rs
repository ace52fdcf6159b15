//! libvirt's qemu hook: `NAME OP SUBOP EXTRA` and the domain's XML on stdin. <https://libvirt.org/hooks.html#etc-libvirt-hooks-qemu>
//!
//! What each operation's XML holds was measured on libvirt 9.0: only `start`, `started` and `reconnect` know the taps; `stopped` and `release`
//! know no device, no port and no bridge. A network with forward mode='bridge' turns type='network' into type='bridge' between `prepare` and
//! `start`, so the type tells nothing; `source/@network` and `source/@bridge` do.

use super::xml::{self, Flow, Node, Tag};
use super::{InputError, MAX_ADDRESSES, inside, inspect, label, name_and_op, uuid};
use crate::event::{Event, GuestPhase, Nic};
use crate::model::{Address, Guest, GuestKind, Mac, NetName, Source, host_ip, quoted};
use std::net::IpAddr;
use std::ops::ControlFlow::{Break, Continue};

/// More NICs than a PCI topology of QEMU's takes.
const MAX_INTERFACES: usize = 256;
const ELEMENTS: &str = "<guest>, in it <interface mac= network=>, in that <ip address=>";

/// Reads one call of the hook. Operations without a meaning for us (restore, attach, future ones) are `None`, whatever their XML is.
///
/// `Started { running }` is left `None`: only the caller may look at libvirt's status file.
pub fn read<S: AsRef<str>>(args: &[S], stdin: &[u8]) -> Result<Option<Event>, InputError> {
    let (name, op) = name_and_op(args)?;
    let (phase, whole) = match op {
        "prepare" => (GuestPhase::Prepare, true),
        "start" => (GuestPhase::Start, true),
        "reconnect" => (GuestPhase::Reconnect, true),
        "migrate" => (GuestPhase::Incoming, false),
        "started" => (GuestPhase::Started { running: None }, false),
        "stopped" | "release" => (GuestPhase::Stopped, false),
        _ => return Ok(None),
    };
    let read =
        if whole { whole_domain(name, stdin, &phase) } else { identity(name, stdin).map(|guest| (guest, Vec::new())) };
    match read {
        Ok((guest, nics)) => Ok(Some(Event::Guest { phase, guest, nics })),
        Err(why) => Err(InputError::new(&format!("vm {}: {why}", label(name)), phase.may_refuse())),
    }
}

/// Name and UUID alone: what stands behind them in the XML, however broken, must not stop a withdraw.
fn identity(name: &str, stdin: &[u8]) -> Result<Guest, String> {
    let mut domain = Domain::default();
    xml::walk(stdin, |path, node| {
        if let Node::Close(text) = node {
            domain.close(path, text);
        }
        Ok(if domain.uuid.is_empty() { Continue(()) } else { Break(()) })
    })?;
    domain.guest(name)
}

fn whole_domain(name: &str, stdin: &[u8], phase: &GuestPhase) -> Result<(Guest, Vec<Nic>), String> {
    // A NIC may have been unplugged since the start, its metadata still there: no reason to leave the others alone.
    walk_domain(name, stdin, *phase == GuestPhase::Reconnect, |_, _| ())
}

/// Guest and NICs of a `<domain>`, whatever stands around it; `around` is shown each opening tag.
pub(super) fn walk_domain(
    name: &str,
    text: &[u8],
    forgive_orphans: bool,
    around: impl FnMut(&[&str], &Tag),
) -> Result<(Guest, Vec<Nic>), String> {
    let domain = seen(text, around)?;
    let guest = domain.guest(name)?;
    Ok((guest, domain.nics(forgive_orphans)?))
}

/// What `inspect` shows: all that was seen on the same walk, also what a hook has no use for.
pub(super) fn inspect(text: &[u8]) -> Result<inspect::Domain, String> {
    let mut root = false;
    let domain = seen(text, |path, _| root |= matches!(path, ["domain"] | ["domstatus", "domain"]))?;
    if !root {
        return Err("the XML on stdin is no <domain>: pipe `virsh dumpxml` in".to_owned());
    }
    let words = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let metadata = domain.hints.iter().map(|hint| inspect::Hint {
        mac: hint.mac,
        network: hint.network.clone(),
        ips: hint.ips.clone(),
    });
    Ok(inspect::Domain {
        name: words(&domain.name),
        uuid: words(&domain.uuid),
        metadata: metadata.collect(),
        interfaces: domain.interfaces.into_iter().map(|interface| interface.seen).collect(),
    })
}

fn seen(text: &[u8], mut around: impl FnMut(&[&str], &Tag)) -> Result<Domain, String> {
    let mut domain = Domain::default();
    xml::walk(text, |path, node| {
        let inner = path.strip_prefix(&["domstatus"]).unwrap_or(path);
        match node {
            Node::Open(tag) => {
                around(path, tag);
                domain.open(inner, tag)?;
            }
            Node::Close(text) => domain.close(inner, text),
        }
        Ok::<Flow, String>(Continue(()))
    })?;
    Ok(domain)
}

#[derive(Default)]
struct Domain {
    name: String,
    uuid: String,
    interfaces: Vec<Interface>,
    hints: Vec<Hint>,
}

/// An `<interface>` of libvirt's.
#[derive(Default)]
struct Interface {
    seen: inspect::Interface,
    /// `<mac>`, `<target>` and `<source>` came.
    once: [bool; 3],
    mac: Option<Mac>,
    port: Option<String>,
    ips: Vec<Address>,
}

/// An `<evpn:interface>` of ours.
struct Hint {
    mac: Mac,
    network: Option<NetName>,
    ips: Vec<IpAddr>,
}

impl Domain {
    fn close(&mut self, path: &[&str], text: &str) {
        match path {
            // Of what stands twice libvirt takes the first.
            ["domain", "name"] if self.name.is_empty() => self.name = text.to_owned(),
            ["domain", "uuid"] if self.uuid.is_empty() => self.uuid = text.to_owned(),
            _ => (),
        }
    }

    fn open(&mut self, path: &[&str], tag: &Tag) -> Result<(), String> {
        match path {
            ["domain", "devices", "interface"] if self.interfaces.len() == MAX_INTERFACES => {
                return Err(format!("it has more than {MAX_INTERFACES} interfaces: remove some"));
            }
            ["domain", "devices", "interface"] => {
                let mut interface = Interface::default();
                // libvirt's own default (domain_conf.c `virDomainNetDefParseXML`).
                interface.seen.kind = tag.get("type").unwrap_or_else(|| "user".to_owned());
                self.interfaces.push(interface);
            }
            ["domain", "devices", "interface", rest @ ..] => {
                if let Some(interface) = self.interfaces.last_mut() {
                    interface.take(rest, tag);
                }
            }
            ["domain", "metadata", "evpn:guest"] => tag.only(&[])?,
            ["domain", "metadata", "evpn:guest", "evpn:interface"] => self.hint(tag)?,
            ["domain", "metadata", "evpn:guest", "evpn:interface", "evpn:ip"] => {
                tag.only(&["address"])?;
                let Some(text) = tag.attr("address")? else {
                    return Err("<evpn:ip> has no address=: add address='10.1.0.60'".to_owned());
                };
                let ip = inside("evpn:ip", host_ip(&text))?;
                if let Some(hint) = self.hints.last_mut() {
                    if hint.ips.len() == MAX_ADDRESSES {
                        return Err(format!(
                            "the metadata of MAC {} has more than {MAX_ADDRESSES} addresses: remove some",
                            hint.mac
                        ));
                    }
                    if hint.ips.contains(&ip) {
                        return Err(format!("the metadata of MAC {} has the address {ip} twice: keep one", hint.mac));
                    }
                    hint.ips.push(ip);
                }
            }
            [.., last] if last.starts_with("evpn:") => return tag.unknown(ELEMENTS),
            _ => (),
        }
        Ok(())
    }

    fn hint(&mut self, tag: &Tag) -> Result<(), String> {
        tag.only(&["mac", "network"])?;
        let Some(text) = tag.attr("mac")? else {
            return Err("<evpn:interface> has no mac=: add the MAC of one of its interfaces".to_owned());
        };
        let mac: Mac = inside("evpn:interface", text.parse())?;
        if self.hints.len() == MAX_INTERFACES {
            return Err(format!("its metadata has more than {MAX_INTERFACES} <evpn:interface>: remove some"));
        }
        if self.hints.iter().any(|hint| hint.mac == mac) {
            return Err(format!("its metadata has the MAC {mac} twice: keep one <evpn:interface> a MAC"));
        }
        let network = tag.attr("network")?.map(|text| inside("evpn:interface", text.parse())).transpose()?;
        self.hints.push(Hint { mac, network, ips: Vec::new() });
        Ok(())
    }

    fn guest(&self, argument: &str) -> Result<Guest, String> {
        if self.uuid.is_empty() {
            return Err("the XML on stdin has no <domain><uuid>: libvirt gives one; by hand, pipe `virsh dumpxml` in"
                .to_owned());
        }
        let name = if self.name.is_empty() { argument } else { &self.name };
        Guest::new(GuestKind::Libvirt, name, &uuid(&self.uuid)?).map_err(|e| e.to_string())
    }

    /// The NICs that may be on a network of ours, each with what our metadata says of its MAC.
    fn nics(self, forgive_orphans: bool) -> Result<Vec<Nic>, String> {
        let Domain { interfaces, hints, .. } = self;
        for Hint { mac, .. } in &hints {
            let of_mac = || interfaces.iter().filter(|i| i.mac == Some(*mac));
            match of_mac().next() {
                Some(_) if of_mac().any(Interface::usable) => (),
                Some(other) => {
                    return Err(format!(
                        "its metadata names MAC {mac}, which is on an interface type={}: use type='network', 'bridge' or 'ethernet', or remove the <evpn:interface>",
                        quoted(&other.seen.kind)
                    ));
                }
                None if forgive_orphans => (),
                None => {
                    return Err(format!(
                        "its metadata names MAC {mac}, which none of its interfaces has: correct or remove the <evpn:interface>"
                    ));
                }
            }
        }
        let usable = interfaces.into_iter().filter(Interface::usable);
        usable.map(|interface| interface.finish(&hints)).collect()
    }
}

impl Interface {
    /// Types whose host end can be a bridge's port; the others (direct, hostdev, user, vhostuser, …) are none of ours.
    fn usable(&self) -> bool {
        matches!(self.seen.kind.as_str(), "network" | "bridge" | "ethernet")
    }

    /// Of what stands twice libvirt takes the first.
    fn take(&mut self, path: &[&str], tag: &Tag) {
        let (seen, once) = (&mut self.seen, &mut self.once);
        let mut first = |which: usize| !std::mem::replace(&mut once[which], true);
        match path {
            ["mac"] if first(0) => {
                seen.mac = tag.get("address");
                self.mac = parsed(seen.mac.as_ref());
            }
            ["target"] if first(1) => seen.target = tag.get("dev"),
            ["source"] if first(2) => {
                seen.network = tag.get("network");
                seen.bridge = tag.get("bridge");
                seen.portgroup = tag.get("portgroup");
                self.port = tag.get("portid").and_then(|id| uuid(&id).ok());
            }
            // libvirt's status file has what a network made of the interface beside what its XML asks for.
            ["actual", "source"] => seen.bridge = tag.get("bridge").or(seen.bridge.take()),
            // nwfilter's own variables; CTRL_IP_LEARNING and the like are not addresses.
            ["filterref", "parameter"]
                if self.ips.len() < MAX_ADDRESSES && matches!(tag.get("name").as_deref(), Some("IP" | "IPV6")) =>
            {
                let ip = tag.get("value").and_then(|text| host_ip(&text).ok());
                let new = ip.map(|ip| Address::new(ip, Source::Nwfilter)).filter(|new| !self.ips.contains(new));
                self.ips.extend(new);
            }
            _ => (),
        }
    }

    /// libvirt's own values that we could not use (a bridge `a:b`, a MAC of zeros) are on no network of ours: left out, never refused.
    fn finish(self, hints: &[Hint]) -> Result<Nic, String> {
        let mut nic = Nic {
            device: parsed(self.seen.target.as_ref()),
            mac: self.mac,
            bridge: parsed(self.seen.bridge.as_ref()),
            network: parsed(self.seen.network.as_ref()),
            port: self.port,
            ips: self.ips,
            chosen: false,
            enslave: self.seen.kind == "ethernet",
        };
        let Some(hint) = nic.mac.and_then(|mac| hints.iter().find(|hint| hint.mac == mac)) else {
            return Ok(nic);
        };
        match (&nic.network, &hint.network) {
            (Some(libvirts), Some(ours)) if libvirts != ours => {
                return Err(format!(
                    "its metadata puts MAC {} on network {}, its interface on {}: make them say the same, or remove network=",
                    hint.mac,
                    quoted(ours.as_str()),
                    quoted(libvirts.as_str())
                ));
            }
            (None, None) if nic.enslave => {
                return Err(format!(
                    "its metadata names no network for MAC {}, an interface type='ethernet': add network='NAME' to its <evpn:interface>",
                    hint.mac
                ));
            }
            (None, Some(ours)) => {
                nic.network = Some(ours.clone());
                nic.chosen = true;
            }
            _ => (),
        }
        if !hint.ips.is_empty() {
            nic.ips = hint.ips.iter().map(|ip| Address::new(*ip, Source::Metadata)).collect();
        }
        Ok(nic)
    }
}

fn parsed<T: std::str::FromStr>(text: Option<&String>) -> Option<T> {
    text.and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn read(metadata: &str, devices: &str) -> Result<Option<Event>, InputError> {
        let uuid = "<uuid>11111111-2222-3333-4444-555555555501</uuid>";
        let ours = format!("<e:guest xmlns:e='urn:evpn-hook:1'>{metadata}</e:guest>");
        let text = format!("<domain>{uuid}<metadata>{ours}</metadata><devices>{devices}</devices></domain>");
        super::read(&["vm1", "start", "begin", "-"], text.as_bytes())
    }

    fn many(count: u32, element: impl Fn([u8; 4]) -> String) -> String {
        (0..count).fold(String::new(), |mut text, n| {
            let _ = write!(text, "{}", element(n.to_be_bytes()));
            text
        })
    }

    /// What nobody has is refused before it costs: each would be compared with all before it.
    #[test]
    fn metadata_is_bounded() {
        let started = std::time::Instant::now();
        let hints = many(90_000, |[_, a, b, c]| format!("<e:interface mac='52:54:0:{a:x}:{b:x}:{c:x}'/>"));
        let error = read(&hints, "").unwrap_err().to_string();
        assert_eq!(error, "vm vm1: its metadata has more than 256 <evpn:interface>: remove some");
        let ips = many(150_000, |[_, a, b, c]| format!("<e:ip address='10.{a}.{b}.{c}'/>"));
        let hint = format!("<e:interface mac='52:54:0:0:0:1'>{ips}</e:interface>");
        let error = read(&hint, "").unwrap_err().to_string();
        assert!(error.ends_with("has more than 1024 addresses: remove some"), "{error}");
        let parameters = many(70_000, |[_, a, b, c]| format!("<parameter name='IP' value='10.{a}.{b}.{c}'/>"));
        let nic = format!("<interface type='network'><filterref filter='x'>{parameters}</filterref></interface>");
        let Ok(Some(Event::Guest { nics, .. })) = read("", &nic) else { panic!("libvirt's own is not refused") };
        assert_eq!(nics[0].ips.len(), MAX_ADDRESSES);
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }

    #[test]
    fn of_what_stands_twice_the_first_counts() {
        let nic = "<interface type='bridge'><mac address='52:54:0:0:0:1'/><mac address='52:54:0:0:0:2'/>            <source bridge='a' portgroup='p'/><source bridge='b' network='n'/><target dev='x'/><target dev='y'/></interface>";
        let text = format!("<domain><name>one</name><name>two</name><devices>{nic}</devices></domain>");
        let seen = inspect(text.as_bytes()).unwrap();
        let nic = &seen.interfaces[0];
        let word = |text: &Option<String>| text.clone().unwrap_or_default();
        assert_eq!(
            [&nic.mac, &nic.network, &nic.bridge, &nic.portgroup, &nic.target, &seen.name].map(word),
            ["52:54:0:0:0:1", "", "a", "p", "x", "one"]
        );
    }
}
