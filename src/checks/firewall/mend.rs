//! The least change that lets something through, in the words of what manages the rules; pure. Which of these it is the packets tell: each is tried in the
//! copy, and what is printed is what made them arrive there. Nothing is ever deleted: what drops more than this is somebody's intent.

use super::ruleset::{Ruleset, Saved};
use super::stage::What;

/// One thing to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What a person runs on the host.
    pub shown: String,
    pub lasts: Lasts,
    pub change: Change,
}

/// Does it outlast a boot?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lasts {
    /// The command sees to that.
    Itself,
    /// Where this file has it as well.
    In(&'static str),
    /// No, and why.
    Not(String),
}

/// The same in the copy, where the firewall's own program is not at home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `iptables -t filter -I INPUT …`; with `-D` in its place it is undone.
    Iptables(Vec<String>),
    /// `inet filter input`, and the rule.
    Nft { place: String, rule: String },
    /// Below /proc/sys, to 0.
    Off(&'static str),
}

/// What to let through.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub what: &'a What,
    /// VXLAN's, or DHCP's.
    pub port: u16,
    /// The other VTEPs, as prefixes or addresses.
    pub others: &'a [String],
    /// The devices by which they come.
    pub uplinks: &'a [String],
    /// No rule is about another bridge.
    pub alone: bool,
}

