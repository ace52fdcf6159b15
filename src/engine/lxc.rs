//! Containers: LXC tells which hook runs, the container's own network namespace tells the rest.

use super::{Engine, EngineError};
use crate::event::{Flaw, GuestPhase, Nic};
use crate::input::{LxcHook, LxcPhase};
use crate::journal::Message;
use crate::kernel::{Kernel, KernelError};
use crate::model::{Address, Guest, IfName, NetName, Source, one_line, quoted};
use crate::plan::Step;
use crate::plan::seen::{Link, LinkKind};
use crate::register::Endpoint;
use crate::tape;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Instant;

/// The most addresses that a user's NIC may have; each is an entry in every hypervisor of the fabric.
const USERS_ADDRESSES: usize = 64;

impl Engine {
    pub(super) fn lxc(&mut self, hook: LxcHook) -> Result<(), EngineError> {
        let LxcHook { guest, phase, flaw } = hook;
        self.journal.object.clone_from(&guest.name);
        match phase {
            // A linked veth is LXC's to enslave; start-host finds it. Here only what nobody else would put on its bridge.
            LxcPhase::Up { device, bridge, network } => match network {
                Some(network) => {
                    let nic = Nic {
                        device: Some(device),
                        network: Some(network),
                        enslave: bridge.is_none(),
                        ..Nic::default()
                    };
                    self.weigh(&GuestPhase::Start, &guest, std::slice::from_ref(&nic), flaw.as_ref(), &[])?;
                    self.add_endpoint(guest, nic).map(drop)
                }
                None => Ok(()),
            },
            LxcPhase::StartHost { pid } => {
                let mut large = Vec::new();
                let nics = tape::asked("NICs of the container", || {
                    let (nics, found) = self.container_nics(&namespace_of(pid)?)?;
                    large = found;
                    Ok::<_, EngineError>(nics)
                })?;
                self.weigh(&GuestPhase::Start, &guest, &nics, flaw.as_ref(), &[])?;
                self.guest(GuestPhase::Start, guest, nics)?;
                self.lower_inside(&format!("/proc/{pid}/ns/net"), &large)
            }
            LxcPhase::Down { device } => self.guest(GuestPhase::DeviceDown(device), guest, Vec::new()),
            LxcPhase::Stop | LxcPhase::PostStop => self.guest(GuestPhase::Stopped, guest, Vec::new()),
        }
    }

    /// Registers a container that is not root's, when it starts. Whose namespace this is has been proven by the caller; here is what
    /// its user may want there: only these networks, only addresses of theirs, and nothing that another guest of this host has.
    pub fn start_of_user(&mut self, guest: Guest, netns: &File, networks: &[NetName]) -> Result<(), EngineError> {
        self.journal.object.clone_from(&guest.name);
        let (nics, _) = self.container_nics(netns)?;
        self.weigh(&GuestPhase::Start, &guest, &nics, None, &[])?;
        let endpoints = self.endpoints(&guest, nics)?;
        for endpoint in &endpoints {
            if let Some(why) = self.not_a_users(&guest, endpoint, networks)? {
                return EngineError::refused(format!("{guest}: {why}"));
            }
        }
        // The agent is at work here, for the whole host: a user must not hold it up.
        self.may_wait = false;
        let started = self.start(guest, endpoints, None);
        self.may_wait = true;
        started
    }

    fn not_a_users(
        &mut self,
        guest: &Guest,
        endpoint: &Endpoint,
        networks: &[NetName],
    ) -> Result<Option<String>, EngineError> {
        let Endpoint { network, bridge, device, mac, ips, .. } = endpoint;
        let addresses = endpoint.addresses();
        if !networks.contains(network) {
            return Ok(Some(format!(
                "its user may not join network {network}: add it to 'networks' of the user's [[unprivileged]] in config.toml"
            )));
        }
        if ips.len() > USERS_ADDRESSES {
            return Ok(Some(format!(
                "device {device} has {} addresses: a user's may have {USERS_ADDRESSES}",
                ips.len()
            )));
        }
        // In a VRF each address becomes a host route, which would draw the traffic of other networks.
        if let Some(record) = self.register.network_of_bridge(bridge)?.filter(|r| r.network.vrf.is_some()) {
            let foreign = |ip: &&IpAddr| !record.network.gateway.iter().any(|g| g.contains(*ip));
            if let Some(ip) = addresses.iter().find(foreign) {
                return Ok(Some(format!(
                    "address {ip} of device {device} is in none of the network's subnets: give the container one of network {network}'s"
                )));
            }
        }
        for other in self.register.guests().into_iter().flatten().filter(|o| !o.guest.is(guest)) {
            let taken = other.endpoints.iter().any(|o| {
                o.device == *device
                    || o.bridge == *bridge && (o.mac == *mac || o.declared().any(|a| addresses.contains(&a.ip)))
            });
            if taken {
                return Ok(Some(format!(
                    "the MAC or an address of {device} is {}'s: give the container its own",
                    other.guest
                )));
            }
        }
        Ok(None)
    }

    /// The container's veths, each with its host end: LXC gives neither index nor MAC to a hook, and templates with `xx`
    /// make another MAC each time they are read, so the namespace is the only one who knows. And which of them take more than their bridge passes.
    pub(super) fn container_nics(&mut self, netns: &File) -> Result<(Vec<Nic>, Vec<Large>), EngineError> {
        let (mut nics, mut large) = (Vec::new(), Vec::new());
        for inner in veths_in(netns)? {
            let Some(outer) = self.kernel()?.link_by_index(inner.peer)? else {
                nics.extend(self.odd_nic(&inner, netns)?);
                continue;
            };
            let pair = outer.link == Some(inner.index) && outer.kind == LinkKind::Other("veth".into());
            let Some(master) = outer.master.filter(|_| pair) else { continue };
            // Whoever may name the devices inside may give them any index: one that is another container's here, too.
            if !self.kernel()?.peer_is_in(outer.index, netns.as_fd())? {
                continue;
            }
            let bridge = self.kernel()?.link_by_index(master)?;
            large.extend(bridge.as_ref().and_then(|bridge| Large::of(&inner, bridge)));
            let bridge = bridge.map(|l| l.name);
            let (mac, ips, lent) = (inner.mac, inner.ips, inner.lent);
            nics.push(Nic { device: Some(outer.name), mac, bridge, ips, lent, ..Nic::default() });
        }
        Ok((nics, large))
    }

