//! Our metadata in a domain: which of its interfaces each `<evpn:interface>` means. A MAC may be on two networks, and then `network=` tells.

use crate::model::{Mac, NetName, quoted};
use std::net::IpAddr;

/// An `<evpn:interface>` of ours.
pub(super) struct Hint {
    pub mac: Mac,
    pub network: Option<NetName>,
    pub ips: Vec<IpAddr>,
}

/// An `<interface>` of libvirt's, as far as it tells which hint is its.
pub(super) struct Asks<'a> {
    pub mac: Option<Mac>,
    pub network: Option<&'a NetName>,
    /// Its host end can be a bridge's port.
    pub usable: bool,
    /// It names a bridge, by which its network can be found.
    pub on_bridge: bool,
    /// `<interface type=`
    pub kind: &'a str,
}

/// Which hints are an interface's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meant {
    Nothing,
    /// This one.
    One(usize),
    /// One of these, by the network that its bridge is of.
    OneOf(Vec<usize>),
    /// Nobody can tell.
    Unclear(String),
}

/// For each interface what is meant for it, and of each hint that is for none of them a line.
pub(super) fn assign(domain: &str, hints: &[Hint], interfaces: &[Asks]) -> (Vec<Meant>, Vec<String>) {
    let mut meant = vec![Meant::Nothing; interfaces.len()];
    let mut used = vec![false; hints.len()];
    // Where libvirt names the network, that tells.
    for (meant, asks) in meant.iter_mut().zip(interfaces).filter(|(_, asks)| asks.usable) {
        let is_its = |h: &Hint| Some(h.mac) == asks.mac && h.network.is_some() && h.network.as_ref() == asks.network;
        if let Some(at) = hints.iter().position(is_its) {
            *meant = Meant::One(at);
            used[at] = true;
        }
    }
    let open: Vec<usize> =
        (0..interfaces.len()).filter(|i| interfaces[*i].usable && meant[*i] == Meant::Nothing).collect();
    let free = used.clone();
    for (i, asks) in open.iter().map(|i| (*i, &interfaces[*i])) {
        let Some(mac) = asks.mac else { continue };
        let left: Vec<usize> = (0..hints.len()).filter(|at| hints[*at].mac == mac && !free[*at]).collect();
        let alone = open.iter().filter(|i| interfaces[**i].mac == asks.mac).count() == 1;
        meant[i] = match left[..] {
            [] => continue,
            [one] if alone => Meant::One(one),
            _ if asks.on_bridge && asks.network.is_none() && left.iter().all(|at| hints[*at].network.is_some()) => {
                Meant::OneOf(left.clone())
            }
            _ => Meant::Unclear(format!(
                "its metadata does not tell which of its interfaces with MAC {mac} is meant: add network='NAME' to each <evpn:interface> of that MAC"
            )),
        };
        left.into_iter().for_each(|at| used[at] = true);
    }
    let strays = hints.iter().zip(used).filter(|(_, used)| !used);
    (meant, strays.map(|(hint, _)| stray(domain, hint, interfaces)).collect())
}

fn stray(domain: &str, Hint { mac, network, .. }: &Hint, interfaces: &[Asks]) -> String {
    let mut of_mac = interfaces.iter().filter(|asks| asks.mac == Some(*mac));
    match (of_mac.next(), network) {
        (None, _) => format!(
            "its metadata names MAC {mac}, which none of its interfaces has (virt-clone gives new MACs and copies metadata): correct the <evpn:interface>, or take our metadata out with 'virsh metadata {domain} urn:evpn-hook:1 --remove --config'"
        ),
        (Some(other), _) if !other.usable && of_mac.all(|asks| !asks.usable) => format!(
            "its metadata names MAC {mac}, which is on an interface type={}: use type='network', 'bridge' or 'ethernet', or remove the <evpn:interface>",
            quoted(other.kind)
        ),
        (Some(_), network) => format!(
            "its metadata names MAC {mac} on network {}, where none of its interfaces is: correct or remove the <evpn:interface>",
            quoted(network.as_ref().map_or("", NetName::as_str))
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(mac: &str, network: &str) -> Hint {
        Hint { mac: mac.parse().unwrap(), network: network.parse().ok(), ips: Vec::new() }
    }

    /// What is said of interfaces with these MACs on these networks of libvirt's; `/` is a bridge by its name.
    fn told(hints: &[Hint], interfaces: &[(&str, &str)]) -> (Vec<Meant>, usize) {
        let names: Vec<Option<NetName>> =
            interfaces.iter().map(|(_, name)| name.parse().ok().filter(|_| *name != "/")).collect();
        let asks = interfaces.iter().zip(&names).map(|((mac, name), network)| Asks {
            mac: mac.parse().ok(),
            network: network.as_ref(),
            usable: true,
            on_bridge: *name == "/",
            kind: "network",
        });
        let (meant, notes) = assign("vm1", hints, &asks.collect::<Vec<_>>());
        (meant, notes.len())
    }

    const A: &str = "52:54:00:00:00:0a";
    const B: &str = "52:54:00:00:00:0b";

    #[test]
    fn one_mac_on_two_networks_has_an_address_on_each() {
        use Meant::{Nothing, One, OneOf};
        assert_eq!(told(&[hint(A, "red"), hint(A, "green")], &[(A, "green"), (A, "red")]).0, [One(1), One(0)]);
        assert_eq!(told(&[hint(A, "red")], &[(A, "red"), (A, "green")]), (vec![One(0), Nothing], 0));
        assert_eq!(told(&[hint(A, "red"), hint(A, "")], &[(A, "red"), (A, "green")]), (vec![One(0), One(1)], 0));
        // Only the host knows which network a bridge is of.
        let both = OneOf(vec![0, 1]);
        assert_eq!(
            told(&[hint(A, "red"), hint(A, "green")], &[(A, "/"), (A, "/"), (B, "red")]),
            (vec![both.clone(), both, Nothing], 0)
        );
    }

    #[test]
    fn a_mac_alone_tells_where_one_interface_has_it() {
        assert_eq!(told(&[hint(A, ""), hint(B, "")], &[(B, "red"), (A, "/")]).0, [Meant::One(1), Meant::One(0)]);
        let (meant, _) = told(&[hint(A, "")], &[(A, "red"), (A, "green")]);
        assert!(meant.iter().all(|m| matches!(m, Meant::Unclear(_))), "{meant:?}");
        // A contradiction is for the caller to see.
        assert_eq!(told(&[hint(A, "red")], &[(A, "green")]), (vec![Meant::One(0)], 0));
    }

    #[test]
    fn what_is_meant_for_none_is_told_and_no_more() {
        assert_eq!(told(&[hint(A, ""), hint(B, "red")], &[]).1, 2);
        assert_eq!(told(&[hint(A, "red"), hint(A, "green")], &[(A, "red")]), (vec![Meant::One(0)], 1));
    }
}
