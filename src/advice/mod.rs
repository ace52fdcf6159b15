//! What a network's description says that works badly or not at all, each with its mend. Nothing here is refused: `virsh net-start` and `network up`
//! log it, `status` shows it, `doctor` lists it. [`ROWS`] is the one table of it; pure.

use crate::config::{Forward, Network, Origin};
use crate::model::IfName;
use crate::plan::bridge::sets_stp;
use crate::plan::seen::{Link, LinkKind};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// One piece of advice. Its JSON is stable: fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// Which row; a name for programs, the same in `status` and `doctor`.
    pub check: &'static str,
    /// Does it cost traffic? Otherwise it is good to know.
    #[serde(skip)]
    pub costs: bool,
    /// What is so.
    pub evidence: String,
    /// What to do.
    pub mend: String,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; mend: {}", self.check, self.evidence, self.mend)
    }
}

/// What a row is about.
struct Case<'a> {
    network: &'a Network,
    /// Does the bridge run STP? Where it is somebody else's, who may change that.
    their_stp: Option<bool>,
}

/// Does it cost traffic, what is so, what to do.
type Said = (bool, String, String);

/// A row's key, and what it says where it applies.
type Row = (&'static str, fn(&Case) -> Option<Said>);

const ROWS: &[Row] = &[
    ("forward-mode", forward_mode),
    ("stp", stp),
    ("dhcp-broadcast", dhcp_broadcast),
    ("libvirt-services", services),
    ("anycast-mac", anycast_mac),
    ("mtu-not-told", mtu),
];

/// All that is to be said of a network, its MTU resolved. `bridge` is its bridge as it is; `made` are the devices that we made.
pub fn of(network: &Network, bridge: Option<&Link>, made: &BTreeSet<IfName>) -> Vec<Advice> {
    let theirs = bridge.filter(|link| !sets_stp(network, Some(link), made));
    let their_stp = theirs.map(|link| matches!(link.kind, LinkKind::Bridge { stp: true, .. }));
    let case = Case { network, their_stp };
    let said = |(check, row): &Row| {
        let (costs, evidence, mend) = row(&case)?;
        Some(Advice { check, costs, evidence, mend })
    };
    ROWS.iter().filter_map(said).collect()
}

/// libvirt's rules for these modes (network_iptables.c, `iptablesForward*`, `iptablesForwardMasquerade`): MASQUERADE from the subnet to any other, and a
/// REJECT for what goes out by the bridge and was not asked for.
fn forward_mode(Case { network, .. }: &Case) -> Option<Said> {
    let vrf = network.vrf.as_ref().filter(|_| !network.gateway.is_empty())?;
    let what = match network.described.as_ref()?.forward {
        Forward::Open => return None,
        Forward::Nat => format!(
            "<forward mode='nat'/> in VRF {}: libvirt rewrites the source of what guests send to other subnets, and rejects what is routed to them",
            vrf.name
        ),
        Forward::Isolated => {
            format!("no <forward> in VRF {}: libvirt rejects what is routed to the network's guests", vrf.name)
        }
    };
    Some((true, what, "use <forward mode='open'/>; the VRF's way out is the fabric's default route".to_owned()))
}

/// The kernel gives STP a forward delay of 2 s at least (net/bridge/br_stp_if.c `br_stp_start`), which a port listens, and then again learns.
fn stp(Case { network, their_stp }: &Case) -> Option<Said> {
    let bridge = &network.bridge;
    let costs = "each new port is deaf for 4 s or more, and guests and other hosts may have a part in the tree";
    let (is_bad, what, mend) = match (their_stp, network.stp) {
        (Some(true), false) => (
            true,
            format!("bridge {bridge} was there before and runs STP: {costs}"),
            format!("ip link set {bridge} type bridge stp_state 0, and the same where the bridge is configured"),
        ),
        (Some(false), true) => (
            false,
            format!("bridge {bridge} was there before and runs no STP, though stp='on' in the metadata wants it"),
            format!("ip link set {bridge} type bridge stp_state 1, or take stp='on' out of <evpn:network>"),
        ),
        (_, true) => (
            false,
            format!("bridge {bridge} runs STP, as stp='on' in the metadata wants it: {costs}"),
            "take stp='on' out of <evpn:network>, unless guests bridge two ports".to_owned(),
        ),
        (_, false) if network.described.is_some_and(|described| described.stp) => (
            false,
            format!("libvirt starts bridge {bridge} with STP, which is its default, and evpn-hook turns it off"),
            format!(
                "use <bridge name='{bridge}' stp='off' delay='0'/>, or <evpn:network stp='on' …> where STP is wanted"
            ),
        ),
        (_, false) => return None,
    };
    Some((is_bad, what, mend))
}

/// dnsmasq's SIOCSARP (its src/rfc2131.c and dhcp.c) makes a permanent neighbour a learned one (net/ipv4/arp.c `arp_req_set`).
fn dhcp_broadcast(Case { network, .. }: &Case) -> Option<Said> {
    network.described.as_ref().filter(|described| described.dhcp_unicast)?;
    let what = "<dhcp> without dhcp-broadcast: dnsmasq writes the neighbour entries of this host's guests itself, and \
                what evpn-hook made permanent ages";
    let mend = "add <dnsmasq:options><dnsmasq:option value='dhcp-broadcast'/></dnsmasq:options> with \
                xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0' on <network>";
    Some((true, what.to_owned(), mend.to_owned()))
}

/// A UDP socket that is bound to no device hears nothing of a VRF while `udp_l3mdev_accept` is 0 (Documentation/networking/vrf.rst). dnsmasq's for DHCP is
/// bound to the bridge.
fn services(Case { network, .. }: &Case) -> Option<Said> {
    let vrf = network.vrf.as_ref().filter(|_| !network.gateway.is_empty())?;
    let described = network.described.as_ref()?;
    let (which, mend) = match (described.dns, described.tftp) {
        (false, false) => return None,
        (true, false) => ("DNS", "use <dns enable='no'/>"),
        (false, true) => ("TFTP", "take <tftp> out"),
        (true, true) => ("DNS and TFTP", "use <dns enable='no'/>, and take <tftp> out"),
    };
    let what = format!("libvirt's dnsmasq is to answer {which}, which it cannot in VRF {}", vrf.name);
    let more = "and name a server in the tenant's own network by DHCP (<dnsmasq:option value='dhcp-option=…'/>)";
    Some((true, what, format!("{mend}, {more}")))
}

/// A guest that moves keeps what it knows of its gateway.
fn anycast_mac(Case { network, their_stp }: &Case) -> Option<Said> {
    let described = network.described.as_ref().filter(|_| !network.gateway.is_empty())?;
    let [_, a, b, c] = network.vni.get().to_be_bytes();
    let example = format!("02:00:00:{a:02x}:{b:02x}:{c:02x}");
    let same = "the same on every host";
    match (network.origin, network.mac) {
        _ if !described.own_mac => None,
        // libvirt makes one up where the XML has none (network_conf.c `virNetworkSetBridgeMacAddr`), and shows no difference.
        (Origin::Libvirt, Some(mac)) => {
            let what = format!(
                "the gateway's MAC {mac} may be one that libvirt made up for this host: a guest that moves would keep it"
            );
            Some((false, what, format!("use <mac address='{example}'/> or another, {same}")))
        }
        // A bridge of ours has one made from the VNI. Another's is its maker's choice.
        _ if their_stp.is_none() => None,
        _ => {
            let what = format!(
                "no MAC is given for the gateway, and bridge {} was there before: each host's may have its own, and a guest that moves keeps the old host's",
                network.bridge
            );
            Some((true, what, format!("mac = \"{example}\" or another in config.toml, {same}")))
        }
    }
}

/// What an Ethernet device of a guest's begins with, in bytes.
const GUESTS_MTU: u32 = 1500;

/// A bridge drops what is larger than the port that it would leave by (net/bridge/br_forward.c `is_skb_forwardable`), and tells nobody.
fn mtu(Case { network, .. }: &Case) -> Option<Said> {
    network.described.as_ref().filter(|described| !described.mtu_told)?;
    let mtu = network.mtu.filter(|mtu| *mtu < GUESTS_MTU)?;
    let what = format!(
        "its MTU is {mtu} and guests are not told: what is larger is dropped, also between two guests of one host"
    );
    let mend = match network.origin {
        Origin::Libvirt => format!("use <mtu size='{mtu}'/>: libvirt then tells guests by DHCP"),
        _ => format!(
            "tell guests (lxc.net.0.mtu, <mtu size=> of an <interface>, DHCP option 26), and set mtu = {mtu} in config.toml"
        ),
    };
    Some((true, what, mend))
}

#[cfg(test)]
#[path = "advice_test.rs"]
mod tests;
