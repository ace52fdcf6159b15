//! bgpd's running configuration, as far as VRFs need it. Pure.
//!
//! `show bgp vrfs json` is cheaper but tells no AS, and cannot tell an instance that somebody configured from one that bgpd made by itself for
//! an L3VNI (BGP_VRF_AUTO). The running configuration has exactly the configured ones, with what is in them.

/// One `router bgp` stanza.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The AS number; FRR takes plain notation in every version, so that is what we write.
    pub asn: u32,
    /// Its VRF; none is the default one.
    pub vrf: Option<String>,
    /// (address family, line) as bgpd prints them; the family is empty for lines above the first. No line is left out.
    pub lines: Vec<(String, String)>,
}

impl Instance {
    /// The line that it stands under.
    pub fn line(&self) -> String {
        let vrf = self.vrf.as_ref().map_or(String::new(), |vrf| format!(" vrf {vrf}"));
        format!("router bgp {}{vrf}", self.asn)
    }

    /// The line of this family that is `line` or begins with it (`redistribute connected route-map X`).
    pub fn has(&self, family: &str, line: &str) -> bool {
        self.lines.iter().any(|(f, l)| {
            f == family && l.strip_prefix(line).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        })
    }
}

impl Instance {
    /// The route targets that are configured for import: of a VNI in the EVPN instance (`vni N` … `exit-vni`), with `None` of the instance itself, which is its VRF's
    /// L3VNI. Empty where bgpd's own counts, alone or beside them: any AS, and the VNI.
    pub fn imports(&self, vni: Option<u32>) -> Vec<&str> {
        let (mut inside, mut found) = (None, Vec::new());
        for (_, line) in self.lines.iter().filter(|(family, _)| family == "l2vpn evpn") {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["vni", number] => inside = number.parse::<u32>().ok(),
                ["exit-vni"] => inside = None,
                ["route-target", "import", "auto"] | ["auto-route-target", "import", "add-always"] if inside == vni => {
                    return Vec::new();
                }
                ["route-target", "import" | "both", ref targets @ ..] if inside == vni => found.extend(targets),
                _ => {}
            }
        }
        found
    }
}

/// All that bgpd has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// In the order of the configuration. Views are left out: they carry no routes of the kernel.
    pub instances: Vec<Instance>,
}

impl Running {
    /// The instance of a VRF.
    pub fn vrf(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|i| i.vrf.as_deref() == Some(name))
    }

    /// The instance that speaks EVPN for the host: the one with `advertise-all-vni` (FRR allows one, not always the default), else the default.
    pub fn evpn(&self) -> Option<&Instance> {
        let speaks = |i: &&Instance| i.has("l2vpn evpn", "advertise-all-vni");
        self.instances.iter().find(speaks).or_else(|| self.instances.iter().find(|i| i.vrf.is_none()))
    }

    /// Does bgpd hand zebra's VNIs on at all? Without it nothing is advertised, and some versions (10.6 was reported) can crash when a VXLAN
    /// device appears while no instance has it (issue 22851).
    pub fn advertises_all_vni(&self) -> bool {
        self.evpn().is_some_and(|i| i.has("l2vpn evpn", "advertise-all-vni"))
    }
}

/// Reads what `show running-config` printed on bgpd's socket. Unknown lines are skipped, or kept as content of the stanza they are in.
pub(crate) fn parse(text: &str) -> Running {
    let mut running = Running::default();
    let mut current: Option<Instance> = None;
    let mut family = String::new();
    for line in text.lines() {
        let words = line.trim();
        if words.is_empty() || words == "!" {
            continue;
        }
        if !line.starts_with(' ') {
            running.instances.extend(current.take());
            family.clear();
            current = words.strip_prefix("router bgp ").and_then(header);
            continue;
        }
        let Some(instance) = &mut current else { continue };
        match words.strip_prefix("address-family ") {
            Some(name) => family = name.to_owned(),
            None if words == "exit-address-family" => family.clear(),
            None => instance.lines.push((family.clone(), words.to_owned())),
        }
    }
    running.instances.extend(current);
    running
}

/// `64512`, `64512 vrf red`, `1.10 vrf red as-notation dot`; none for a view.
fn header(text: &str) -> Option<Instance> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (asn, rest) = words.split_first()?;
    let vrf = match rest {
        ["vrf", name, ..] => Some((*name).to_owned()),
        ["view", ..] => return None,
        _ => None,
    };
    Some(Instance { asn: as_number(asn)?, vrf, lines: Vec::new() })
}

/// An AS in plain or dotted notation (RFC 5396: `high.low`, 16 bits each).
fn as_number(text: &str) -> Option<u32> {
    match text.split_once('.') {
        None => text.parse().ok(),
        Some((high, low)) => Some((u32::from(high.parse::<u16>().ok()?) << 16) | u32::from(low.parse::<u16>().ok()?)),
    }
}

#[cfg(test)]
#[path = "running_test.rs"]
mod test;
