//! Containers: LXC tells which hook runs, the container's own network namespace tells the rest.

use super::{Engine, EngineError};
use crate::event::{GuestPhase, Nic};
use crate::input::{LxcHook, LxcPhase};
use crate::kernel::{Kernel, KernelError};
use crate::model::IfName;
use crate::plan::seen::LinkKind;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;

impl Engine {
    pub(super) fn lxc(&mut self, hook: LxcHook) -> Result<(), EngineError> {
        let LxcHook { guest, phase } = hook;
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
                    self.add_endpoint(guest, nic).map(drop)
                }
                None => Ok(()),
            },
            LxcPhase::StartHost { pid } => {
                let nics = self.container_nics(pid)?;
                self.guest(GuestPhase::Start, guest, nics)
            }
            LxcPhase::Down { device } => self.guest(GuestPhase::DeviceDown(device), guest, Vec::new()),
            LxcPhase::Stop | LxcPhase::PostStop => self.guest(GuestPhase::Stopped, guest, Vec::new()),
        }
    }

    /// The container's veths, each with its host end: LXC gives neither index nor MAC to a hook, and templates with `xx`
    /// make another MAC each time they are read, so the namespace is the only one who knows.
    pub(super) fn container_nics(&mut self, pid: u32) -> Result<Vec<Nic>, EngineError> {
        let path = format!("/proc/{pid}/ns/net");
        let mut nics = Vec::new();
        for inner in inside(&path)? {
            let Some(outer) = self.kernel()?.link_by_index(inner.peer)? else { continue };
            let pair = outer.link == Some(inner.index) && outer.kind == LinkKind::Other("veth".into());
            let Some(master) = outer.master.filter(|_| pair) else { continue };
            let bridge = self.kernel()?.link_by_index(master)?.map(|l| l.name);
            nics.push(Nic { device: Some(outer.name), mac: inner.mac, bridge, ips: inner.ips, ..Nic::default() });
        }
        Ok(nics)
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
    /// The guest's MAC.
    pub mac: Option<crate::model::Mac>,
    /// Its global addresses.
    pub ips: Vec<IpAddr>,
}

/// The veths in a network namespace, given by a path such as `/proc/PID/ns/net` or `/run/netns/NAME`.
pub fn inside(path: &str) -> Result<Vec<Inner>, EngineError> {
    let namespace = match File::open(path) {
        Ok(file) => file,
        Err(e) => {
            return EngineError::refused(format!("cannot open network namespace {path}: {e}: is its process alive?"));
        }
    };
    let mut kernel = match Kernel::open_in(namespace.as_fd()) {
        Err(error @ KernelError::Namespace { .. }) => {
            return EngineError::refused(format!("{path}: {error}: name a process or a file below /run/netns"));
        }
        opened => opened?,
    };
    let addresses = kernel.addresses(None)?;
    let mut inner = Vec::new();
    for link in kernel.all_links()? {
        let (Some(peer), LinkKind::Other(kind)) = (link.link, &link.kind) else { continue };
        if kind == "veth" {
            let own = addresses.iter().filter(|a| a.index == link.index && a.global);
            let ips = own.map(|a| a.net.addr()).collect();
            inner.push(Inner { name: link.name, index: link.index, peer, mac: link.mac, ips });
        }
    }
    Ok(inner)
}
