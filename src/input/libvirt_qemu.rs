//! libvirt's qemu hook: `NAME OP SUBOP EXTRA` and the domain's XML on stdin. <https://libvirt.org/hooks.html#etc-libvirt-hooks-qemu>
//!
//! What each operation's XML holds was measured on libvirt 9.0: only `start`, `started` and `reconnect` know the taps; `stopped` and `release`
//! know no device, no port and no bridge. A network with forward mode='bridge' turns type='network' into type='bridge' between `prepare` and
//! `start`, so the type tells nothing; `source/@network` and `source/@bridge` do.

use super::hints::{Asks, Hint, Meant, assign};
use super::xml::{self, Flow, Node, Tag, Unread};
use super::{InputError, MAX_ADDRESSES, inside, inspect, label, name_and_op, uuid};
use crate::event::{Event, Flaw, GuestPhase, Nic};
use crate::model::{Address, BadValue, Guest, GuestKind, IfName, Mac, NetName, Source, host_ip, quoted};
use std::ops::ControlFlow::{Break, Continue};

/// More NICs than a PCI topology of QEMU's takes.
const MAX_INTERFACES: usize = 256;
const ELEMENTS: &str = "<guest>, in it <interface mac= network=>, in that <ip address=>";

/// Reads one call of the hook. Operations without a meaning for us (restore, attach, future ones) are `None`, whatever their XML is.
///
/// `Started { running }` is left `None`: only the engine may look at libvirt's status file.
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
    let read = if whole { walk_domain(name, stdin, |_, _| ()) } else { identity(name, stdin).map(Read::of) };
    let failed = |why: &str, may_refuse| InputError::new(&format!("vm {}: {why}", label(name)), may_refuse);
    match read {
        Ok(Read { guest, nics, flaw, notes }) => Ok(Some(Event::Guest { phase, guest, nics, flaw, notes })),
        // Of what was not read nobody knows whether it is on a network of ours.
        Err(Unread::TooMuch(why)) => Err(failed(&why, false)),
        Err(Unread::Broken(why)) => Err(failed(&why, phase.may_refuse())),
    }
}

/// A domain as it was read.
pub(super) struct Read {
    pub guest: Guest,
    pub nics: Vec<Nic>,
    /// What is wrong with it as a whole.
    pub flaw: Option<Flaw>,
    /// What is odd and stops nobody.
    pub notes: Vec<String>,
}

impl Read {
    fn of(guest: Guest) -> Read {
        Read { guest, nics: Vec::new(), flaw: None, notes: Vec::new() }
    }
}

/// Name and UUID alone: what stands behind them in the XML, however broken, must not stop a withdraw.
fn identity(name: &str, stdin: &[u8]) -> Result<Guest, Unread> {
    let mut domain = Domain::default();
    xml::walk(stdin, |path, node| {
        if let Node::Close(text) = node {
            domain.close(path, text);
        }
        Ok(if domain.uuid.is_empty() { Continue(()) } else { Break(()) })
    })?;
    Ok(domain.guest(name)?.0)
}

/// Guest and NICs of a `<domain>`, whatever stands around it; `around` is shown each opening tag.
pub(super) fn walk_domain(name: &str, text: &[u8], around: impl FnMut(&[&str], &Tag)) -> Result<Read, Unread> {
    let mut domain = seen(text, around)?;
    let (guest, unnamed) = domain.guest(name)?;
    let flaw = domain.wrong.take().map(|why| Flaw { why, in_metadata: true });
    let flaw = flaw.or(unnamed.map(|why| Flaw { why: why.to_string(), in_metadata: false }));
    // What is wrong in it says nothing of any interface.
    if flaw.as_ref().is_some_and(|flaw| flaw.in_metadata) {
        domain.hints.clear();
    }
    let (nics, notes) = domain.nics(&label(&guest.name));
    Ok(Read { guest, nics, flaw, notes })
}