    /// The same of a veth whose host end has a name that nothing of ours can mean: none of ours, unless it is on a bridge of ours.
    fn odd_nic(&mut self, inner: &Inner, netns: &File) -> Result<Option<Nic>, EngineError> {
        let Some(outer) = self.kernel()?.odd_by_index(inner.peer)? else { return Ok(None) };
        let Some(master) = outer.master.filter(|_| outer.link == Some(inner.index)) else { return Ok(None) };
        if !self.kernel()?.peer_is_in(outer.index, netns.as_fd())? {
            return Ok(None);
        }
        let bridge = self.kernel()?.link_by_index(master)?.map(|l| l.name);
        let why = format!(
            "its device on this host is called {}, and evpn-hook takes letters, digits and -_.@+: set lxc.net.N.veth.pair to another name",
            quoted(&outer.shown)
        );
        let flaw = Some(Flaw { why, in_metadata: false });
        Ok(Some(Nic { mac: inner.mac, bridge, flaw, ..Nic::default() }))
    }

    /// Gives a container's own ends the MTU that their bridges pass, where they are ours: what is larger a bridge drops and tells nobody, and where
    /// LXC was given no link, or a veth was made by hand, nobody else has told the container. Only ever less. One that cannot be lowered keeps no
    /// container from starting.
    pub fn lower_inside(&mut self, netns: &str, large: &[Large]) -> Result<(), EngineError> {
        for end in large {
            if self.register.network_of_bridge(&end.bridge)?.is_none() {
                continue;
            }
            let begun = Instant::now();
            let step = Step::SetMtu { dev: end.inside.clone(), mtu: end.mtu };
            match Kernel::open_in(namespace(netns)?.as_fd()).and_then(|mut kernel| kernel.apply(&step)) {
                Ok(()) => {
                    let took = begun.elapsed().as_micros();
                    self.journal.say(&Message::Note(&format!("{}  [{took} µs]", end.command(netns))));
                }
                Err(error @ KernelError::Stranded { .. }) => return Err(error.into()),
                Err(error) => self.journal.say(&Message::Warning(&format!("{}: {error}", end.command(netns)))),
            }
        }
        Ok(())
    }
}

/// A container's own end of a veth that takes larger frames than the bridge of the other.
#[derive(Debug)]
pub struct Large {
    /// Its name there.
    pub inside: IfName,
    /// The bridge.
    pub bridge: IfName,
    /// What the bridge passes, in bytes.
    pub mtu: u32,
}

impl Large {
    /// Of one veth and the bridge of its peer.
    pub fn of(inner: &Inner, bridge: &Link) -> Option<Large> {
        let large = Large { inside: inner.name.clone(), bridge: bridge.name.clone(), mtu: bridge.mtu };
        (inner.mtu > bridge.mtu).then_some(large)
    }

    /// What lowers it, as a person would type it.
    pub fn command(&self, netns: &str) -> String {
        format!("nsenter --net={} ip link set {} mtu {}", one_line(netns), self.inside, self.mtu)
    }
}

/// One veth as the container sees it.
#[derive(Debug)]
pub struct Inner {
    /// Its name there.
    pub name: IfName,
    /// Its index there.
    pub index: u32,
    /// Its peer's index, in the host's namespace.
    pub peer: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The guest's MAC.
    pub mac: Option<crate::model::Mac>,
    /// Its global addresses.
    pub ips: Vec<Address>,
    /// None of them is a static one: a router advertisement may come before the start is told of.
    pub lent: bool,
}

/// The veths in a network namespace, given by a path such as `/proc/PID/ns/net` or `/run/netns/NAME`.
pub fn inside(path: &str) -> Result<Vec<Inner>, EngineError> {
    match veths_in(&namespace(path)?) {
        Err(EngineError::Kernel(error @ KernelError::Namespace { .. })) => {
            EngineError::refused(format!("{path}: {error}: name a process or a file below /run/netns"))
        }
        found => found,
    }
}

/// A process's network namespace.
pub(super) fn namespace_of(pid: u32) -> Result<File, EngineError> {
    namespace(&format!("/proc/{pid}/ns/net"))
}

fn namespace(path: &str) -> Result<File, EngineError> {
    File::open(path)
        .or_else(|e| EngineError::refused(format!("cannot open network namespace {path}: {e}: is its process alive?")))
}

fn veths_in(netns: &File) -> Result<Vec<Inner>, EngineError> {
    let mut kernel = Kernel::open_in(netns.as_fd())?;
    let addresses = kernel.addresses(None)?;
    let mut inner = Vec::new();
    for link in kernel.all_links()? {
        let (Some(peer), LinkKind::Other(kind)) = (link.link, &link.kind) else { continue };
        if kind == "veth" {
            let own = || addresses.iter().filter(|a| a.index == link.index && a.global);
            let ips = own().map(|a| Address::new(a.net.addr(), Source::Container)).collect();
            let lent = own().all(|a| a.lent);
            inner.push(Inner { name: link.name, index: link.index, peer, mtu: link.mtu, mac: link.mac, ips, lent });
        }
    }
    Ok(inner)
}
