//! What the agent knows by heart, and what an event therefore means: pure, so that each rule can be tried without a kernel.
//!
//! A guest's record says what should be, an event what changed; where they disagree somebody has to look. Looking is cheap and ends in no step
//! if all is well, so when in doubt it is looked at.

use crate::config::PortSecurity;
use crate::kernel::Event;
use crate::model::{Guest, GuestKind, IfName, Mac, NetName, Source};
use crate::plan::seen::Link;
use crate::plan::whose::Holder;
use crate::register::{GuestRecord, NetworkRecord, Stage};
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::rc::Rc;

/// A guest's or network's name in the register.
pub type Key = Rc<str>;

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// A guest.
    Guest(Key, Why),
    /// A network.
    Network(NetName, Why),
    /// Whether FRR still has the networks' part of its configuration.
    Stanzas,
    /// What VRFs need of the host as a whole: its routing rules, IP forwarding.
    Host,
    /// A port of nobody's, by its index, on a bridge whose guests' ports are held.
    Port(u32),
    /// All that there is.
    Everything,
}

/// What happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A guest that was on its way speaks on its own tap.
    Arrived,
    /// Something of it is missing or different.
    Lost,
    /// A device of a network is gone: whoever took it is perhaps taking down the network, and tells us in a moment.
    Gone,
    /// Another VTEP says that the guest is there: it may have moved away.
    Taken,
    /// Its device is on another bridge, or on none: whoever moved it is about to tell us. libvirt changes a NIC's bridge first, and writes its
    /// status file last.
    Moved,
}

/// What became of a guest's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// It says what it said.
    Same,
    /// It is new, or says something else.
    Changed,
    /// The guest was on its way, and is here: whoever registered it.
    Arrived,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Nic {
    device: IfName,
    bridge: IfName,
    beside: Box<[IfName]>,
    mac: Option<Mac>,
    ips: Box<[Ip]>,
    incoming: bool,
    guarded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ip {
    ip: IpAddr,
    source: Source,
    router: bool,
}

/// A guest's port, as one who hears something on it needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The guest's name in the register.
    pub key: Key,
    /// The guest.
    pub guest: Guest,
    /// The port.
    pub device: IfName,
    /// The segment.
    pub bridge: IfName,
    /// The guest's MAC.
    pub mac: Mac,
    ips: Box<[Ip]>,
}

impl Port {
    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ips.iter().map(|a| a.ip)
    }

    /// What tells that this address is its.
    pub fn source_of(&self, ip: IpAddr) -> Option<Source> {
        self.ips.iter().find(|a| a.ip == ip).map(|a| a.source)
    }

    /// Has it an address by a lease?
    pub fn has_a_lease(&self) -> bool {
        self.ips.iter().any(|a| a.source == Source::Lease)
    }

    /// Is this address known to be its?
    pub fn has(&self, ip: IpAddr) -> bool {
        self.ips.iter().any(|a| a.ip == ip)
    }

    /// Does it have this address, and nobody was told that it routes by it?
    pub fn is_no_router_by(&self, ip: IpAddr) -> bool {
        self.ips.iter().any(|a| a.ip == ip && !a.router)
    }
}

#[derive(Debug)]
struct Known {
    guest: Guest,
    nics: Box<[Nic]>,
}

#[derive(Debug)]
struct Segment {
    name: NetName,
    devices: Box<[IfName]>,
    /// Its L3VNI's bridge.
    l3: Option<IfName>,
    /// Its VRF's, where it has one.
    table: Option<u32>,
    guarded: bool,
    waits: Waits,
}

/// What a network is not whole without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    No,
    /// This host's tunnel end: any address may be it.
    Address,
    /// A route to another VTEP, which tells its MTU: there is one where something of another VTEP is told.
    Route,
}

#[derive(Debug, PartialEq, Eq)]
struct Device {
    name: IfName,
    master: Option<u32>,
    up: bool,
}

