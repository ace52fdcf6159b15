//! What we own and want, in /run/evpn-hook: never the only copy of what is.
//!
//! ```text
//! networks/<bridge>.json   NetworkRecord; a guest's NIC finds its network by the bridge it is on
//! names/<key>              symlink to ../networks/<bridge>.json; `--network NET` finds it by name
//! vrfs/<vrf>.json          VrfRecord; lives as long as a network uses the VRF
//! guests/<kind>-<key>.json GuestRecord with its endpoints
//! agent.lock               flock: held by the one agent that runs
//! host.json                host-wide settings as they were before we changed them
//! hints/                   what spares a hook a look at everything; `sync` makes them anew
//!     underlay.json        Underlay: by which devices tunnelled packets leave, as it was when all devices were looked at
//!     config.json          what config.toml said when it could be read last: it holds while the file is broken, or being written
//!     <bridge>.used        guests may be on this bridge; it outlives the network, whose guests wait for it to come back
//! *.lock                   flock; one per guest, per VRF and per network without one, so that no two guests ever wait for each other
//! ```
//! One small file each: what a hook reads does not grow with the host. A record is written before the first step that it tells of (claimed),
//! by write + rename, so that a crash leaves the old or the new and never a half.

use crate::config::{Before, Network, Origin, PortSecurity, Vrf};
use crate::fault;
use crate::model::{Address, Guest, IfName, Mac, NetName, Source, short_line};
use crate::speaker::Added;
use crate::tape::{self, Untold};
use rustix::fs::{Access, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::time::SystemTime;

/// The largest record that is read back, in bytes: a network with 100,000 DHCP hosts stays below it.
const MAX_RECORD: u64 = 16 << 20;

/// Locked while an agent runs; never removed.
const AGENT: &str = "agent.lock";

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The file system said no.
    #[error("cannot {what} {}: {source}: {}", path.display(), way_out(source))]
    Io {
        /// read, write, lock …
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The kernel's words.
        source: io::Error,
    },
    /// The record is there and is not ours to understand.
    #[error("{} is corrupt ({why}): 'evpn-hook sync' makes it anew", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// The parser's words.
        why: String,
    },
    /// What a tape says, or has not.
    #[error(transparent)]
    Tape(#[from] Untold),
}

fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run as root",
        _ if matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE)) => {
            "raise the limit of open files"
        }
        _ => "check that the directory is writable and not full",
    }
}

/// A network that we set up, or are about to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// What is wanted, the MTU resolved.
    pub network: Network,
    /// This host's VTEP when it was set up; none while it has no address, and the network no tunnels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep: Option<IpAddr>,
    /// The UDP port of its tunnels; none in the records of versions before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Nobody gave its MTU, and it was resolved before it was known by which devices the tunnels leave: it is resolved again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsettled: bool,
    /// Of its bridge and VXLAN device those that we made, and take down again.
    #[serde(default)]
    pub made: BTreeSet<IfName>,
    /// What was changed on its bridge: claimed before it is done, and put back when the network goes down. None in the records of versions before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
}

impl NetworkRecord {
    /// What was changed on its bridge; of a record of an older version as far as it can be told. `vrf` is its VRF's record.
    pub fn before(&self, vrf: Option<&VrfRecord>) -> Before {
        let network = &self.network;
        let made = self.made.contains(&network.bridge);
        self.before.clone().unwrap_or_else(|| Before {
            entered: made || network.origin == Origin::Libvirt || vrf.is_some_and(|r| r.made.contains(&r.vrf.name)),
            addresses: network.gateway.iter().filter(|_| made).copied().collect(),
            ..Before::default()
        })
    }

    /// The same record after what it claims was done: what was to go has gone.
    pub fn settled(&self) -> NetworkRecord {
        let mut settled = self.clone();
        if let Some(before) = &mut settled.before {
            before.addresses.retain(|address| self.network.gateway.contains(address));
        }
        settled
    }
}