/// The files of this host that keep rules for the next boot, with what they say: iptables-persistent's, those of RHEL's services, nftables'.
#[derive(Debug, Default)]
pub struct Kept(pub Vec<(&'static str, String)>);

/// Of IPv4's iptables, of IPv6's, and of nft.
pub const KEPT: [[&str; 2]; 3] = [
    ["/etc/sysconfig/iptables", "/etc/iptables/rules.v4"],
    ["/etc/sysconfig/ip6tables", "/etc/iptables/rules.v6"],
    ["/etc/sysconfig/nftables.conf", "/etc/nftables.conf"],
];

impl Kept {
    /// The file among these whose text is so.
    fn file(&self, paths: [&str; 2], has: impl Fn(&str) -> bool) -> Lasts {
        let found = self.0.iter().find(|(path, text)| paths.contains(path) && has(text));
        found.map_or_else(|| Lasts::Not("it is gone with the next boot".into()), |(path, _)| Lasts::In(path))
    }

    /// Where a rule of this chain belongs.
    fn iptables(&self, v6: bool, table: &str, chain: &str) -> Lasts {
        self.file(KEPT[usize::from(v6)], |text| chains_of(text, table).any(|other| other == chain))
    }

    /// Where a rule of this place belongs: in a file that has its table. What a daemon writes is nobody else's to keep.
    fn nft(&self, place: &str) -> Lasts {
        let words: Vec<&str> = place.split(' ').collect();
        let [family, table, ..] = words[..] else { return Lasts::Not("nobody knows its table".into()) };
        if let Some((_, whose)) = DAEMONS.iter().find(|(name, _)| table.starts_with(name)) {
            return Lasts::Not(format!("the table is {whose}, which writes it anew"));
        }
        let heads = |line: &str| line.split_whitespace().take(3).eq(["table", family, table]);
        self.file(KEPT[2], |text| text.lines().any(heads))
    }
}

/// What a file or a program's output has of this table.
fn chains_of<'a>(text: &'a str, table: &'a str) -> impl Iterator<Item = &'a str> {
    let of_table = text.lines().skip_while(move |line| line.strip_prefix('*') != Some(table)).skip(1);
    of_table.take_while(|line| !line.starts_with('*')).filter_map(|line| line.strip_prefix(':')?.split(' ').next())
}

/// Whose tables of nft begin so.
const DAEMONS: [(&str, &str); 7] = [
    ("libvirt_network", "libvirt's"),
    ("proxmox-firewall", "Proxmox' firewall's"),
    ("kube-proxy", "kube-proxy's"),
    ("docker-bridges", "Docker's"),
    ("netavark", "Podman's"),
    ("lxc", "lxc-net's"),
    ("f2b-table", "fail2ban's"),
];

/// Whose rules look at bridged frames on purpose, by words in them: containers' networks, Proxmox, libvirt's nwfilter.
const BRIDGE_NF_WANTED: [&str; 11] = [
    "--physdev-",
    "DOCKER",
    "docker",
    "KUBE-",
    "kube-proxy",
    "PVEFW-",
    "cali-",
    "CNI-",
    "FLANNEL",
    "CILIUM",
    "NETAVARK",
];

/// In order of preference.
pub fn candidates(wanted: &Wanted, rules: &Ruleset, kept: &Kept) -> Vec<Candidate> {
    let mut found = Vec::new();
    found.extend(firewalld(wanted, rules));
    for saved in rules.saved.iter().filter(|saved| saved.v6 == wanted.what.is_v6()) {
        found.extend(ufw(wanted, saved));
        found.extend(proxmox(wanted, saved));
        found.extend(iptables(wanted, saved, kept));
    }
    found.extend(nft(wanted, rules, kept));
    // It is for all bridges of the host.
    if let What::Bridged { v6, .. } = wanted.what
        && wanted.alone
        && !rules.has(&BRIDGE_NF_WANTED)
    {
        let path = if *v6 { "net/bridge/bridge-nf-call-ip6tables" } else { "net/bridge/bridge-nf-call-iptables" };
        let shown = format!("sysctl -w {}=0", path.replace('/', "."));
        found.push(Candidate { shown, lasts: Lasts::In("/etc/sysctl.d"), change: Change::Off(path) });
    }
    found
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// As iptables takes it.
fn spec(wanted: &Wanted) -> String {
    let (port, others) = (wanted.port, wanted.others.join(","));
    match wanted.what {
        What::Tunnel { out: false, .. } => format!("-p udp -s {others} --dport {port}"),
        What::Tunnel { out: true, .. } => format!("-p udp -d {others} --dport {port}"),
        What::Dhcp { device, .. } => format!("-i {device} -p udp --dport {port}"),
        What::Bridged { bridge, .. } => format!("-i {bridge} -o {bridge} -m physdev --physdev-is-bridged"),
        What::Routed { vrf, out, .. } => format!("-i {vrf} -o {out}"),
    }
}

/// As nft takes it.
fn rule(wanted: &Wanted) -> String {
    let port = wanted.port;
    let ip = if wanted.what.is_v6() { "ip6" } else { "ip" };
    let others = match wanted.others {
        [one] => one.clone(),
        more => format!("{{ {} }}", more.join(", ")),
    };
    match wanted.what {
        What::Tunnel { out: false, .. } => format!("{ip} saddr {others} udp dport {port} accept"),
        What::Tunnel { out: true, .. } => format!("{ip} daddr {others} udp dport {port} accept"),
        What::Dhcp { device, .. } => format!("iifname \"{device}\" udp dport {port} accept"),
        What::Bridged { bridge, .. } => format!("iifname \"{bridge}\" oifname \"{bridge}\" accept"),
        What::Routed { vrf, out, .. } => format!("iifname \"{vrf}\" oifname \"{out}\" accept"),
    }
}

/// The chain by whose rules firewalld chooses a zone for what comes in, of up to 1.3 and from 2.0 on (its src/firewall/core/nftables.py and ipXtables.py,
/// `build_zone_ingress_rules` and `build_policy_…`), behind a prefix where it uses nft.
const CHOOSES: [&str; 2] = ["INPUT_ZONES", "INPUT_POLICIES"];

/// firewalld's zones.
pub struct Zones<'a> {
    /// It uses iptables, and these are its rules.
    saved: Option<&'a Saved>,
    /// Where each rule sends which device; none is any: the last such is the default zone.
    rules: Vec<(Option<&'a str>, &'a str)>,
}

impl<'a> Zones<'a> {
    /// Where firewalld runs.
    pub fn of(rules: &'a Ruleset, v6: bool) -> Option<Zones<'a>> {
        if rules.nft.contains("table inet firewalld {") {
            let chooses = |line: &&str| CHOOSES.iter().any(|chain| line.trim() == format!("chain filter_{chain} {{"));
            let chain =
                rules.nft.lines().skip_while(|line| !chooses(line)).skip(1).take_while(|line| line.trim() != "}");
            return Some(Zones { saved: None, rules: chain.filter_map(chosen).collect() });
        }
        let chooses = |line: &&str| CHOOSES.iter().any(|chain| line.contains(&format!("-A {chain} ")));
        let is_its = |saved: &&Saved| saved.v6 == v6 && CHOOSES.iter().any(|chain| has_chain(saved, chain));
        let saved = rules.saved.iter().find(is_its)?;
        Some(Zones { saved: Some(saved), rules: saved.text.lines().filter(chooses).filter_map(chosen).collect() })
    }

    /// The zone that a device is in.
    fn of_device(&self, device: &str) -> Option<&'a str> {
        // From 2.0 on the chains of policies are asked before the zone's.
        let last = |of: Option<&str>| self.rules.iter().rfind(|(other, _)| *other == of).map(|(_, zone)| *zone);
        last(Some(device)).or_else(|| last(None))
    }

    /// The zone of a device, where no other is in it and it is not the default one.
    pub fn own(&self, device: &str) -> Option<&'a str> {
        let is_its = |zone: &&str| self.rules.iter().all(|(other, its)| its != zone || *other == Some(device));
        self.of_device(device).filter(is_its)
    }

    fn allow(&self, zone: &str, iptables: &str, nft: String) -> Change {
        match self.saved {
            Some(saved) => {
                Change::Iptables(words(&format!("{} -I IN_{zone}_allow {iptables} -j ACCEPT", saved.program)))
            }
            None => Change::Nft { place: format!("inet firewalld filter_IN_{zone}_allow"), rule: nft },
        }
    }
}

/// `iifname "eth0" goto filter_IN_public`, `-A INPUT_POLICIES -i eth0 -j IN_public`: the device and the zone. Not one that asks for an address, which is another
/// way into a zone, or sends to a policy.
fn chosen(line: &str) -> Option<(Option<&str>, &str)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |names: [&str; 2]| words.iter().position(|word| names.contains(word)).and_then(|at| words.get(at + 1));
    let target = after(["goto", "-g"]).or_else(|| after(["jump", "-j"]))?;
    let zone = target.strip_prefix("filter_IN_").or_else(|| target.strip_prefix("IN_"))?;
    let by_address = after(["saddr", "-s"]).is_some() || zone.starts_with("policy_");
    (!by_address).then(|| (after(["iifname", "-i"]).map(|device| device.trim_matches('"')), zone))
}

