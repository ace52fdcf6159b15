//! libvirt's network hook: `NAME OP SUBOP EXTRA` and `<hookData>` on stdin. <https://libvirt.org/hooks.html#etc-libvirt-hooks-network>
//!
//! A network is ours if its metadata says so or config.toml knows its name; all others pass unread. Where both describe it, they must agree.

use super::xml::{self, Flow, Node, Tag};
use super::{InputError, inside, label, name_and_op, uuid};
use crate::config::{Config, Network, Origin, PortSecurity, Vrf};
use crate::event::{Event, NetworkPhase};
use crate::model::{Guest, GuestKind, Mac, NetName, Vni, host_ip, quoted};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::ControlFlow::{Break, Continue};

const ELEMENTS: &str = "<network vni= port_security=>, in it <vrf name= table= vni=>";

/// Reads one call of the hook; `None` where the network is not ours or the operation has no meaning for us.
///
/// `stopped` gives an event for every network, because the metadata may be gone by then and only own state knows what to take down.
pub fn read<S: AsRef<str>>(args: &[S], stdin: &[u8], config: &Config) -> Result<Option<Event>, InputError> {
    let (name, op) = name_and_op(args)?;
    let failed = |why: String, may_refuse| InputError::new(&format!("network {}: {why}", label(name)), may_refuse);
    let phase = match op {
        "start" => NetworkPhase::Start,
        "started" => NetworkPhase::Started,
        "updated" | "port-created" => NetworkPhase::Updated,
        "port-deleted" => return port_deleted(stdin).map_err(|why| failed(why, false)),
        "stopped" => {
            // A name that is none of ours to take was never ours to start.
            let Ok(name) = name.parse::<NetName>() else { return Ok(None) };
            let network = network(stdin, &name, config).ok().flatten();
            return Ok(Some(Event::NetworkStopped { name, network }));
        }
        _ => return Ok(None),
    };
    let network = match name.parse::<NetName>() {
        Ok(name) => network(stdin, &name, config),
        Err(e) => Err(e.to_string()),
    };
    match network {
        Ok(network) => Ok(network.map(|network| Event::Network { phase, network })),
        Err(why) => Err(failed(why, phase.may_refuse())),
    }
}

/// One of libvirt's status files, `/run/libvirt/network/NAME.xml`: a network that is up; `None` where it is not ours.
pub fn status(name: &NetName, text: &[u8], config: &Config) -> Result<Option<Network>, InputError> {
    network(text, name, config)
        .map_err(|why| InputError::new(&format!("network {}: {why}", label(name.as_str())), false))
}

fn port_deleted(stdin: &[u8]) -> Result<Option<Event>, String> {
    let [mut port, mut name, mut id] = [const { String::new() }; 3];
    xml::walk(stdin, |path, node| {
        if let Node::Close(text) = node {
            match path {
                ["hookData", "networkport", "uuid"] => text.clone_into(&mut port),
                ["hookData", "networkport", "owner", "name"] => text.clone_into(&mut name),
                ["hookData", "networkport", "owner", "uuid"] => text.clone_into(&mut id),
                _ => (),
            }
        }
        Ok(if port.is_empty() || name.is_empty() || id.is_empty() { Continue(()) } else { Break(()) })
    })?;
    // A port that somebody made by hand has no owner: no guest of ours.
    if port.is_empty() || id.is_empty() {
        return Ok(None);
    }
    let owner = Guest::new(GuestKind::Libvirt, &name, &uuid(&id)?).map_err(|e| e.to_string())?;
    Ok(Some(Event::PortDeleted { owner, port: uuid(&port)? }))
}

/// What stands in `<network>`, still as text where it is libvirt's: a network that is not ours may hold what it likes.
#[derive(Default)]
struct Found {
    forward: Option<String>,
    bridge: Option<String>,
    vlan_aware: bool,
    mac: Option<String>,
    mtu: Option<String>,
    ips: Vec<[Option<String>; 3]>,
    hosts: Vec<(String, String)>,
    metadata: Option<(Vni, Option<Vrf>)>,
    port_security: Option<PortSecurity>,
}