/// Who is where, by all that an event can name.
#[derive(Debug, Default)]
pub struct Index {
    links: HashMap<u32, Device>,
    guests: BTreeMap<Key, Known>,
    by_mac: HashMap<Mac, Vec<Key>>,
    by_ip: HashMap<IpAddr, Vec<Key>>,
    by_device: HashMap<IfName, Vec<Key>>,
    networks: BTreeMap<Key, Segment>,
    by_network_device: HashMap<IfName, Vec<Key>>,
    ports_changed: bool,
    settings_changed: bool,
}

impl Index {
    /// The devices as they are now; forgets what was known of them.
    pub fn put_links(&mut self, links: Vec<Link>) {
        self.ports_changed = true;
        self.settings_changed = true;
        self.links = links
            .into_iter()
            .map(|link| (link.index, Device { name: link.name, master: link.master, up: link.up }))
            .collect();
    }

    /// A guest's record, or that there is none any more.
    pub fn put_guest(&mut self, key: &str, record: Option<&GuestRecord>) -> Record {
        let nics = record.map(|record| {
            record.endpoints.iter().map(|e| Nic {
                device: e.device.clone(),
                bridge: e.bridge.clone(),
                beside: e.beside.clone().into(),
                mac: e.mac,
                ips: e.ips.iter().map(|a| Ip { ip: a.ip, source: a.source, router: a.router }).collect(),
                incoming: e.stage == Stage::Incoming,
                guarded: e.port_security != PortSecurity::Off,
            })
        });
        let nics: Option<Box<[Nic]>> = nics.map(Iterator::collect);
        let before = self.guests.remove(key);
        let incoming = |nics: &[Nic]| nics.iter().any(|nic| nic.incoming);
        let became = match (before.as_ref().map(|b| &b.nics), &nics) {
            (before, now) if before == now.as_ref() => Record::Same,
            (Some(before), Some(now)) if incoming(before) && !incoming(now) => Record::Arrived,
            _ => Record::Changed,
        };
        self.ports_changed |= became != Record::Same;
        for nic in before.iter().flat_map(|b| &b.nics) {
            drop_key(&mut self.by_device, &nic.device, key);
            nic.mac.iter().for_each(|mac| drop_key(&mut self.by_mac, mac, key));
            nic.ips.iter().for_each(|a| drop_key(&mut self.by_ip, &a.ip, key));
        }
        if let (Some(record), Some(nics)) = (record, nics) {
            let key = Key::from(key);
            for nic in &nics {
                put_key(&mut self.by_device, &nic.device, &key);
                nic.mac.iter().for_each(|mac| put_key(&mut self.by_mac, mac, &key));
                nic.ips.iter().for_each(|a| put_key(&mut self.by_ip, &a.ip, &key));
            }
            self.guests.insert(key, Known { guest: record.guest.clone(), nics });
        }
        became
    }

    /// A network's record, or that there is none any more.
    pub fn put_network(&mut self, key: &str, record: Option<&NetworkRecord>) {
        self.settings_changed = true;
        if let Some(before) = self.networks.remove(key) {
            before.devices.iter().for_each(|device| drop_key(&mut self.by_network_device, device, key));
        }
        let Some(NetworkRecord { network, .. }) = record else { return };
        // The first two are the segment's own.
        let mut devices = vec![network.bridge.clone(), network.vni.device()];
        let l3 = network.vrf.as_ref().filter(|vrf| vrf.vni.is_some()).and_then(|vrf| vrf.l3_bridge().ok().flatten());
        if let Some(vrf) = &network.vrf {
            devices.push(vrf.name.clone());
            devices.extend(vrf.vni.map(|vni| vni.device()));
            devices.extend(vrf.l3_bridge().ok().flatten());
        }
        let key = Key::from(key);
        devices.iter().for_each(|device| put_key(&mut self.by_network_device, device, &key));
        let (name, guarded) = (network.name.clone(), network.security() != PortSecurity::Off);
        let table = network.vrf.as_ref().map(|vrf| vrf.table.get());
        let waits = match record {
            Some(record) if record.vtep.is_none() => Waits::Address,
            Some(record) if record.unsettled => Waits::Route,
            _ => Waits::No,
        };
        let segment = Segment { name, devices: devices.into(), l3, table, guarded, waits };
        self.networks.insert(key, segment);
    }

