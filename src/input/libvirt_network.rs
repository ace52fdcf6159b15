//! libvirt's network hook: `NAME OP SUBOP EXTRA` and `<hookData>` on stdin. <https://libvirt.org/hooks.html#etc-libvirt-hooks-network>
//!
//! A network is ours if its metadata says so or config.toml knows its name; all others pass unread. Where both describe it, they must agree.

use super::xml::{self, Flow, Node, Tag};
use super::{InputError, MAX_ADDRESSES, inside, inspect, label, name_and_op, uuid};
use crate::config::{Config, Described, Forward, Network, Origin, PortSecurity, Vrf};
use crate::event::{Event, NetworkPhase};
use crate::model::{Guest, GuestKind, Mac, NetName, Vni, hazard, host_ip, quoted};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::ControlFlow::{Break, Continue};

const ELEMENTS: &str = "<network vni= port_security= stp=>, in it <vrf name= table= vni=>";

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
        Ok(name) if phase.may_refuse() => starting(stdin, &name, config),
        Ok(name) => network(stdin, &name, config),
        // What a network that is not ours is called is not ours to judge, and config.toml knows none of that name.
        Err(e) => match found(stdin) {
            Ok(Found { metadata: None, .. }) => Ok(None),
            _ => Err(e.to_string()),
        },
    };
    match network {
        Ok(Some(network)) if phase.may_refuse() && hazard(network.name.as_str()).is_some() => {
            let c = hazard(network.name.as_str()).unwrap_or_default().to_string();
            let why =
                format!("its name has {}, which is not safe in a path, a shell or a terminal: rename it", quoted(&c));
            Err(failed(why, true))
        }
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
    let [mut name, mut id] = [const { String::new() }; 2];
    xml::walk(stdin, |path, node| {
        if let Node::Close(text) = node {
            match path {
                ["hookData", "networkport", "owner", "name"] => text.clone_into(&mut name),
                ["hookData", "networkport", "owner", "uuid"] => text.clone_into(&mut id),
                _ => (),
            }
        }
        Ok(if name.is_empty() || id.is_empty() { Continue(()) } else { Break(()) })
    })?;
    // A port that somebody made by hand has no owner: no guest of ours.
    if id.is_empty() {
        return Ok(None);
    }
    let (owner, _) = Guest::shown(GuestKind::Libvirt, &name, &uuid(&id)?);
    Ok(Some(Event::PortDeleted { owner }))
}

/// What stands in `<network>`, still as text where it is libvirt's: a network that is not ours may hold what it likes.
#[derive(Default)]
struct Found {
    root: bool,
    name: Option<String>,
    uuid: Option<String>,
    forward: Option<String>,
    forward_dev: Option<String>,
    uplinks: Vec<String>,
    bridge: Option<String>,
    vlan_aware: bool,
    stp: Option<String>,
    mac: Option<String>,
    mtu: Option<String>,
    ips: Vec<[Option<String>; 3]>,
    hosts: Vec<(String, String)>,
    metadata: Option<(Vni, Option<Vrf>)>,
    port_security: Option<PortSecurity>,
    stp_wanted: bool,
    dhcp4: bool,
    dhcp_broadcast: bool,
    dns: Option<String>,
    tftp: bool,
    /// The portgroup that was opened last.
    portgroup: String,
    /// Where it asks for a VLAN, in words; the first.
    vlan: Option<String>,
}

fn network(stdin: &[u8], name: &NetName, config: &Config) -> Result<Option<Network>, String> {
    found(stdin)?.finish(name, config.network(name))
}

/// The same of one that is about to start: one that runs is not taken away for what it should not ask for.
fn starting(stdin: &[u8], name: &NetName, config: &Config) -> Result<Option<Network>, String> {
    let found = found(stdin)?;
    let in_vain = found.in_vain();
    let network = found.finish(name, config.network(name))?;
    match in_vain.filter(|_| network.is_some()) {
        Some(why) => Err(why),
        None => Ok(network),
    }
}

/// What `inspect` shows: all that was found on the same walk, also of a network that is not ours.
pub(super) fn inspect(text: &[u8]) -> Result<inspect::Network, String> {
    let found = found(text)?;
    if !found.root {
        return Err("the XML on stdin is no <network>: pipe `virsh net-dumpxml` in".to_owned());
    }
    let uplinks = if found.uplinks.is_empty() { found.forward_dev.into_iter().collect() } else { found.uplinks };
    let uplink = |dev| inspect::Interface {
        kind: found.forward.clone().unwrap_or_default(),
        target: Some(dev),
        ..inspect::Interface::default()
    };
    Ok(inspect::Network {
        name: found.name,
        uuid: found.uuid,
        interfaces: uplinks.into_iter().map(uplink).collect(),
        forward: found.forward.clone(),
        bridge: found.bridge,
        mac: found.mac,
        mtu: found.mtu.and_then(|text| text.parse().ok()),
        // An address that does not parse is libvirt's to refuse.
        gateway: found.ips.iter().filter_map(|ip| gateway(ip).ok()).collect(),
        metadata: found.metadata.map(|(vni, vrf)| inspect::Metadata { vni, vrf }),
    })
}

