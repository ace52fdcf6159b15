//! What happened, in evpn-hook's own words: the value between the input adapters and the planner.

use crate::config::Network;
use crate::model::{Address, Guest, IfName, Mac, NetName};

/// One thing that a hypervisor or an operator told us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A network is about to start, runs now, or was changed.
    Network {
        /// What happened to it.
        phase: NetworkPhase,
        /// What its XML says.
        network: Network,
    },
    /// A network is gone, its bridge with it; never refused. Own state says what there is to take down: the metadata may be broken or
    /// removed by now, so this comes for every network of the host, whether it was ours or not.
    NetworkStopped {
        /// Which network.
        name: NetName,
        /// What its XML says, where that can be read and is ours.
        network: Option<Network>,
    },
    /// A port of a network went away with its guest still running: a NIC was unplugged, or only changed.
    PortDeleted {
        /// The guest that the port belonged to.
        owner: Guest,
    },
    /// A guest starts, runs, moves or stops.
    Guest {
        /// What happened to it.
        phase: GuestPhase,
        /// Which guest.
        guest: Guest,
        /// Its NICs as far as the input knows them; empty where the phase needs none.
        nics: Vec<Nic>,
        /// What is wrong with the guest as a whole.
        flaw: Option<Flaw>,
        /// What is odd and stops nobody, each a line with the way out.
        notes: Vec<String>,
    },
}

/// What is wrong with what was read of a guest or of one of its NICs. It counts where that is on a network of ours, and only there: what other
/// guests are called and what stands in their metadata is not ours to judge.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Flaw {
    /// Why it cannot be taken as it is, with the way out.
    pub why: String,
    /// It stands in our own metadata, so it is told also where the guest is on no network of ours.
    pub in_metadata: bool,
}

/// The life of a network. <https://libvirt.org/hooks.html#etc-libvirt-hooks-network>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkPhase {
    /// Nothing exists yet; may be refused.
    Start,
    /// libvirt's bridge is there, with addresses and dnsmasq; may be refused.
    Started,
    /// The XML changed, or a port was made: only the DHCP hosts are taken over.
    Updated,
}

/// The life of a guest, as far as a hook can see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestPhase {
    /// Nothing exists yet: a chance to refuse bad metadata before anything is built (qemu prepare).
    Prepare,
    /// A migration announces itself on the target: what starts next runs elsewhere still (qemu migrate).
    Incoming,
    /// Devices exist, the guest's first instruction has not run (qemu start, LXC start-host, attach).
    Start,
    /// The guest's processors may run (qemu started): the chance to correct a wrong guess about `Incoming`.
    Started {
        /// Whether it does, where the input knows: `Some(false)` is still on its way. `None`: libvirt's own status file tells.
        running: Option<bool>,
    },
    /// The guest has gone, its devices mostly too (qemu stopped and release, LXC stop and post-stop).
    Stopped,
    /// One device goes, the guest perhaps not (LXC script.down).
    DeviceDown(IfName),
    /// libvirtd restarted under a running guest: re-apply, never refuse.
    Reconnect,
}

/// One NIC of a guest, as an input adapter read it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Nic {
    /// The host's end: tap or veth. Unknown in libvirt's inactive XML.
    pub device: Option<IfName>,
    /// The guest's MAC; unknown for a container until start-host.
    pub mac: Option<Mac>,
    /// The bridge the input names.
    pub bridge: Option<IfName>,
    /// The network the input names.
    pub network: Option<NetName>,
    /// Addresses known from the input itself, in order of precedence already.
    pub ips: Vec<Address>,
    /// True where each of these was lent to it by a router or a DHCP server of the network: what a DHCP server keeps for it may yet come.
    #[serde(default)]
    pub lent: bool,
    /// True where the guest's own metadata names the network, and nobody else does.
    #[serde(default)]
    pub chosen: bool,
    /// True where nobody else enslaves the device (type=ethernet, LXC without a link, attach): we do.
    pub enslave: bool,
    /// What our metadata says of its MAC on each of these networks, where only its bridge tells which of them it is on.
    #[serde(default)]
    pub by_network: Vec<(NetName, Vec<Address>)>,
    /// What is wrong with it.
    #[serde(default)]
    pub flaw: Option<Flaw>,
}

// libvirt *kills a running guest* when `reconnect` fails, and ignores the status of `stopped` and `release`
// (src/qemu/qemu_process.c `qemuProcessReconnect`); hence only what has not run yet may be refused.

impl NetworkPhase {
    /// May a failure stop what the caller was about to do?
    pub fn may_refuse(self) -> bool {
        matches!(self, NetworkPhase::Start | NetworkPhase::Started)
    }
}

impl GuestPhase {
    /// May a failure stop what the caller was about to do?
    pub fn may_refuse(&self) -> bool {
        matches!(self, GuestPhase::Prepare | GuestPhase::Start)
    }
}

impl Event {
    /// May a failure be reported to the caller with a non-zero exit, which stops what it was about to do?
    pub fn may_refuse(&self) -> bool {
        match self {
            Event::Network { phase, .. } => phase.may_refuse(),
            Event::NetworkStopped { .. } | Event::PortDeleted { .. } => false,
            Event::Guest { phase, .. } => phase.may_refuse(),
        }
    }
}