/// A VRF that one of our networks uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrfRecord {
    /// What is wanted.
    pub vrf: Vrf,
    /// Of the VRF and its L3VNI's devices those that we made, and take down again.
    #[serde(default)]
    pub made: BTreeSet<IfName>,
    /// What we put into the speaker; `None` until it took it (it may have been down).
    pub speaker: Option<Added>,
    /// Where that speaker is: config.toml may say something else, or nothing, when it is to be taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_dir: Option<PathBuf>,
    /// Of a VRF that others made: its table had no unreachable default before we put them there, and has none again when its last network goes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreachable: bool,
    /// The MTU in bytes of each of our networks in it, by its bridge: its L3VNI has that of the largest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mtus: BTreeMap<IfName, u32>,
}

impl VrfRecord {
    /// What goes out of the speaker with the VRF: what we put in, and where the device is ours also what came there by another way, by hand or by
    /// frr.conf after a `write memory`. Whether an instance is only ours the speaker's room tells by its lines.
    pub fn claims(&self) -> Option<Added> {
        let whole = self.made.contains(&self.vrf.name);
        self.speaker.clone().map(|added| Added { vni: added.vni || whole, bgp: added.bgp || whole, ..added })
    }

    /// The MTU of its L3VNI, with this network's or, where it goes, without; none where no network is known.
    pub fn l3_mtu(&self, bridge: &IfName, own: Option<u32>) -> Option<u32> {
        let others = self.mtus.iter().filter(|(name, _)| *name != bridge).map(|(_, mtu)| *mtu);
        others.chain(own).max()
    }
}

/// By which devices tunnelled packets leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underlay {
    /// The VTEP that they leave from.
    pub vtep: IpAddr,
    /// The devices: the one that has that address; where that is a loopback, those of the routes to other VTEPs.
    pub devices: BTreeSet<IfName>,
    /// They are known for good; otherwise no route told yet, and they are a guess.
    #[serde(default)]
    pub settled: bool,
}

impl NetworkRecord {
    /// What is wanted, with what is still open left open.
    pub fn wanted(&self) -> Network {
        let mut network = self.network.clone();
        if self.unsettled {
            network.mtu = None;
        }
        network
    }

    /// It waits for an address of this host, or for routes to others.
    pub fn waits(&self) -> bool {
        self.vtep.is_none() || self.unsettled
    }
}

/// How far an endpoint has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Wired, but its guest still runs elsewhere.
    Incoming,
    /// Claimed: steps are being taken, or were cut off.
    Pending,
    /// The kernel holds what the speaker needs.
    Registered,
}

/// One NIC of a guest on one of our networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's name.
    pub network: NetName,
    /// Its bridge.
    pub bridge: IfName,
    /// The guest's port.
    pub device: IfName,
    /// The guest's MAC; none before a container's is known.
    pub mac: Option<Mac>,
    /// The guest's addresses: the declared ones, then what was learned, as it came.
    pub ips: Vec<Address>,
    /// We enslaved the device (nobody else puts it back).
    pub enslaved: bool,
    /// How far it has come.
    pub stage: Stage,
    /// What of its frames its port lets in, as its network said when it was registered last.
    #[serde(default, skip_serializing_if = "is_off")]
    pub port_security: PortSecurity,
    /// The device's index, by which the kernel's rules know it; only where they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// What another guest of the fabric had when this one took it. FRR shows the fabric's hosts one of the two, so that nobody else knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<Taken>,
    /// Addresses that it took from others so often that it may not for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slowed: Vec<Slowed>,
    /// The guest's other ports on the same bridge, none where port security holds them: where it bonds them its MAC may come by any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<IfName>,
}

fn is_off(security: &PortSecurity) -> bool {
    *security == PortSecurity::Off
}

/// What an endpoint took from a guest behind another VTEP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The address; none where it is the MAC itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The other's MAC.
    pub mac: Mac,
    /// The other's VTEP, where it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep: Option<IpAddr>,
    /// Seconds since boot (CLOCK_BOOTTIME) when it was taken last.
    pub since: u64,
}

/// An address that a guest may not take from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slowed {
    /// The address.
    pub ip: IpAddr,
    /// Until so many seconds since boot (CLOCK_BOOTTIME).
    pub until: u64,
}

