//! FRR's words for one VRF. Pure, and made from validated names and numbers only.

use crate::config::Vrf;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::net::Ipv4Addr;

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
    /// `bgp router-id X` in it: only in an instance that has nothing but our lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router_id: Option<Ipv4Addr>,
    /// Lines in it.
    pub lines: Vec<BgpLine>,
}

impl Added {
    /// All that a VRF with an L3VNI needs; nothing for a VRF without one, since FRR learns its routes without being told.
    pub fn whole(vrf: &Vrf, router_id: Option<Ipv4Addr>) -> Added {
        match vrf.vni {
            Some(_) => Added { vni: true, bgp: true, router_id, lines: BgpLine::ALL.to_vec() },
            None => Added::default(),
        }
    }

    /// True where there is nothing to add or to take out.
    pub fn is_empty(&self) -> bool {
        *self == Added::default()
    }

    /// Both together: what this call added and what an earlier one did. The router-id is that of the instance that is there now.
    pub fn with(mut self, other: &Added) -> Added {
        if !self.bgp {
            self.router_id = self.router_id.or(other.router_id);
        }
        self.vni |= other.vni;
        self.bgp |= other.bgp;
        self.lines.extend(&other.lines);
        self.lines.sort_unstable();
        self.lines.dedup();
        self
    }

    /// All of it but what is in the other.
    pub fn without(&self, less: &Added) -> Added {
        Added {
            vni: self.vni && !less.vni,
            bgp: self.bgp && !less.bgp,
            router_id: self.router_id.filter(|_| !less.bgp && less.router_id.is_none()),
            lines: self.lines.iter().copied().filter(|line| !less.lines.contains(line)).collect(),
        }
    }
}

/// The line of an instance that makes its route distinguishers this host's own.
pub(super) fn router_id_line(id: Ipv4Addr) -> String {
    format!("bgp router-id {id}")
}

/// The stanzas for frr.conf. Without an AS (no FRR to ask) the word `AS` stands in its place, and a comment says so; without a router-id
/// there is no line for it.
pub fn stanzas(vrf: &Vrf, asn: Option<u32>, router_id: Option<Ipv4Addr>) -> String {
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
    if let Some(id) = router_id {
        let _ = writeln!(out, " {}", router_id_line(id));
    }
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
pub(crate) fn add(vrf: &Vrf, asn: u32, missing: &Added) -> Vec<String> {
    let mut out = Vec::new();
    if let (true, Some(vni)) = (missing.vni, vrf.vni) {
        out.extend([format!("vrf {}", vrf.name), format!("vni {vni}"), "exit-vrf".into()]);
    }
    if missing.bgp || missing.router_id.is_some() || !missing.lines.is_empty() {
        out.extend(instance(vrf, asn, missing, ""));
    }
    out
}

/// vtysh's lines that take `added` out: the L3VNI first, because bgpd refuses `no router bgp AS vrf NAME` ("Please unconfigure l3vni N")
/// as long as it holds one. `no vrf NAME` is not among them: FRR takes it only when the kernel's device is gone ("Only inactive VRFs can
/// be deleted"), and what stays without it is a name in `show vrf`, not a line in the configuration.
pub(crate) fn remove(vrf: &Vrf, asn: u32, added: &Added) -> Vec<String> {
    let mut out = Vec::new();
    if let (true, Some(vni)) = (added.vni, vrf.vni) {
        out.extend([format!("vrf {}", vrf.name), format!("no vni {vni}"), "exit-vrf".into()]);
    }
    if added.bgp {
        out.push(format!("no router bgp {asn} vrf {}", vrf.name));
    } else if added.router_id.is_some() || !added.lines.is_empty() {
        out.extend(instance(vrf, asn, added, "no "));
    }
    out
}

fn instance(vrf: &Vrf, asn: u32, content: &Added, no: &str) -> Vec<String> {
    let mut out = vec![format!("router bgp {asn} vrf {}", vrf.name)];
    out.extend(content.router_id.map(|id| format!("{no}{}", router_id_line(id))));
    for (family, lines) in families(&content.lines) {
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
