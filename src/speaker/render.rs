//! FRR's words for one VRF. Pure, and made from validated names and numbers only.

use crate::config::Vrf;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// One line below `router bgp AS vrf NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BgpLine {
    /// The VRF's connected IPv4 prefixes: they become type-5 routes.
    Ipv4Connected,
    /// The same for IPv6.
    Ipv6Connected,
    /// Type-5 routes from the VRF's IPv4 routes.
    AdvertiseIpv4,
    /// The same for IPv6.
    AdvertiseIpv6,
}

impl BgpLine {
    /// All of them, in the order of FRR's own configuration.
    pub const ALL: [BgpLine; 4] =
        [BgpLine::Ipv4Connected, BgpLine::Ipv6Connected, BgpLine::AdvertiseIpv4, BgpLine::AdvertiseIpv6];

    /// The address family that it stands in, and its text.
    pub fn text(self) -> (&'static str, &'static str) {
        match self {
            BgpLine::Ipv4Connected => ("ipv4 unicast", "redistribute connected"),
            BgpLine::Ipv6Connected => ("ipv6 unicast", "redistribute connected"),
            BgpLine::AdvertiseIpv4 => ("l2vpn evpn", "advertise ipv4 unicast"),
            BgpLine::AdvertiseIpv6 => ("l2vpn evpn", "advertise ipv6 unicast"),
        }
    }
}

/// What we put into the running FRR for a VRF, to be kept and handed back when it is taken out: the rest belongs to the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Added {
    /// `vrf NAME / vni N`
    pub vni: bool,
    /// The instance itself, `router bgp AS vrf NAME`.
    pub bgp: bool,
    /// Lines in it.
    pub lines: Vec<BgpLine>,
}

impl Added {
    /// All that a VRF with an L3VNI needs; nothing for a VRF without one, since FRR learns its routes without being told.
    pub fn whole(vrf: &Vrf) -> Added {
        match vrf.vni {
            Some(_) => Added { vni: true, bgp: true, lines: BgpLine::ALL.to_vec() },
            None => Added::default(),
        }
    }

    /// True where there is nothing to add or to take out.
    pub fn is_empty(&self) -> bool {
        *self == Added::default()
    }

    /// Both together: what an earlier call added and what this one did.
    pub fn with(mut self, other: &Added) -> Added {
        self.vni |= other.vni;
        self.bgp |= other.bgp;
        self.lines.extend(&other.lines);
        self.lines.sort_unstable();
        self.lines.dedup();
        self
    }
}

/// The stanzas for frr.conf. Without an AS (no FRR to ask) the word `AS` stands in its place, and a comment says so.
pub fn stanzas(vrf: &Vrf, asn: Option<u32>) -> String {
    let (Some(vni), name) = (vrf.vni, &vrf.name) else {
        return format!("! vrf {} has no L3VNI: FRR needs no configuration for it\n", vrf.name);
    };
    let mut out = format!("vrf {name}\n vni {vni}\nexit-vrf\n!\n");
    let asn = asn.map_or_else(
        || {
            out.push_str("! replace AS by the number of this host's 'router bgp'\n");
            "AS".to_owned()
        },
        |asn| asn.to_string(),
    );
    let _ = writeln!(out, "router bgp {asn} vrf {name}");
    for (family, lines) in families(&BgpLine::ALL) {
        let _ = writeln!(out, " !\n address-family {family}");
        for line in lines {
            let _ = writeln!(out, "  {line}");
        }
        out.push_str(" exit-address-family\n");
    }
    out.push_str("exit\n!\n");
    out
}

fn families(lines: &[BgpLine]) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut families: Vec<(&str, Vec<&str>)> = Vec::new();
    for (family, line) in lines.iter().map(|line| line.text()) {
        match families.last_mut() {
            Some((last, lines)) if *last == family => lines.push(line),
            _ => families.push((family, vec![line])),
        }
    }
    families
}

/// vtysh's lines that put `missing` in: the VRF before its instance, so that bgpd hears of the L3VNI and the instance in the order of frr.conf.
pub(super) fn add(vrf: &Vrf, asn: u32, missing: &Added) -> Vec<String> {
    let mut out = Vec::new();
    if let (true, Some(vni)) = (missing.vni, vrf.vni) {
        out.extend([format!("vrf {}", vrf.name), format!("vni {vni}"), "exit-vrf".into()]);
    }
    if missing.bgp || !missing.lines.is_empty() {
        out.extend(instance(vrf, asn, &missing.lines, ""));
    }
    out
}

/// vtysh's lines that take `added` out: the L3VNI first, because bgpd refuses `no router bgp AS vrf NAME` ("Please unconfigure l3vni N")
/// as long as it holds one. `no vrf NAME` is not among them: FRR takes it only when the kernel's device is gone ("Only inactive VRFs can
/// be deleted"), and what stays without it is a name in `show vrf`, not a line in the configuration.
pub(super) fn remove(vrf: &Vrf, asn: u32, added: &Added) -> Vec<String> {
    let mut out = Vec::new();
    if let (true, Some(vni)) = (added.vni, vrf.vni) {
        out.extend([format!("vrf {}", vrf.name), format!("no vni {vni}"), "exit-vrf".into()]);
    }
    if added.bgp {
        out.push(format!("no router bgp {asn} vrf {}", vrf.name));
    } else if !added.lines.is_empty() {
        out.extend(instance(vrf, asn, &added.lines, "no "));
    }
    out
}

fn instance(vrf: &Vrf, asn: u32, lines: &[BgpLine], no: &str) -> Vec<String> {
    let mut out = vec![format!("router bgp {asn} vrf {}", vrf.name)];
    for (family, lines) in families(lines) {
        out.push(format!("address-family {family}"));
        out.extend(lines.iter().map(|line| format!("{no}{line}")));
        out.push("exit-address-family".into());
    }
    out.push("exit".into());
    out
}

#[cfg(test)]
#[path = "render_test.rs"]
mod test;