impl Endpoint {
    /// Its addresses, whoever told them.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.ips.iter().map(|a| a.ip).collect()
    }

    /// Those that whoever set it up declared.
    pub fn declared(&self) -> impl Iterator<Item = &Address> {
        self.ips.iter().filter(|a| !a.source.is_learned())
    }

    /// Takes over what an earlier look at the same NIC knows and this one does not repeat: what was learned, and where nothing is declared, what
    /// only the start or a hot-plug told. The network's `<dhcp><host>` is always at hand, so its silence counts.
    pub fn remember(&mut self, old: &Endpoint) {
        if (self.mac, &self.network) != (old.mac, &old.network) {
            return;
        }
        self.slowed.clone_from(&old.slowed);
        let routes = |ip| old.ips.iter().any(|a| a.ip == ip && a.router);
        self.ips.iter_mut().for_each(|a| a.router |= routes(a.ip));
        let silent = self.ips.is_empty();
        let kept = |a: &&Address| a.source.is_learned() || silent && a.source != Source::DhcpHost;
        let kept: Vec<Address> = old.ips.iter().filter(kept).copied().collect();
        for address in kept {
            if !self.ips.iter().any(|a| a.ip == address.ip) {
                self.ips.push(address);
            }
        }
    }
}

/// A guest with its endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRecord {
    /// Who.
    pub guest: Guest,
    /// Seconds since boot (CLOCK_BOOTTIME) when `qemu migrate` announced that it comes from another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incoming_since: Option<u64>,
    /// Its NICs.
    pub endpoints: Vec<Endpoint>,
    /// The hook that wrote this last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
    /// What its NICs were, as long as the kernel may still hold something of it: being withdrawn, cut off in the midst of it, or refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<Endpoint>,
}

/// A hook's run, as far as it was when it wrote its guest's record for the last time. Nobody else sees a hook: it is how the agent knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Which: `qemu start`.
    pub by: String,
    /// When it began, in µs since boot (CLOCK_BOOTTIME).
    pub began: u64,
    /// How long it took so far, in µs.
    pub took: u64,
}

impl GuestRecord {
    /// Notes of each NIC which other ports the guest has on its bridge.
    pub fn know_ports(&mut self) {
        let ports: Vec<(IfName, IfName)> =
            self.endpoints.iter().map(|e| (e.device.clone(), e.bridge.clone())).collect();
        for endpoint in &mut self.endpoints {
            let open = endpoint.port_security == PortSecurity::Off;
            let its =
                ports.iter().filter(|(dev, bridge)| open && *dev != endpoint.device && *bridge == endpoint.bridge);
            endpoint.beside = its.map(|(dev, _)| dev.clone()).collect();
        }
    }

    /// One without NICs.
    pub fn new(guest: Guest) -> GuestRecord {
        GuestRecord { guest, incoming_since: None, endpoints: Vec::new(), hook: None, leaving: Vec::new() }
    }

    /// All that the kernel may hold of it.
    pub fn held(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().chain(&self.leaving)
    }
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct Register {
    dir: PathBuf,
}

/// Held while a guest's or a VRF's record and kernel objects are changed; released on drop.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// A name as a file name: letters, digits, `-` and `_` stay, each other byte becomes `%xx`. Bounded because names are.
pub fn file_key(name: &str) -> String {
    use std::fmt::Write;
    let mut key = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            key.push(char::from(byte));
        } else {
            let _ = write!(key, "%{byte:02x}");
        }
    }
    // NAME_MAX is 255; what is longer keeps its head and a digest of the whole (FNV-1a: no adversary gains from a clash
    // of two of their own guests, and the record carries the full id, which is compared on reading).
    if key.len() > 200 {
        let hash =
            name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        key.truncate(180);
        let _ = write!(key, "~{hash:016x}");
    }
    key
}

/// Under which name the register keeps a guest: `guests/<this>.json`.
pub fn guest_key(guest: &Guest) -> String {
    format!("{}-{}", guest.kind.word(), file_key(&guest.id))
}

fn vrf_lock(name: &IfName) -> String {
    format!("vrfs/{name}.lock")
}

fn network_lock(network: &Network) -> String {
    match &network.vrf {
        Some(vrf) => vrf_lock(&vrf.name),
        None => format!("networks/{}.lock", network.bridge),
    }
}

impl Register {
    /// The state in this directory; nothing is touched yet.
    pub fn at(dir: &Path) -> Register {
        Register { dir: dir.to_owned() }
    }

    /// The directory of the guests' records.
    pub fn guests_dir(&self) -> PathBuf {
        self.dir.join("guests")
    }
    /// The directory of the networks' records.
    pub fn networks_dir(&self) -> PathBuf {
        self.dir.join("networks")
    }