fn network(stdin: &[u8], name: &NetName, config: &Config) -> Result<Option<Network>, String> {
    let mut found = Found::default();
    xml::walk(stdin, |path, node| {
        // `virsh net-dumpxml` piped in by hand has nothing around it.
        let path = path.strip_prefix(&["hookData"]).or(path.strip_prefix(&["networkstatus"])).unwrap_or(path);
        if let Node::Open(tag) = node {
            found.open(path, tag)?;
        }
        Ok::<Flow, String>(Continue(()))
    })?;
    found.finish(name, config.network(name))
}

impl Found {
    fn open(&mut self, path: &[&str], tag: &Tag) -> Result<(), String> {
        match path {
            ["network", "forward"] => self.forward = tag.get("mode"),
            ["network", "bridge"] => {
                self.bridge = tag.get("name");
                self.vlan_aware = tag.get("macTableManager").as_deref() == Some("libvirt");
            }
            ["network", "mac"] => self.mac = tag.get("address"),
            ["network", "mtu"] => self.mtu = tag.get("size"),
            ["network", "ip"] => self.ips.push(["address", "netmask", "prefix"].map(|key| tag.get(key))),
            // Hosts of IPv6 have no MAC: libvirt wants a DUID or a name there.
            ["network", "ip", "dhcp", "host"] => {
                let mac = tag.get("mac").or_else(|| mac_of_duid(&tag.get("id")?));
                self.hosts.extend(mac.zip(tag.get("ip")));
            }
            ["network", "metadata", "evpn:network"] => {
                tag.only(&["vni", "port_security"])?;
                if self.metadata.is_some() {
                    return Err("it has <evpn:network> twice in its metadata: keep one".to_owned());
                }
                let vni = required(tag, "evpn:network", "vni", "20")?;
                self.metadata = Some((inside("evpn:network", vni.parse())?, None));
                let security = tag.attr("port_security")?.map(|text| inside("evpn:network", text.parse()));
                self.port_security = security.transpose()?;
            }
            ["network", "metadata", "evpn:network", "evpn:vrf"] => {
                tag.only(&["name", "table", "vni"])?;
                let vrf = Vrf {
                    name: inside("evpn:vrf", required(tag, "evpn:vrf", "name", "red")?.parse())?,
                    table: inside("evpn:vrf", required(tag, "evpn:vrf", "table", "10")?.parse())?,
                    vni: tag.attr("vni")?.map(|text| inside("evpn:vrf", text.parse())).transpose()?,
                };
                match &mut self.metadata {
                    Some((_, Some(_))) => return Err("it has <evpn:vrf> twice in its metadata: keep one".to_owned()),
                    Some((_, none)) => *none = Some(vrf),
                    None => (),
                }
            }
            [.., last] if last.starts_with("evpn:") => return tag.unknown(ELEMENTS),
            _ => (),
        }
        Ok(())
    }