fn found(text: &[u8]) -> Result<Found, String> {
    let mut found = Found::default();
    xml::walk(text, |path, node| {
        // `virsh net-dumpxml` piped in by hand has nothing around it.
        let path = path.strip_prefix(&["hookData"]).or(path.strip_prefix(&["networkstatus"])).unwrap_or(path);
        match (path, node) {
            (_, Node::Open(tag)) => found.open(path, tag)?,
            (["network", "name"], Node::Close(text)) if found.name.is_none() => found.name = Some(text.to_owned()),
            (["network", "uuid"], Node::Close(text)) if found.uuid.is_none() => found.uuid = Some(text.to_owned()),
            _ => {}
        }
        Ok::<Flow, String>(Continue(()))
    })?;
    Ok(found)
}

impl Found {
    fn open(&mut self, path: &[&str], tag: &Tag) -> Result<(), String> {
        match path {
            ["network"] => self.root = true,
            // Of what stands twice libvirt takes the first.
            ["network", "forward"] if self.forward.is_none() => {
                // libvirt's own default (network_conf.c `virNetworkForwardDefParseXML`).
                self.forward = Some(tag.get("mode").unwrap_or_else(|| "nat".to_owned()));
                self.forward_dev = tag.get("dev");
            }
            ["network", "forward", "interface"] => self.uplinks.extend(tag.get("dev")),
            ["network", "bridge"] if self.bridge.is_none() => {
                self.bridge = tag.get("name");
                self.vlan_aware = tag.get("macTableManager").as_deref() == Some("libvirt");
                self.stp = tag.get("stp");
            }
            ["network", "vlan"] => _ = self.vlan.get_or_insert_with(|| "it asks for a VLAN (<vlan>)".to_owned()),
            ["network", "portgroup"] => self.portgroup = tag.get("name").unwrap_or_default(),
            ["network", "portgroup", "vlan"] => {
                let asks = || format!("its portgroup {} asks for a VLAN (<vlan>)", quoted(&self.portgroup));
                self.vlan.get_or_insert_with(asks);
            }
            ["network", "mac"] if self.mac.is_none() => self.mac = tag.get("address"),
            ["network", "mtu"] if self.mtu.is_none() => self.mtu = tag.get("size"),
            // One is told from too many when it is known whether the network is ours.
            ["network", "ip"] if self.ips.len() > MAX_ADDRESSES => {}
            ["network", "ip"] => self.ips.push(["address", "netmask", "prefix"].map(|key| tag.get(key))),
            // Hosts of IPv6 have no MAC: libvirt wants a DUID or a name there.
            ["network", "ip", "dhcp", "host"] => {
                let mac = tag.get("mac").or_else(|| mac_of_duid(&tag.get("id")?));
                self.hosts.extend(mac.zip(tag.get("ip")));
            }
            ["network", "ip", "dhcp"] => self.dhcp4 |= self.in_ipv4(),
            ["network", "ip", "tftp"] => self.tftp = true,
            ["network", "dns"] if self.dns.is_none() => self.dns = Some(tag.get("enable").unwrap_or_default()),
            ["network", "dnsmasq:options", "dnsmasq:option"] => self.dhcp_broadcast |= tag.is_dhcp_broadcast(),
            ["network", "metadata", "evpn:network"] => {
                tag.only(&["vni", "port_security", "stp"])?;
                if self.metadata.is_some() {
                    return Err("it has <evpn:network> twice in its metadata: keep one".to_owned());
                }
                let vni = required(tag, "evpn:network", "vni", "20")?;
                self.metadata = Some((inside("evpn:network", vni.parse())?, None));
                let security = tag.attr("port_security")?.map(|text| inside("evpn:network", text.parse()));
                self.port_security = security.transpose()?;
                self.stp_wanted = match tag.attr("stp")?.as_deref() {
                    None | Some("off") => false,
                    Some("on") => true,
                    Some(other) => {
                        return Err(format!("<evpn:network>: stp {} is unknown: use on or off", quoted(other)));
                    }
                };
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

    /// What it asks of its bridge in vain. libvirt 11.0 and newer takes a VLAN for Linux bridges (<https://libvirt.org/formatnetwork.html>, vlan): what it
    /// sets up for one guest's tag changes the bridge under all others.
    fn in_vain(&self) -> Option<String> {
        let asks = self.vlan.as_ref()?;
        Some(format!(
            "{asks}, which a network of evpn-hook's does not have, for one VNI is one segment: use another network, with a VNI of its own, or remove <vlan>"
        ))
    }

    /// Is the `<ip>` that was last opened IPv4's?
    fn in_ipv4(&self) -> bool {
        let address = self.ips.last().and_then(|[address, ..]| address.as_deref());
        address.is_some_and(|text| text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()))
    }

    /// What advice is made of. libvirt's own MACs have the prefix of QEMU's guests (util/virmacaddr.c `virMacAddrGenerate`).
    fn described(&self, origin: Origin) -> Described {
        let makes = origin == Origin::Libvirt;
        let own_mac = match &self.mac {
            Some(mac) => makes && mac.to_ascii_lowercase().starts_with("52:54:00:"),
            None => true,
        };
        Described {
            forward: match self.forward.as_deref() {
                None => Forward::Isolated,
                Some("nat") => Forward::Nat,
                Some(_) => Forward::Open,
            },
            // libvirt's own default (network_conf.c `virNetworkDefParseXML`), and what it prints of it.
            stp: makes && self.stp.as_deref() != Some("off"),
            dhcp_unicast: self.dhcp4 && !self.dhcp_broadcast,
            dns: makes && self.dns.as_deref() != Some("no"),
            tftp: self.tftp,
            own_mac,
            mtu_told: self.mtu.is_some(),
        }
    }

    /// A network is a bridge. libvirt names one itself where a mode that makes one has none, so what is left are modes that use none.
    fn no_bridge(&self) -> String {
        match self.forward.as_deref() {
            Some(mode @ ("private" | "vepa" | "passthrough" | "hostdev")) => format!(
                "<forward mode='{mode}'> has no bridge that could carry it: use mode='open' with <bridge name='red-l2' stp='off' delay='0'/>, or take <evpn:network> out"
            ),
            Some("bridge") => "it has no bridge that could carry it: add <bridge name='red-l2'/> to its XML".to_owned(),
            _ => "it has no bridge that could carry it: add <bridge name='red-l2' stp='off' delay='0'/> to its XML"
                .to_owned(),
        }
    }

    fn finish(self, name: &NetName, known: Option<&Network>) -> Result<Option<Network>, String> {
        let (vni, vrf) = match (&self.metadata, known) {
            (Some(metadata), _) => metadata.clone(),
            (None, Some(known)) => (known.vni, known.vrf.clone()),
            (None, None) => return Ok(None),
        };
        let origin = if self.forward.as_deref() == Some("bridge") { Origin::LibvirtBridge } else { Origin::Libvirt };
        let described = self.described(origin);
        let Some(bridge) = &self.bridge else { return Err(self.no_bridge()) };
        if self.ips.len() > MAX_ADDRESSES {
            return Err(format!("it has more than {MAX_ADDRESSES} <ip>: remove some"));
        }
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
            stp: self.stp_wanted,
            hosts: hosts(&self.hosts),
            described: Some(described),
        };
        if let Some(known) = known {
            if let Some(what) = network.disagreement(known) {
                let place = if what.starts_with(['v', 'p']) { "metadata" } else { "XML" };
                return Err(format!("libvirt's {place} and config.toml disagree on {what}: make them say the same"));
            }
            network.mac = network.mac.or(known.mac);
            network.mtu = network.mtu.or(known.mtu);
            network.port_security = network.port_security.or(known.port_security);
            let told_by_config = origin == Origin::LibvirtBridge && known.mtu.is_some();
            network.described = Some(Described {
                own_mac: described.own_mac && (origin == Origin::Libvirt || known.mac.is_none()),
                mtu_told: described.mtu_told || told_by_config,
                ..described
            });
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
            if ips.len() < MAX_ADDRESSES && !ips.contains(&ip) {
                ips.push(ip);
            }
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn read(ips: &str) -> Result<Option<Event>, InputError> {
        let ours = "<metadata><e:network xmlns:e='urn:evpn-hook:1' vni='20'/></metadata>";
        let text = format!("<network>{ours}<bridge name='red-l2'/>{ips}</network>");
        super::read(&["red", "start", "begin", "-"], text.as_bytes(), &Config::default())
    }

    #[test]
    fn addresses_are_bounded() {
        let started = std::time::Instant::now();
        let (mut ips, mut hosts) = (String::new(), String::new());
        for n in 0..70_000_u32 {
            let [_, a, b, c] = n.to_be_bytes();
            let _ = write!(ips, "<ip address='10.{a}.{b}.{c}' prefix='8'/>");
            let _ = write!(hosts, "<host mac='52:54:0:0:0:1' ip='10.{a}.{b}.{c}'/>");
        }
        let error = read(&ips).unwrap_err().to_string();
        assert_eq!(error, "network red: it has more than 1024 <ip>: remove some");
        let hosts = format!("<ip address='10.0.0.1' prefix='8'><dhcp>{hosts}</dhcp></ip>");
        let Ok(Some(Event::Network { network, .. })) = read(&hosts) else { panic!("libvirt's own is not refused") };
        assert_eq!(network.hosts.values().map(Vec::len).collect::<Vec<_>>(), [MAX_ADDRESSES]);
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }
}