/// What `inspect` shows: all that was seen on the same walk, also what a hook has no use for.
pub(super) fn inspect(text: &[u8]) -> Result<inspect::Domain, String> {
    let mut root = false;
    let domain = seen(text, |path, _| root |= matches!(path, ["domain"] | ["domstatus", "domain"]))?;
    if let Some(why) = domain.wrong {
        return Err(why);
    }
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

fn seen(text: &[u8], mut around: impl FnMut(&[&str], &Tag)) -> Result<Domain, Unread> {
    let mut domain = Domain::default();
    xml::walk(text, |path, node| {
        let inner = path.strip_prefix(&["domstatus"]).unwrap_or(path);
        match node {
            Node::Open(tag) => {
                around(path, tag);
                // Whether it matters is known when it is known whose networks the domain is on.
                if let Err(why) = domain.open(inner, tag) {
                    domain.wrong.get_or_insert(why);
                }
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
    /// What is wrong in our metadata, or with the domain as a whole: the first of it.
    wrong: Option<String>,
}

/// An `<interface>` of libvirt's.
#[derive(Default)]
struct Interface {
    seen: inspect::Interface,
    /// `<mac>`, `<target>` and `<source>` came.
    once: [bool; 3],
    mac: Option<Mac>,
    ips: Vec<Address>,
    /// It asks for a VLAN.
    vlan: bool,
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
            // One line is told, so that a thousand more cost nothing.
            ["domain", "metadata", ..] if self.wrong.is_some() => {}
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
        let network = tag.attr("network")?.map(|text| inside("evpn:interface", text.parse())).transpose()?;
        if self.hints.iter().any(|hint| hint.mac == mac && hint.network == network) {
            return Err(format!(
                "its metadata has the MAC {mac} twice: keep one <evpn:interface> a MAC, or name the network= of each"
            ));
        }
        self.hints.push(Hint { mac, network, ips: Vec::new() });
        Ok(())
    }

    /// Who it is, and what is wrong with its name.
    fn guest(&self, argument: &str) -> Result<(Guest, Option<BadValue>), String> {
        if self.uuid.is_empty() {
            return Err("the XML on stdin has no <domain><uuid>: libvirt gives one; by hand, pipe `virsh dumpxml` in"
                .to_owned());
        }
        let name = if self.name.is_empty() { argument } else { &self.name };
        Ok(Guest::shown(GuestKind::Libvirt, name, &uuid(&self.uuid)?))
    }

    /// The NICs that may be on a network of ours, each with what our metadata says of it, and what it says of none.
    fn nics(self, domain: &str) -> (Vec<Nic>, Vec<String>) {
        let Domain { interfaces, hints, .. } = self;
        let networks: Vec<Option<NetName>> = interfaces.iter().map(|i| parsed(i.seen.network.as_ref())).collect();
        let asks = interfaces.iter().zip(&networks).map(|(interface, network)| Asks {
            mac: interface.mac,
            network: network.as_ref(),
            usable: interface.usable(),
            on_bridge: interface.seen.bridge.is_some(),
            kind: &interface.seen.kind,
        });
        let (meant, notes) = assign(domain, &hints, &asks.collect::<Vec<_>>());
        let usable = interfaces.into_iter().zip(meant).filter(|(interface, _)| interface.usable());
        (usable.map(|(interface, meant)| interface.finish(&hints, meant)).collect(), notes)
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
            }
            ["vlan"] | ["actual", "vlan"] => self.vlan = true,
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

    /// libvirt's own values that we could not use (a MAC of zeros, a device `a~b`) count where the NIC is on a network of ours, which is not known here;
    /// a bridge that no network of ours can have is none of ours.
    fn finish(self, hints: &[Hint], meant: Meant) -> Nic {
        let (device, odd) = match self.seen.target.as_ref().map(|name| name.parse::<IfName>()) {
            Some(Ok(device)) => (Some(device), None),
            Some(Err(why)) => (None, Some(format!("{why}: give its <target dev=> another, or none"))),
            None => (None, None),
        };
        let vlan = self.vlan.then(|| {
            "its interface asks for a VLAN (<vlan>, or its portgroup's), which a network of evpn-hook's does not have: use a network of its own for it, or remove <vlan>"
                .to_owned()
        });
        let mut nic = Nic {
            device,
            mac: self.mac,
            bridge: parsed(self.seen.bridge.as_ref()),
            network: parsed(self.seen.network.as_ref()),
            ips: self.ips,
            enslave: self.seen.kind == "ethernet",
            flaw: odd.or(vlan).map(|why| Flaw { why, in_metadata: false }),
            ..Nic::default()
        };
        let declared =
            |hint: &Hint| -> Vec<Address> { hint.ips.iter().map(|ip| Address::new(*ip, Source::Metadata)).collect() };
        let wrong = match meant {
            Meant::Nothing => None,
            Meant::Unclear(why) => Some(why),
            Meant::OneOf(these) => {
                let these = these.into_iter().filter_map(|at| hints.get(at));
                let named = these.filter_map(|hint| Some((hint.network.clone()?, declared(hint))));
                nic.by_network = named.collect();
                None
            }
            Meant::One(at) => hints.get(at).and_then(|hint| match (&nic.network, &hint.network) {
                (Some(libvirts), Some(ours)) if libvirts != ours => Some(format!(
                    "its metadata puts MAC {} on network {}, its interface on {}: make them say the same, or remove network=",
                    hint.mac,
                    quoted(ours.as_str()),
                    quoted(libvirts.as_str())
                )),
                (None, None) if nic.enslave => Some(format!(
                    "its metadata names no network for MAC {}, an interface type='ethernet': add network='NAME' to its <evpn:interface>",
                    hint.mac
                )),
                (network, ours) => {
                    if let (None, Some(ours)) = (network, ours) {
                        nic.network = Some(ours.clone());
                        nic.chosen = true;
                    }
                    if !hint.ips.is_empty() {
                        nic.ips = declared(hint);
                    }
                    None
                }
            }),
        };
        nic.flaw = wrong.map(|why| Flaw { why, in_metadata: true }).or(nic.flaw);
        nic
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

    fn flaw(metadata: &str, devices: &str) -> String {
        let Ok(Some(Event::Guest { flaw: Some(flaw), .. })) = read(metadata, devices) else {
            panic!("nothing is wrong")
        };
        assert!(flaw.in_metadata);
        flaw.why
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
        assert_eq!(flaw(&hints, ""), "its metadata has more than 256 <evpn:interface>: remove some");
        let ips = many(150_000, |[_, a, b, c]| format!("<e:ip address='10.{a}.{b}.{c}'/>"));
        let hint = format!("<e:interface mac='52:54:0:0:0:1'>{ips}</e:interface>");
        let error = flaw(&hint, "");
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