    // ----- the agent -----

    /// Makes this process the host's agent until the lock is dropped; `None` where another is.
    pub fn lock_agent(&self) -> Result<Option<Lock>, RegisterError> {
        let path = self.dir.join(AGENT);
        let io = |source: Errno| RegisterError::Io { what: "lock", path: path.clone(), source: source.into() };
        self.make_room(&path)?;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(io)?;
        // A hook that asks holds it for some microseconds.
        for _ in 0..10 {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Lock { _file: File::from(file) })),
                Err(Errno::AGAIN) => std::thread::sleep(std::time::Duration::from_millis(10)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(io(error)),
            }
        }
        Ok(None)
    }
    /// Does an agent run? Never waits; where that cannot be told, none does.
    pub fn agent_runs(&self) -> bool {
        self.is_locked(AGENT)
    }
    /// Is somebody at work on this network ([`Register::lock_network`])? Never waits.
    pub fn network_is_locked(&self, network: &Network) -> bool {
        self.is_locked(&network_lock(network))
    }
    /// Is somebody at work on this guest ([`Register::lock_guest`])? Never waits.
    pub fn guest_is_locked(&self, guest: &Guest) -> bool {
        self.is_locked(&format!("guests/{}.lock", guest_key(guest)))
    }
    /// When a guest's record was written last; none where it has none.
    pub fn guest_written(&self, guest: &Guest) -> Option<SystemTime> {
        self.written(&format!("guests/{}.json", guest_key(guest)))
    }
    /// When a network's record was written last; none where it has none.
    pub fn network_written(&self, name: &NetName) -> Option<SystemTime> {
        self.written(&format!("names/{}", file_key(name.as_str())))
    }
    fn written(&self, name: &str) -> Option<SystemTime> {
        fs::metadata(self.dir.join(name)).and_then(|m| m.modified()).ok()
    }
    fn is_locked(&self, name: &str) -> bool {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let Ok(file) = rustix::fs::open(self.dir.join(name), flags, Mode::empty()) else { return false };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::AGAIN)
    }

    // ----- guests -----

    /// Serialises what happens to one guest.
    pub fn lock_guest(&self, guest: &Guest) -> Result<Lock, RegisterError> {
        self.lock(&format!("guests/{}.lock", guest_key(guest)))
    }
    /// A guest's record.
    pub fn guest(&self, guest: &Guest) -> Result<Option<GuestRecord>, RegisterError> {
        let record: Option<GuestRecord> = self.read(&format!("guests/{}.json", guest_key(guest)))?;
        Ok(record.filter(|r| r.guest.id == guest.id))
    }
    /// The record of this key ([`guest_key`]).
    pub fn guest_of_key(&self, key: &str) -> Result<Option<GuestRecord>, RegisterError> {
        self.read(&format!("guests/{key}.json"))
    }
    /// Every guest's record; corrupt ones as errors among them.
    pub fn guests(&self) -> Vec<Result<GuestRecord, RegisterError>> {
        self.read_all("guests")
    }
    /// Claims or settles.
    pub fn put_guest(&self, record: &GuestRecord) -> Result<(), RegisterError> {
        self.write(&format!("guests/{}.json", guest_key(&record.guest)), record)
    }
    /// Forgets a guest; call with its lock held.
    pub fn remove_guest(&self, guest: &Guest) -> Result<(), RegisterError> {
        let key = guest_key(guest);
        self.remove(&format!("guests/{key}.json"))?;
        self.remove(&format!("guests/{key}.lock"))
    }

    // ----- networks -----

    /// The network whose segment this bridge is.
    pub fn network_of_bridge(&self, bridge: &IfName) -> Result<Option<NetworkRecord>, RegisterError> {
        self.read(&format!("networks/{bridge}.json"))
    }
    /// The network of this name.
    pub fn network(&self, name: &NetName) -> Result<Option<NetworkRecord>, RegisterError> {
        // Not through the link: an error must name the file that has it.
        let link = self.dir.join("names").join(file_key(name.as_str()));
        let target =
            tape::asked(format_args!("register: names/{}", file_key(name.as_str())), || match fs::read_link(&link) {
                Ok(target) => Ok(Some(target)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(RegisterError::Io { what: "read", path: link, source }),
            })?;
        let Some(file) = target.as_ref().and_then(|t| t.file_name()).and_then(|f| f.to_str()) else { return Ok(None) };
        let record: Option<NetworkRecord> = self.read(&format!("networks/{file}"))?;
        Ok(record.filter(|r| r.network.name == *name))
    }
    /// All networks.
    pub fn networks(&self) -> Vec<Result<NetworkRecord, RegisterError>> {
        self.read_all("networks")
    }
    /// Is there one such network? Reads no more of them than it must.
    pub fn any_network(&self, is_it: impl Fn(&NetworkRecord) -> bool) -> bool {
        let names = self.records_in("networks").unwrap_or_default();
        names.iter().any(|name| matches!(self.read(name), Ok(Some(record)) if is_it(&record)))
    }
    /// Claims or settles.
    pub fn put_network(&self, record: &NetworkRecord) -> Result<(), RegisterError> {
        let file = format!("networks/{}.json", record.network.bridge);
        self.write(&file, record)?;
        if tape::plays() {
            return Ok(());
        }
        let (link, target) = self.name_of(&record.network);
        let io = |what, source| RegisterError::Io { what, path: link.clone(), source };
        fs::create_dir_all(self.dir.join("names")).map_err(|e| io("make", e))?;
        if fs::read_link(&link).is_ok_and(|t| t == target) {
            return Ok(());
        }
        let temporary = link.with_extension(format!("tmp{}", std::process::id()));
        let _ = fs::remove_file(&temporary);
        std::os::unix::fs::symlink(&target, &temporary).map_err(|e| io("link", e))?;
        fault::point(format_args!("before writing names/{}", record.network.name));
        let written = fs::rename(&temporary, &link);
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(|e| io("link", e))
    }
    /// The link by which a network's name finds its record, and where it leads.
    fn name_of(&self, network: &Network) -> (PathBuf, PathBuf) {
        let link = self.dir.join("names").join(file_key(network.name.as_str()));
        (link, Path::new("..").join(format!("networks/{}.json", network.bridge)))
    }
    /// Forgets a network; call with its lock held.
    pub fn remove_network(&self, network: &Network) -> Result<(), RegisterError> {
        self.remove(&format!("names/{}", file_key(network.name.as_str())))?;
        self.remove(&format!("networks/{}.json", network.bridge))?;
        self.mark_gone(&network.bridge)?;
        self.remove(&format!("networks/{}.lock", network.bridge))
    }
    /// Serialises what happens to one network: networks of one VRF together, for they must agree on who makes it. No guest ever takes it.
    pub fn lock_network(&self, network: &Network) -> Result<Lock, RegisterError> {
        self.lock(&network_lock(network))
    }

    /// Guests are on this bridge, or will be.
    pub fn mark_used(&self, bridge: &IfName) -> Result<(), RegisterError> {
        self.mark(self.used(bridge))
    }
    /// May a guest's record name this bridge? Where false, none does, and nobody has to read them all.
    pub fn is_used(&self, bridge: &IfName) -> bool {
        self.used(bridge).exists()
    }
    /// No guest's record names this bridge, whose network is down.
    pub fn mark_unused(&self, bridge: &IfName) -> Result<(), RegisterError> {
        self.remove(&format!("hints/{bridge}.used"))
    }
    fn used(&self, bridge: &IfName) -> PathBuf {
        self.dir.join(format!("hints/{bridge}.used"))
    }
    /// libvirt is about to make this bridge, for a network of which there is no record yet. packaging/85-evpn-hook.rules asks for it as soon as the
    /// bridge is there.
    pub fn mark_coming(&self, bridge: &IfName) -> Result<(), RegisterError> {
        self.mark(self.dir.join(format!("hints/{bridge}.coming")))
    }
    /// It came and went, or did not come.
    pub fn mark_gone(&self, bridge: &IfName) -> Result<(), RegisterError> {
        self.remove(&format!("hints/{bridge}.coming"))
    }

    // ----- VRFs and the host -----

    /// Serialises networks that share a VRF; no guest ever takes it.
    pub fn lock_vrf(&self, name: &IfName) -> Result<Lock, RegisterError> {
        self.lock(&vrf_lock(name))
    }
    /// A VRF's record.
    pub fn vrf(&self, name: &IfName) -> Result<Option<VrfRecord>, RegisterError> {
        self.read(&format!("vrfs/{name}.json"))
    }
    /// All VRFs.
    pub fn vrfs(&self) -> Vec<Result<VrfRecord, RegisterError>> {
        self.read_all("vrfs")
    }
    /// Writes it.
    pub fn put_vrf(&self, record: &VrfRecord) -> Result<(), RegisterError> {
        self.write(&format!("vrfs/{}.json", record.vrf.name), record)
    }
    /// Forgets it.
    pub fn remove_vrf(&self, name: &IfName) -> Result<(), RegisterError> {
        self.remove(&format!("vrfs/{name}.json"))?;
        self.remove(&format!("vrfs/{name}.lock"))
    }
    /// Host-wide settings as they were: what undoes our changes, in the order in which to apply it.
    pub fn host(&self) -> Result<BTreeMap<String, String>, RegisterError> {
        Ok(self.read("host.json")?.unwrap_or_default())
    }
    /// The underlay as it was seen last; a hint that cannot be read is none.
    pub fn underlay(&self) -> Option<Underlay> {
        self.read("hints/underlay.json").ok().flatten()
    }
    /// Remembers it.
    pub fn put_underlay(&self, underlay: &Underlay) -> Result<(), RegisterError> {
        self.write("hints/underlay.json", underlay)
    }
    /// Serialises those who arrange the host's routing rules.
    pub fn lock_host(&self) -> Result<Lock, RegisterError> {
        self.lock("host.lock")
    }
    /// What config.toml said when it could be read last.
    pub fn config(&self) -> Option<String> {
        self.read("hints/config.json").ok().flatten()
    }
    /// Keeps what it says now, or that there is no such file.
    pub fn put_config(&self, text: Option<&str>) -> Result<(), RegisterError> {
        match (self.config().as_deref(), text) {
            (known, text) if known == text => Ok(()),
            (_, Some(text)) => self.write("hints/config.json", &text),
            (_, None) => self.remove("hints/config.json"),
        }
    }
    /// Remembers one host-wide setting as it was; the first memory wins. Is this the first?
    pub fn remember_host(&self, key: &str, was: &str) -> Result<bool, RegisterError> {
        let _lock = self.lock_host()?;
        let mut host = self.host()?;
        if host.contains_key(key) {
            return Ok(false);
        }
        host.insert(key.to_owned(), was.to_owned());
        self.write("host.json", &host).map(|()| true)
    }
    /// Forgets host-wide settings that are as they were again.
    pub fn forget_host(&self, keys: &[String]) -> Result<(), RegisterError> {
        let _lock = self.lock_host()?;
        let mut host = self.host()?;
        host.retain(|key, _| !keys.contains(key));
        if !host.is_empty() {
            return self.write("host.json", &host);
        }
        self.remove("host.json")?;
        self.remove("host.lock")
    }

    /// Fails where nothing can be written, for who may refuse: a record that stays would bring back what is about to be taken away.
    pub fn writable(&self) -> Result<(), RegisterError> {
        rustix::fs::access(&self.dir, Access::WRITE_OK).map_err(|source| RegisterError::Io {
            what: "write to",
            path: self.dir.clone(),
            source: source.into(),
        })
    }

    /// Removes a record that cannot be read, as [`RegisterError::Corrupt`] names it.
    pub fn discard(&self, path: &Path) -> Result<(), RegisterError> {
        match path.strip_prefix(&self.dir).ok().and_then(Path::to_str) {
            Some(name) => {
                self.remove(name)?;
                // A lock that guards no record would stay for ever.
                self.remove_lock(&name.replace(".json", ".lock"), name).map(drop)
            }
            None => Ok(()),
        }
    }
    /// Clears up after runs that were killed: half-written files, locks that guard no record, names that lead nowhere or, for these networks,
    /// are missing. True where there was something.
    pub fn sweep(&self, networks: &[NetworkRecord]) -> Result<bool, RegisterError> {
        let mut swept = false;
        for room in ["", "guests/", "vrfs/", "networks/", "names/", "hints/"] {
            let names = self.names_in(room)?;
            let records: BTreeSet<&str> = names.iter().filter_map(|name| name.strip_suffix(".json")).collect();
            for name in &names {
                let path = format!("{room}{name}");
                let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
                let writer = kind.strip_prefix("tmp").and_then(|pid| pid.parse::<u32>().ok());
                let dead = writer.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists());
                let guards = matches!(room, "guests/" | "vrfs/" | "networks/") || stem == "host";
                let unused = kind == "lock" && guards && !records.contains(stem);
                let astray = room == "names/" && writer.is_none() && !self.dir.join(&path).exists();
                if dead || astray {
                    self.remove(&path)?;
                    swept = true;
                } else if unused {
                    swept |= self.remove_lock(&path, &format!("{room}{stem}.json"))?;
                }
            }
        }
        for record in networks {
            let (link, target) = self.name_of(&record.network);
            let is_known = fs::read_link(link).is_ok_and(|t| t == target);
            // It may have been taken down since.
            if !is_known && self.network_of_bridge(&record.network.bridge)?.as_ref() == Some(record) {
                self.put_network(record)?;
                swept = true;
            }
        }
        Ok(swept)
    }
    /// How long ago a guest's record was written.
    pub fn guest_age(&self, guest: &Guest) -> Option<Duration> {
        self.age(&format!("guests/{}.json", guest_key(guest)))
    }
    /// How long ago a network's record was written.
    pub fn network_age(&self, network: &Network) -> Option<Duration> {
        self.age(&format!("networks/{}.json", network.bridge))
    }

    // ----- files -----

    fn age(&self, name: &str) -> Option<Duration> {
        let written = fs::metadata(self.dir.join(name)).ok()?.modified().ok()?;
        // Of the future where the clock was set back since.
        Some(written.elapsed().unwrap_or_else(|ahead| ahead.duration()))
    }

    fn read<T: Serialize + DeserializeOwned>(&self, name: &str) -> Result<Option<T>, RegisterError> {
        tape::asked(format_args!("register: {name}"), || self.read_file(name))
    }

    fn read_file<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, RegisterError> {
        let path = self.dir.join(name);
        let io = |source| RegisterError::Io { what: "read", path: path.clone(), source };
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(io)?,
        };
        let mut text = Vec::with_capacity(1024);
        file.take(MAX_RECORD).read_to_end(&mut text).map_err(io)?;
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| RegisterError::Corrupt { path: path.clone(), why: short_line(&e.to_string()) })
    }

    fn read_all<T: Serialize + DeserializeOwned>(&self, room: &str) -> Vec<Result<T, RegisterError>> {
        match self.records_in(room) {
            Ok(mut names) => {
                names.sort();
                names.iter().filter_map(|name| self.read(name).transpose()).collect()
            }
            Err(error) => vec![Err(error)],
        }
    }

    /// The records of this room, as `read` names them.
    fn records_in(&self, room: &str) -> Result<Vec<String>, RegisterError> {
        let names = self.names_in(room)?.into_iter().filter(|name| name.ends_with(".json"));
        Ok(names.map(|name| format!("{room}/{name}")).collect())
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), RegisterError> {
        if tape::plays() {
            return Ok(());
        }
        let path = self.dir.join(name);
        let io = |what: &'static str| {
            let path = path.clone();
            move |source| RegisterError::Io { what, path, source }
        };
        let text = serde_json::to_vec(value).map_err(|e| io("write")(e.into()))?;
        // Unique per process; a leftover of a crash is overwritten by the next process of that number.
        let temporary = path.with_extension(format!("tmp{}", std::process::id()));
        let open = || File::create(&temporary);
        let mut file = match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make_room(&path)?;
                open()
            }
            other => other,
        }
        .map_err(io("write"))?;
        fault::point(format_args!("before writing {name}"));
        // No fsync: /run is a tmpfs and does not outlive the kernel objects that it describes.
        let written = file.write_all(&text).and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        fault::point(format_args!("after writing {name}"));
        written.map_err(io("write"))
    }

    /// An empty file says it.
    fn mark(&self, path: PathBuf) -> Result<(), RegisterError> {
        if tape::plays() {
            return Ok(());
        }
        let create = || File::create_new(&path).map(drop);
        let done = match create() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.make_room(&path).map(|()| create())?,
            done => done,
        };
        match done {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(RegisterError::Io { what: "write", path, source: e })
            }
            _ => Ok(()),
        }
    }

    fn remove(&self, name: &str) -> Result<(), RegisterError> {
        if tape::plays() {
            return Ok(());
        }
        let path = self.dir.join(name);
        fault::point(format_args!("before removing {name}"));
        match fs::remove_file(&path) {
            // A read-only file system says so before it looks whether there is anything.
            Err(source) if source.kind() != io::ErrorKind::NotFound && fs::symlink_metadata(&path).is_ok() => {
                Err(RegisterError::Io { what: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    fn names_in(&self, room: &str) -> Result<Vec<String>, RegisterError> {
        tape::asked(format_args!("register: names in {room}"), || self.list(room))
    }

    fn list(&self, room: &str) -> Result<Vec<String>, RegisterError> {
        let path = self.dir.join(room);
        match fs::read_dir(&path) {
            Ok(entries) => Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(RegisterError::Io { what: "read", path, source }),
        }
    }

    /// Removes a lock that nobody holds and whose record is missing. Done while it is held: who opened it meanwhile sees that it is gone.
    fn remove_lock(&self, lock: &str, record: &str) -> Result<bool, RegisterError> {
        let Ok(file) = File::open(self.dir.join(lock)) else { return Ok(false) };
        let free = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if !free || self.dir.join(record).exists() {
            return Ok(false);
        }
        self.remove(lock).map(|()| true)
    }

    /// Makes the directory that this file goes to: readable by root alone, for it tells who runs where.
    fn make_room(&self, file: &Path) -> Result<(), RegisterError> {
        use std::os::unix::fs::DirBuilderExt;
        let dir = file.parent().unwrap_or(&self.dir);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| RegisterError::Io {
            what: "make",
            path: dir.to_owned(),
            source,
        })
    }

    fn lock(&self, name: &str) -> Result<Lock, RegisterError> {
        let path = self.dir.join(name);
        let io = |source: io::Error| RegisterError::Io { what: "lock", path: path.clone(), source };
        if tape::plays() {
            return File::open("/dev/null").map(|file| Lock { _file: file }).map_err(io);
        }
        loop {
            let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = match rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR) {
                Err(Errno::NOENT) => {
                    self.make_room(&path)?;
                    continue;
                }
                // Nothing can be claimed there, but what is claimed can be mended and withdrawn: the kernel is not read-only.
                Err(error @ Errno::ROFS) => File::open(&path).map_err(|_| io(error.into()))?,
                other => File::from(other.map_err(|e| io(e.into()))?),
            };
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => continue,
                other => other.map_err(|e| io(e.into()))?,
            }
            // Whoever held it may have removed the file with the guest: then this lock locks nothing.
            let held = file.metadata().map_err(io)?;
            if fs::metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino())) {
                return Ok(Lock { _file: file });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_its_directory() {
        for name in ["../../etc/passwd", "a/b", ".", "..", "\u{e9}", &"x/".repeat(200)] {
            let key = file_key(name);
            assert!(!key.contains(['/', '.']) && key.len() < 220, "{key}");
        }
        assert_eq!(file_key("vm-1_a"), "vm-1_a");
    }

    #[test]
    fn a_record_without_end_is_corrupt_in_a_line() {
        let dir = std::env::temp_dir().join(format!("evpn-hook-register-{}", std::process::id()));
        fs::create_dir_all(dir.join("hints")).unwrap();
        let register = Register::at(&dir);
        let file = File::create(dir.join("host.json")).unwrap();
        (&file).write_all(b"{\"a\":\"").unwrap();
        file.set_len(1 << 40).unwrap(); // a terabyte of zeros, of which none is on the disk
        let error = register.host().unwrap_err().to_string();
        assert!(error.contains("host.json is corrupt (") && error.len() < 1000, "{error}");
        fs::write(dir.join("host.json"), format!("{{\"a\":{{\"{}\":1}}}}", "x".repeat(100_000))).unwrap();
        let error = register.host().unwrap_err().to_string();
        assert!(error.contains("is corrupt (") && error.len() < 1000, "{error}");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn long_names_stay_apart() {
        let (a, b) = ("/".repeat(200) + "a", "/".repeat(200) + "b");
        assert_ne!(file_key(&a), file_key(&b));
    }
}