/// In the zone that the device is in, now and for the next boot. Both take a while, and neither touches any other rule, as a reload would. Other VTEPs get a rich
/// rule; one for a device there is not, so a network's DHCP server is let in where the bridge has its zone for itself.
fn firewalld(wanted: &Wanted, rules: &Ruleset) -> Vec<Candidate> {
    let v6 = wanted.what.is_v6();
    let Some(zones) = Zones::of(rules, v6) else { return Vec::new() };
    let one = |zone: &str, opened: &[String], iptables: &str, nft: String| {
        let command = |open: &String| {
            format!("firewall-cmd --zone={zone} {open} && firewall-cmd --permanent --zone={zone} {open}")
        };
        let shown = opened.iter().map(command).collect::<Vec<_>>().join(" && ");
        Candidate { shown, lasts: Lasts::Itself, change: zones.allow(zone, iptables, nft) }
    };
    match wanted.what {
        What::Tunnel { out: false, .. } => {
            let (family, port) = (if v6 { "ipv6" } else { "ipv4" }, wanted.port);
            let rich = |other: &String| {
                format!(
                    "--add-rich-rule='rule family=\"{family}\" source address=\"{other}\" port port=\"{port}\" protocol=\"udp\" accept'"
                )
            };
            let rich: Vec<String> = wanted.others.iter().map(rich).collect();
            let mut found: Vec<&str> = Vec::new();
            for zone in wanted.uplinks.iter().filter_map(|device| zones.of_device(device)) {
                found.extend((!found.contains(&zone)).then_some(zone));
            }
            found.into_iter().map(|zone| one(zone, &rich, &spec(wanted), rule(wanted))).collect()
        }
        What::Dhcp { device, .. } => {
            let (service, port) = (if v6 { "dhcpv6" } else { "dhcp" }, wanted.port);
            let opened = [format!("--add-service={service}")];
            let to = |zone| one(zone, &opened, &format!("-p udp --dport {port}"), format!("udp dport {port} accept"));
            zones.own(device).map(to).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn has_chain(saved: &Saved, chain: &str) -> bool {
    saved.text.contains(&format!("\n:{chain} "))
}

/// ufw(8). What it adds comes after its earlier rules; what it prepends, before them.
fn ufw(wanted: &Wanted, saved: &Saved) -> Vec<Candidate> {
    let prefix = if saved.v6 { "ufw6-user" } else { "ufw-user" };
    let port = wanted.port;
    let (chain, said): (_, Vec<String>) = match wanted.what {
        What::Tunnel { out: false, .. } => (
            format!("{prefix}-input"),
            wanted.others.iter().map(|other| format!("allow proto udp from {other} to any port {port}")).collect(),
        ),
        What::Tunnel { out: true, .. } => (
            format!("{prefix}-output"),
            wanted.others.iter().map(|other| format!("allow out proto udp to {other} port {port}")).collect(),
        ),
        What::Dhcp { device, .. } => {
            (format!("{prefix}-input"), vec![format!("allow in on {device} to any port {port} proto udp")])
        }
        What::Bridged { bridge, .. } => {
            (format!("{prefix}-forward"), vec![format!("allow in on {bridge} out on {bridge}")])
        }
        What::Routed { vrf, out, .. } => (format!("{prefix}-forward"), vec![format!("allow in on {vrf} out on {out}")]),
    };
    if !has_chain(saved, &chain) {
        return Vec::new();
    }
    let route = if matches!(wanted.what, What::Tunnel { .. } | What::Dhcp { .. }) { "" } else { "route " };
    let spec = match wanted.what {
        What::Bridged { bridge, .. } => format!("-i {bridge} -o {bridge}"),
        _ => spec(wanted),
    };
    let one = |(how, flag): (&str, &str)| {
        let shown = said.iter().map(|said| format!("ufw {route}{how}{said}")).collect::<Vec<_>>().join(" && ");
        let change = Change::Iptables(words(&format!("{} {flag} {chain} {spec} -j ACCEPT", saved.program)));
        Candidate { shown, lasts: Lasts::Itself, change }
    };
    [("", "-A"), ("prepend ", "-I")].into_iter().map(one).collect()
}

/// A rule of the host's own in /etc/pve/nodes/NODE/host.fw, by Proxmox' API; what it accepts returns from its chain (PVE::Firewall `enable_host_firewall`).
fn proxmox(wanted: &Wanted, saved: &Saved) -> Vec<Candidate> {
    let others = wanted.others.join(",");
    let (chain, kind, whom) = match wanted.what {
        What::Tunnel { out: false, .. } => ("PVEFW-HOST-IN", "in", format!("source {others}")),
        What::Tunnel { out: true, .. } => ("PVEFW-HOST-OUT", "out", format!("dest {others}")),
        What::Dhcp { device, .. } => ("PVEFW-HOST-IN", "in", format!("iface {device}")),
        _ => return Vec::new(),
    };
    if !has_chain(saved, chain) {
        return Vec::new();
    }
    let shown = format!(
        "pvesh create /nodes/$(hostname)/firewall/rules --enable 1 --type {kind} --action ACCEPT --proto udp --dport {} --{whom}",
        wanted.port
    );
    let change = Change::Iptables(words(&format!("{} -I {chain} {} -j RETURN", saved.program, spec(wanted))));
    vec![Candidate { shown, lasts: Lasts::Itself, change }]
}

/// Before all other rules of the chain that the kernel calls, in each table that there is; with Docker in the chain that it leaves to others.
fn iptables(wanted: &Wanted, saved: &Saved, kept: &Kept) -> Vec<Candidate> {
    let chains: &[(&str, &str)] = match wanted.what {
        What::Tunnel { out: false, .. } | What::Dhcp { .. } => {
            &[("filter", "INPUT"), ("mangle", "INPUT"), ("mangle", "PREROUTING"), ("raw", "PREROUTING")]
        }
        What::Tunnel { out: true, .. } => {
            &[("filter", "OUTPUT"), ("mangle", "OUTPUT"), ("mangle", "POSTROUTING"), ("raw", "OUTPUT")]
        }
        _ => &[("filter", "DOCKER-USER"), ("filter", "FORWARD"), ("mangle", "FORWARD")],
    };
    let there = |(table, chain): &&(&str, &str)| chains_of(&saved.text, table).any(|other| other == *chain);
    let one = |(table, chain): &(&str, &str)| {
        let lasts = kept.iptables(saved.v6, table, chain);
        let table = if *table == "filter" { String::new() } else { format!(" -t {table}") };
        let shown = format!("{}{table} -I {chain} {} -j ACCEPT", saved.program, spec(wanted));
        Candidate { change: Change::Iptables(words(&shown)), shown, lasts }
    };
    chains.iter().filter(there).map(one).collect()
}

/// Before all other rules of each chain of nft's own that the kernel calls; firewalld's are its own, and it would take the rule out again.
fn nft(wanted: &Wanted, rules: &Ruleset, kept: &Kept) -> Vec<Candidate> {
    let hooks: &[&str] = match wanted.what {
        What::Tunnel { out: false, .. } | What::Dhcp { .. } => &["input", "prerouting"],
        What::Tunnel { out: true, .. } => &["output", "postrouting"],
        _ => &["forward"],
    };
    let family = if wanted.what.is_v6() { "ip6" } else { "ip" };
    let fits = |base: &&super::ruleset::Base| {
        let its = base.family == "inet" || base.family == family;
        its && hooks.contains(&base.hook.as_str()) && !base.place.starts_with("inet firewalld ")
    };
    let one = |base: &super::ruleset::Base| {
        let (place, rule) = (base.place.clone(), rule(wanted));
        let shown = format!("nft 'insert rule {place} {rule}'");
        Candidate { shown, lasts: kept.nft(&place), change: Change::Nft { place, rule } }
    };
    let mut found: Vec<Candidate> = Vec::new();
    for hook in hooks {
        found.extend(rules.chains.iter().filter(fits).filter(|base| base.hook == *hook).map(one));
    }
    found
}

/// What a person runs: all of it, and where it is to be kept.
pub fn command(parts: &[&Candidate]) -> String {
    let commands: Vec<&str> = parts.iter().map(|part| part.shown.as_str()).collect();
    let (mut files, mut whys) = (Vec::new(), Vec::new());
    for part in parts {
        match &part.lasts {
            Lasts::Itself => {}
            Lasts::In(file) if files.contains(file) => {}
            Lasts::In(file) => files.push(*file),
            Lasts::Not(why) if whys.contains(&why.as_str()) => {}
            Lasts::Not(why) => whys.push(why.as_str()),
        }
    }
    let mut said = Vec::new();
    if !files.is_empty() {
        said.push(format!("to last, also in {}", files.join(", ")));
    }
    if !whys.is_empty() {
        let rest = if files.is_empty() { "does not last" } else { "the rest does not last" };
        said.push(format!("{rest}: {}", whys.join(", ")));
    }
    let keep = if said.is_empty() { String::new() } else { format!(" # {}", said.join("; ")) };
    commands.join(" && ") + &keep
}

#[cfg(test)]
mod tests {
    use super::super::ruleset::Base;
    use super::*;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    const IN: What = What::Tunnel { own: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 4789), out: false };

    fn saved(text: &str) -> Ruleset {
        let text =
            format!("# Generated by iptables-save\n*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n{text}COMMIT\n");
        Ruleset { saved: vec![Saved { program: "iptables", v6: false, text }], ..Ruleset::default() }
    }

    fn shown(what: &What, rules: &Ruleset) -> Vec<String> {
        let others = ["10.0.0.0/24".to_owned()];
        let uplinks = ["eth0".to_owned()];
        let wanted = Wanted { what, port: 4789, others: &others, uplinks: &uplinks, alone: true };
        candidates(&wanted, rules, &Kept::default()).into_iter().map(|candidate| candidate.shown).collect()
    }

    #[test]
    fn the_words_of_what_manages_the_rules_come_first() {
        let plain = "iptables -I INPUT -p udp -s 10.0.0.0/24 --dport 4789 -j ACCEPT";
        assert_eq!(shown(&IN, &saved("")), [plain]);
        let ufw = shown(&IN, &saved(":ufw-user-input - [0:0]\n"));
        assert_eq!(ufw[0], "ufw allow proto udp from 10.0.0.0/24 to any port 4789");
        assert_eq!(ufw[2], plain);
        let proxmox = shown(&IN, &saved(":PVEFW-HOST-IN - [0:0]\n"));
        assert!(proxmox[0].starts_with("pvesh create /nodes/$(hostname)/firewall/rules "), "{proxmox:?}");
        assert_eq!(
            shown(&What::Tunnel { own: "[c0d1::1]:4789".parse().unwrap(), out: false }, &saved("")),
            [""; 0],
            "of the other family nobody asked"
        );
    }

    #[test]
    fn firewalld_is_asked_for_the_zone_that_the_uplink_is_in() {
        let chains = "table inet firewalld {\n\tchain filter_INPUT_ZONES {\n\t\tiifname \"eth0\" goto filter_IN_internal\n\t\tgoto filter_IN_public\n\t}\n}\n";
        let rules = |uplink: &str| Ruleset { nft: chains.replace("eth0", uplink), ..Ruleset::default() };
        let zone = |rules: &Ruleset| shown(&IN, rules)[0].split(' ').nth(1).unwrap().to_owned();
        assert_eq!(zone(&rules("eth0")), "--zone=internal");
        assert_eq!(zone(&rules("eth00")), "--zone=public");
        // From 2.0 on.
        let chain = |zone: &str, device: &str| {
            format!(
                "\t\t{device}jump filter_IN_policy_allow-host-ipv6\n\t\t{device}jump filter_IN_{zone}\n\t\t{device}reject\n"
            )
        };
        let by_address = "\t\tip saddr 10.9.0.0/16 jump filter_IN_trusted\n";
        let lists = [by_address, &chain("internal", "iifname \"eth0\" "), &chain("public", "")].concat();
        let jumps = format!(
            "table inet firewalld {{\n\tchain filter_INPUT_POLICIES {{\n{lists}\t}}\n\tchain filter_IN_public {{\n\t\tjump filter_IN_public_pre\n\t}}\n}}\n"
        );
        let rules = |uplink: &str| Ruleset { nft: jumps.replace("eth0", uplink), ..Ruleset::default() };
        assert_eq!(zone(&rules("eth0")), "--zone=internal");
        assert_eq!(zone(&rules("eth00")), "--zone=public");
        let iptables = "[0:0] -A INPUT_ZONES -i eth0 -g IN_internal\n[0:0] -A INPUT_ZONES -g IN_public\n";
        assert_eq!(zone(&saved(&format!(":INPUT_ZONES - [0:0]\n{iptables}"))), "--zone=internal");
        let iptables = iptables.replace("ZONES", "POLICIES").replace("-g", "-j").replace("eth0", "eth00");
        assert_eq!(zone(&saved(&format!(":INPUT_POLICIES - [0:0]\n{iptables}"))), "--zone=public");
    }

    #[test]
    fn a_service_is_let_into_a_zone_that_is_the_bridges_own() {
        let dhcp = What::Dhcp { network: "red".into(), device: "red-l2".into(), v6: false };
        let zones = |more: &str| Ruleset {
            nft: format!(
                "table inet firewalld {{\n\tchain filter_INPUT_ZONES {{\n\t\tiifname \"red-l2\" goto filter_IN_guests\n{more}\t\tgoto filter_IN_public\n\t}}\n}}\n"
            ),
            ..Ruleset::default()
        };
        let service = "firewall-cmd --zone=guests --add-service=dhcp && firewall-cmd --permanent --zone=guests --add-service=dhcp";
        assert_eq!(shown(&dhcp, &zones("")), [service]);
        assert_eq!(
            shown(&dhcp, &zones("\t\tiifname \"eth0\" goto filter_IN_guests\n")),
            [""; 0],
            "it has another device"
        );
        let other = What::Dhcp { network: "blue".into(), device: "blue-l2".into(), v6: false };
        assert_eq!(shown(&other, &zones("")), [""; 0], "the default zone is everybody's");
    }

    #[test]
    fn bridged_frames_are_kept_from_a_firewall_only_where_nothing_else_helps() {
        let bridged = What::Bridged { network: "red".into(), bridge: "red-l2".into(), v6: false };
        let off = "sysctl -w net.bridge.bridge-nf-call-iptables=0";
        let rule = "-i red-l2 -o red-l2 -m physdev --physdev-is-bridged -j ACCEPT";
        assert_eq!(shown(&bridged, &saved("")), [format!("iptables -I FORWARD {rule}"), off.to_owned()]);
        let docker = shown(&bridged, &saved(":DOCKER-USER - [0:0]\n"));
        assert_eq!(docker, [format!("iptables -I DOCKER-USER {rule}"), format!("iptables -I FORWARD {rule}")]);
    }

    #[test]
    fn nft_gets_a_rule_in_each_chain_that_the_kernel_calls() {
        let base = |place: &str, hook: &str| Base { place: place.into(), family: "inet".into(), hook: hook.into() };
        let chains =
            vec![base("inet fw fwd", "forward"), base("inet fw in", "input"), base("inet firewalld x", "input")];
        let rules = Ruleset { chains, ..Ruleset::default() };
        assert_eq!(shown(&IN, &rules), ["nft 'insert rule inet fw in ip saddr 10.0.0.0/24 udp dport 4789 accept'"]);
        let routed = What::Routed { network: "red".into(), vrf: "red".into(), out: "red-l3".into(), v6: false };
        assert_eq!(shown(&routed, &rules), ["nft 'insert rule inet fw fwd iifname \"red\" oifname \"red-l3\" accept'"]);
    }

    #[test]
    fn where_it_is_kept_is_said_once_and_harms_no_shell() {
        let part = |shown: &str, lasts: Lasts| Candidate { shown: shown.into(), lasts, change: Change::Off("x") };
        let (file, not) = (|| Lasts::In("/etc/f"), || Lasts::Not("it is X's".into()));
        assert_eq!(command(&[&part("a", Lasts::Itself), &part("b", Lasts::Itself)]), "a && b");
        assert_eq!(command(&[&part("a", file()), &part("b", file())]), "a && b # to last, also in /etc/f");
        assert_eq!(command(&[&part("a", not()), &part("b", not())]), "a && b # does not last: it is X's");
        let both = command(&[&part("a", file()), &part("b", not())]);
        assert_eq!(both, "a && b # to last, also in /etc/f; the rest does not last: it is X's");
    }

    #[test]
    fn a_file_is_named_where_it_has_the_table() {
        let v4 = ("/etc/iptables/rules.v4", "# by a person\n*filter\n:INPUT DROP [0:0]\nCOMMIT\n".to_owned());
        let nft = ("/etc/nftables.conf", "flush ruleset\ntable inet filter {\n}\n".to_owned());
        let kept = Kept(vec![v4, nft]);
        let gone = || Lasts::Not("it is gone with the next boot".into());
        assert_eq!(kept.iptables(false, "filter", "INPUT"), Lasts::In("/etc/iptables/rules.v4"));
        assert_eq!(kept.iptables(false, "raw", "PREROUTING"), gone());
        assert_eq!(kept.iptables(true, "filter", "INPUT"), gone(), "iptables-restore takes no IPv6 address");
        assert_eq!(kept.nft("inet filter input"), Lasts::In("/etc/nftables.conf"));
        assert_eq!(kept.nft("ip filter input"), gone());
        let whose = Lasts::Not("the table is libvirt's, which writes it anew".into());
        assert_eq!(kept.nft("ip libvirt_network guest_input"), whose);
    }
}