    fn finish(self, name: &NetName, known: Option<&Network>) -> Result<Option<Network>, String> {
        let (vni, vrf) = match (self.metadata, known) {
            (Some(metadata), _) => metadata,
            (None, Some(known)) => (known.vni, known.vrf.clone()),
            (None, None) => return Ok(None),
        };
        let origin = if self.forward.as_deref() == Some("bridge") { Origin::LibvirtBridge } else { Origin::Libvirt };
        let Some(bridge) = self.bridge else {
            return Err("it has no bridge that could carry it: add <bridge name='red-l2'/> to its XML".to_owned());
        };
        let mac: Option<Mac> = self.mac.map(|text| inside("mac", text.parse())).transpose()?;
        let mtu = self.mtu.map(|text| {
            text.parse::<u32>().map_err(|_| format!("<mtu size={}> is not a number: use 68 to 65535", quoted(&text)))
        });
        let mut network = Network {
            name: name.clone(),
            origin,
            bridge: inside("bridge", bridge.parse())?,
            vni,
            vrf,
            gateway: self.ips.iter().map(gateway).collect::<Result<_, _>>()?,
            mac,
            mtu: mtu.transpose()?,
            port_security: self.port_security,
            vlan_aware: self.vlan_aware,
            hosts: hosts(&self.hosts),
        };
        if let Some(known) = known {
            if let Some(what) = network.disagreement(known) {
                let place = if what.starts_with(['v', 'p']) { "metadata" } else { "XML" };
                return Err(format!("libvirt's {place} and config.toml disagree on {what}: make them say the same"));
            }
            network.mac = network.mac.or(known.mac);
            network.mtu = network.mtu.or(known.mtu);
            network.port_security = network.port_security.or(known.port_security);
            // libvirt gives addresses to the bridges that it makes, and only to those.
            if origin == Origin::LibvirtBridge && network.gateway.is_empty() {
                network.gateway.clone_from(&known.gateway);
            }
        }
        network.problem().map_or(Ok(Some(network)), Err)
    }
}

fn required(tag: &Tag, element: &str, key: &str, example: &str) -> Result<String, String> {
    tag.attr(key)?.ok_or_else(|| format!("<{element}> has no {key}=: add {key}='{example}'"))
}

/// An `<ip>` of libvirt's: netmask, prefix, or what the address's class gave in 1981
/// (libvirt's src/util/virsocketaddr.c `virSocketAddrGetIPPrefix` still does so).
fn gateway([address, netmask, prefix]: &[Option<String>; 3]) -> Result<IpNet, String> {
    let text = address.as_deref().unwrap_or_default();
    let wrong = || format!("<ip address={}>: its address, netmask or prefix does not parse: correct it", quoted(text));
    let ip: IpAddr = text.parse().map_err(|_| wrong())?;
    let bits = match (prefix, netmask, ip) {
        (Some(prefix), _, _) => prefix.parse().map_err(|_| wrong())?,
        (None, Some(mask), _) => {
            mask.parse().ok().and_then(|mask| ipnet::ip_mask_to_prefix(mask).ok()).ok_or_else(wrong)?
        }
        (None, None, IpAddr::V6(_)) => 64,
        (None, None, IpAddr::V4(v4)) => match v4.octets()[0] {
            0..128 => 8,
            128..192 => 16,
            192.. => 24,
        },
    };
    IpNet::new(ip, bits).map_err(|_| wrong())
}

/// The MAC in a DHCPv6 client's identifier that is made from one: DUID-LL `0:3:0:1:MAC` and DUID-LLT `0:1:0:1:TIME:MAC`, hardware type
/// Ethernet (RFC 8415 §11.2 and §11.4). It is that of the machine's first NIC, which may have others.
fn mac_of_duid(id: &str) -> Option<String> {
    let bytes: Vec<u8> = id.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>().ok()?;
    let mac: &[u8; 6] = match bytes.as_slice() {
        [0, 3, 0, 1, mac @ ..] | [0, 1, 0, 1, _, _, _, _, mac @ ..] => mac.try_into().ok()?,
        _ => return None,
    };
    Some(Mac::from_bytes(mac)?.to_string())
}

/// Addresses of guests before they ask for them. An entry that no guest can have is libvirt's affair.
fn hosts(entries: &[(String, String)]) -> BTreeMap<Mac, Vec<IpAddr>> {
    let mut hosts = BTreeMap::<Mac, Vec<IpAddr>>::new();
    for (mac, ip) in entries {
        if let (Ok(mac), Ok(ip)) = (mac.parse(), host_ip(ip)) {
            let ips = hosts.entry(mac).or_default();
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
    }
    hosts
}