    /// The guest of this key.
    pub fn guest(&self, key: &str) -> Option<&Guest> {
        self.guests.get(key).map(|known| &known.guest)
    }

    /// All guests' keys.
    pub fn guests(&self) -> impl Iterator<Item = &Key> {
        self.guests.keys()
    }

    /// The name of the network of this key.
    pub fn network(&self, key: &str) -> Option<&NetName> {
        self.networks.get(key).map(|segment| &segment.name)
    }

    /// The networks' names with their keys.
    pub fn networks(&self) -> impl Iterator<Item = (&Key, &NetName)> {
        self.networks.iter().map(|(key, segment)| (key, &segment.name))
    }

    /// Does a network ask for port security?
    pub fn is_guarded(&self) -> bool {
        self.networks.values().any(|segment| segment.guarded)
    }

    /// How many networks and guests there are.
    pub fn sizes(&self) -> (usize, usize) {
        (self.networks.len(), self.guests.len())
    }

    /// Does one of its NICs wait for a guest that still runs elsewhere?
    pub fn is_incoming(&self, key: &str) -> bool {
        self.guests.get(key).is_some_and(|known| known.nics.iter().any(|nic| nic.incoming))
    }

    /// The guest that libvirt calls so.
    pub fn domain(&self, name: &str) -> Option<&Key> {
        let is_it = |known: &Known| known.guest.kind == GuestKind::Libvirt && known.guest.name == name;
        self.guests.iter().find(|(_, known)| is_it(known)).map(|(key, _)| key)
    }

    /// The ports of guests that are here may be others than before.
    pub fn ports_changed(&mut self) {
        self.ports_changed = true;
    }

    /// The networks' devices whose settings matter, by index; `None` where nothing changed since the last call.
    pub fn take_devices(&mut self) -> Option<HashMap<u32, IfName>> {
        if !std::mem::take(&mut self.settings_changed) {
            return None;
        }
        let ours = self.links.iter().filter(|(_, device)| self.by_network_device.contains_key(&device.name));
        Some(ours.map(|(index, device)| (*index, device.name.clone())).collect())
    }

    /// A setting of a device was written.
    pub fn written(&self, device: &IfName) -> Vec<Look> {
        self.of_network_device(device, Why::Lost)
    }

    /// The ports of all guests that are here and whose MAC is known, by index; `None` where nothing changed since the last call.
    pub fn take_ports(&mut self) -> Option<HashMap<u32, Mac>> {
        if !std::mem::take(&mut self.ports_changed) {
            return None;
        }
        let indexes = self.links.keys().copied();
        Some(indexes.filter_map(|index| Some((index, self.port(index)?.mac))).collect())
    }

    /// The guest's port with this index; none while its guest still runs elsewhere.
    pub fn port(&self, index: u32) -> Option<Port> {
        let device = &self.links.get(&index)?.name;
        self.by_device.get(device)?.iter().find_map(|key| self.port_of(key, |nic| nic.device == *device))
    }

    /// The ports of the guests with this MAC on this bridge: one, unless somebody gave it twice.
    pub fn ports_of(&self, bridge: &IfName, mac: Mac) -> Vec<Port> {
        let keys = self.by_mac.get(&mac).into_iter().flatten();
        keys.filter_map(|key| self.port_of(key, |nic| nic.mac == Some(mac) && nic.bridge == *bridge)).collect()
    }

    fn port_of(&self, key: &Key, is_it: impl Fn(&Nic) -> bool) -> Option<Port> {
        let known = self.guests.get(key)?;
        let nic = known.nics.iter().find(|nic| !nic.incoming && is_it(nic))?;
        Some(Port {
            key: key.clone(),
            guest: known.guest.clone(),
            device: nic.device.clone(),
            bridge: nic.bridge.clone(),
            mac: nic.mac?,
            ips: nic.ips.clone(),
        })
    }

    /// Who else than this port's guest has an address on its bridge, behind another MAC: by whoever told most surely, and on which port.
    pub fn holder(&self, port: &Port, ip: IpAddr) -> Option<(Holder, Port)> {
        let source = |nic: &Nic| {
            let other = nic.bridge == port.bridge && nic.mac.is_some_and(|mac| mac != port.mac) && !nic.incoming;
            nic.ips.iter().find(|a| other && a.ip == ip).map(|a| a.source)
        };
        let found = self.by_ip.get(&ip)?.iter().flat_map(|key| {
            let of = self.guests.get(key).into_iter().flat_map(|known| known.nics.iter());
            of.filter_map(move |nic| Some((source(nic)?, key, nic)))
        });
        let (source, key, nic) = found.min_by_key(|(source, ..)| *source)?;
        let holder = if *key == port.key { Holder::Itself } else { Holder::Here(source) };
        Some((holder, self.port_of(key, |other| other == nic)?))
    }

    /// Is the device with this index the bridge of a network?
    pub fn is_segment(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|link| self.networks.contains_key(link.name.as_str()))
    }

    /// The networks' bridges, by index.
    pub fn segments(&self) -> Vec<u32> {
        self.networks.keys().filter_map(|key| self.index_of(&key.parse().ok()?)).collect()
    }

    /// Its device's index.
    pub fn index_of(&self, device: &IfName) -> Option<u32> {
        self.links.iter().find(|(_, link)| link.name == *device).map(|(index, _)| *index)
    }

    /// The index of this bridge's tunnel.
    pub fn tunnel_of(&self, bridge: &IfName) -> Option<u32> {
        let segment = self.networks.get(bridge.as_str())?;
        self.index_of(segment.devices.get(1)?)
    }

    /// The guests' ports on this device.
    pub fn ports_on(&self, device: &IfName) -> Vec<Port> {
        let keys = self.by_device.get(device).into_iter().flatten();
        keys.filter_map(|key| self.port_of(key, |nic| nic.device == *device)).collect()
    }

    /// The ports of this guest.
    pub fn ports_of_guest(&self, key: &Key) -> Vec<Port> {
        let nics = self.guests.get(key).into_iter().flat_map(|known| &known.nics).filter(|nic| !nic.incoming);
        nics.filter_map(|nic| self.port_of(key, |other| other == nic)).collect()
    }

    /// The ports on the bridge with this index whose guests have learned this address.
    pub fn learned_by(&self, bridge: u32, ip: IpAddr) -> Vec<Port> {
        let Some(bridge) = self.links.get(&bridge).map(|link| &link.name) else { return Vec::new() };
        let has = |nic: &Nic| nic.bridge == *bridge && nic.ips.iter().any(|a| a.ip == ip && a.source.is_learned());
        let keys = self.by_ip.get(&ip).into_iter().flatten();
        keys.filter_map(|key| self.port_of(key, has)).collect()
    }

    /// What an event means; remembers the devices as the event says that they are.
    pub fn react(&mut self, event: &Event) -> Vec<Look> {
        match event {
            Event::Link { index, name, master, up } => {
                let now = Device { name: name.clone(), master: *master, up: *up };
                let changed = self.links.get(index) != Some(&now);
                let mut looks = self.of_network_device(name, Why::Lost);
                if changed {
                    self.ports_changed = true;
                    self.settings_changed |= !looks.is_empty();
                    let before = self.links.insert(*index, now);
                    looks.extend(self.of_device(name, Some(*master)));
                    let came = before.as_ref().is_none_or(|before| before.master != *master);
                    looks.extend((came && self.is_nobodys(name, *master)).then_some(Look::Port(*index)));
                    // Renamed: what had its old name has lost its device.
                    if let Some(before) = before.filter(|before| before.name != *name) {
                        looks.extend(self.of_device(&before.name, None));
                        looks.extend(self.of_network_device(&before.name, Why::Gone));
                    }
                }
                looks
            }
            Event::Odd { index, master } if self.holds(*master) => vec![Look::Port(*index)],
            Event::Odd { .. } => Vec::new(),
            Event::LinkGone { index } => match self.links.remove(index) {
                // Its name may live on with another index.
                Some(gone) => {
                    let mut looks = self.of_device(&gone.name, None);
                    looks.extend(self.of_network_device(&gone.name, Why::Gone));
                    looks
                }
                None => Vec::new(),
            },
            Event::Port { index } => match self.links.get(index) {
                Some(device) => {
                    let mut looks = self.of_network_device(&device.name, Why::Lost);
                    let judge = |nic: &Nic| (nic.guarded && nic.device == device.name).then_some(Why::Lost);
                    looks.extend(self.judged(self.by_device.get(&device.name), judge));
                    looks.extend(self.is_nobodys(&device.name, device.master).then_some(Look::Port(*index)));
                    looks
                }
                None => Vec::new(),
            },
            Event::Address { index, gone: true } => match self.links.get(index) {
                Some(device) => self.of_network_device(&device.name, Why::Lost),
                None => Vec::new(),
            },
            // A guest's own port gets a link-local address of the kernel's.
            Event::Address { index, gone: false } => match self.links.get(index) {
                Some(device) if self.by_device.contains_key(&device.name) => Vec::new(),
                Some(device) if self.by_network_device.contains_key(&device.name) => Vec::new(),
                _ => self.without_tunnels(),
            },
            Event::Rule | Event::Setting { index: None } => {
                let routed = self.networks.values().any(|segment| segment.table.is_some());
                if routed { vec![Look::Host] } else { Vec::new() }
            }
            Event::RouteGone { table } => {
                let of_it = self.networks.values().filter(|segment| segment.table == Some(*table));
                of_it.map(|segment| Look::Network(segment.name.clone(), Why::Lost)).collect()
            }
            Event::FilterGone { index } | Event::Setting { index: Some(index) } => match self.links.get(index) {
                Some(device) => self.of_network_device(&device.name, Why::Lost),
                None => Vec::new(),
            },
            Event::Fdb { mac, port, master, gone, is_static, ext_learned } => {
                let (Some(port), Some(bridge)) = (self.links.get(port), self.links.get(master)) else {
                    return Vec::new();
                };
                let mut looks = Vec::new();
                if *ext_learned
                    && !gone
                    && let Some(segment) = self.networks.get_mut(bridge.name.as_str())
                    && segment.waits == Waits::Route
                {
                    // Once: where no route tells now, the next of its MACs tells no more.
                    segment.waits = Waits::No;
                    looks.push(Look::Network(segment.name.clone(), Why::Lost));
                }
                let judge = |nic: &Nic| {
                    if nic.mac != Some(*mac) || nic.bridge != bridge.name {
                        return None;
                    }
                    let own = nic.device == port.name;
                    match (nic.incoming, gone, own) {
                        (true, false, true) => Some(Why::Arrived),
                        (true, ..) => None,
                        // The bridge forgets what it knew of a port that leaves it.
                        (false, true, true) if port.master != Some(*master) => Some(Why::Moved),
                        (false, true, _) => Some(Why::Lost),
                        // NTF_EXT_LEARNED stays on an entry that came back from the VXLAN port.
                        (false, false, true) if *is_static => None,
                        // The guest has bonded two NICs, and this is the one that is active now: the kernel has moved the entry with it.
                        (false, false, false) if *is_static && nic.beside.contains(&port.name) => None,
                        (false, false, false) if *ext_learned || self.by_network_device.contains_key(&port.name) => {
                            Some(Why::Taken)
                        }
                        (false, false, _) => Some(Why::Lost),
                    }
                };
                looks.extend(self.judged(self.by_mac.get(mac), judge));
                looks.extend(self.of_l3(&bridge.name, *gone));
                looks
            }
            Event::Neigh { ip, mac, index, gone, permanent, ext_learned, .. } => {
                let Some(bridge) = self.links.get(index) else { return Vec::new() };
                let judge = |nic: &Nic| {
                    let own = nic.ips.iter().find(|a| a.ip == *ip)?;
                    if nic.incoming || nic.bridge != bridge.name {
                        return None;
                    }
                    match (gone, ext_learned) {
                        (true, _) => Some(Why::Lost),
                        // What was only learned is given up, for which nobody has to wait.
                        (false, true) if own.source.is_learned() && *mac != nic.mac => Some(Why::Lost),
                        (false, true) => Some(Why::Taken),
                        (false, false) if *permanent && *mac == nic.mac => None,
                        (false, false) => Some(Why::Lost),
                    }
                };
                let mut looks = self.judged(self.by_ip.get(ip), judge);
                looks.extend(self.of_l3(&bridge.name, *gone));
                looks
            }
            Event::Lost => vec![Look::Everything],
        }
    }

    /// What zebra keeps on an L3VNI's bridge, its other VTEPs, goes with them, or with the L3VNI in FRR's configuration.
    fn of_l3(&self, bridge: &IfName, gone: bool) -> Option<Look> {
        let mut of =
            self.by_network_device.get(bridge).filter(|_| gone)?.iter().filter_map(|key| self.networks.get(key));
        of.any(|segment| segment.l3.as_ref() == Some(bridge)).then_some(Look::Stanzas)
    }

    /// The networks that wait for this host's tunnel end.
    pub fn without_tunnels(&self) -> Vec<Look> {
        let waiting = self.networks.values().filter(|segment| segment.waits == Waits::Address);
        waiting.map(|segment| Look::Network(segment.name.clone(), Why::Lost)).collect()
    }

    /// Is this the bridge of a network whose guests' ports are held?
    fn holds(&self, bridge: Option<u32>) -> bool {
        let name = bridge.and_then(|index| self.links.get(&index)).map(|device| &device.name);
        let keys = name.and_then(|name| self.by_network_device.get(name)).into_iter().flatten();
        let mut segments = keys.filter_map(|key| self.networks.get(key));
        segments.any(|segment| segment.guarded && segment.devices.first() == name)
    }

    /// Is this a port there that is no guest's and no network's?
    fn is_nobodys(&self, name: &IfName, bridge: Option<u32>) -> bool {
        self.holds(bridge) && !self.by_device.contains_key(name) && !self.by_network_device.contains_key(name)
    }

    /// The same of the device with this index, as far as it is known.
    pub fn is_known(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|device| self.by_device.contains_key(&device.name))
    }

    fn judged(&self, keys: Option<&Vec<Key>>, judge: impl Fn(&Nic) -> Option<Why>) -> Vec<Look> {
        let keys = keys.into_iter().flatten();
        keys.filter_map(|key| {
            let why = self.guests.get(key)?.nics.iter().find_map(&judge)?;
            Some(Look::Guest(key.clone(), why))
        })
        .collect()
    }

    /// The guests of a device, which now has this master; `None` if it is gone.
    fn of_device(&self, name: &IfName, master: Option<Option<u32>>) -> Vec<Look> {
        let bridge = |master: Option<u32>| Some(&self.links.get(&master?)?.name);
        let moved = |nic: &Nic| nic.device == *name && master.is_some_and(|m| bridge(m) != Some(&nic.bridge));
        let keys = self.by_device.get(name).into_iter().flatten();
        keys.map(|key| {
            let moved = self.guests.get(key).is_some_and(|known| known.nics.iter().any(moved));
            Look::Guest(key.clone(), if moved { Why::Moved } else { Why::Lost })
        })
        .collect()
    }

    fn of_network_device(&self, name: &IfName, why: Why) -> Vec<Look> {
        let keys = self.by_network_device.get(name).into_iter().flatten();
        keys.filter_map(|key| Some(Look::Network(self.networks.get(key)?.name.clone(), why))).collect()
    }
}

fn put_key<T: Hash + Eq + Clone>(map: &mut HashMap<T, Vec<Key>>, word: &T, key: &Key) {
    match map.get_mut(word) {
        Some(keys) if keys.contains(key) => {}
        Some(keys) => keys.push(key.clone()),
        None => drop(map.insert(word.clone(), vec![key.clone()])),
    }
}

fn drop_key<T: Hash + Eq>(map: &mut HashMap<T, Vec<Key>>, word: &T, key: &str) {
    if let Some(keys) = map.get_mut(word) {
        keys.retain(|k| &**k != key);
        if keys.is_empty() {
            map.remove(word);
        }
    }
}

#[cfg(test)]
#[path = "index_test.rs"]
mod test;
