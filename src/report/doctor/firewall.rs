//! Does the host's firewall drop what the fabric needs: VXLAN's UDP at the host, and what a VRF forwards? Read from iptables-save and nft, walked as the kernel
//! would, as far as a rule can be told without a packet: a match that is not known here may be true or not.

use super::{Base, Finding};
use crate::exec;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the programs printed.
#[derive(Debug, Default)]
pub struct Ruleset {
    /// The program that changes the rules, and what its `-save` printed.
    iptables: Vec<(&'static str, String)>,
    /// `nft -j list ruleset`
    nft: Option<String>,
}

/// Asks whichever of the programs are there; why nobody could be asked where none is.
pub fn observe(patience: Duration, max: usize) -> Result<Ruleset, String> {
    let mut rules = Ruleset::default();
    let mut whys = Vec::new();
    let mut ask = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        match exec::run_up_to(max, command, Instant::now() + patience) {
            Ok(Some(ended)) if ended.status.success() && ended.output.len() < max => return Some(ended.output),
            Ok(Some(ended)) if ended.status.success() => whys.push(format!("{program} printed more than {max} bytes")),
            Ok(Some(ended)) => whys.push(format!("{program}: {}", ended.output.lines().next().unwrap_or("failed"))),
            Ok(None) => whys.push(format!("{program} did not end in {} s", patience.as_secs())),
            Err(error) => whys.push(format!("{program}: {error}")),
        }
        None
    };
    let programs = [
        ("iptables", "iptables-legacy", "/proc/net/ip_tables_names"),
        ("ip6tables", "ip6tables-legacy", "/proc/net/ip6_tables_names"),
    ];
    for (program, legacy, tables) in programs {
        let text = ask(&format!("{program}-save"), &[]);
        // The new ones do not show what the old ones have put into the kernel's old tables.
        let is_new = text.as_ref().is_none_or(|text| !text.contains("\n*") || text.contains("nf_tables"));
        rules.iptables.extend(text.map(|text| (program, text)));
        if is_new && std::fs::read_to_string(tables).is_ok_and(|names| !names.trim().is_empty()) {
            rules.iptables.extend(ask(&format!("{legacy}-save"), &[]).map(|text| (legacy, text)));
        }
    }
    rules.nft = ask("nft", &["-j", "list", "ruleset"]);
    if rules.nft.is_none() && rules.iptables.is_empty() { Err(whys.join("; ")) } else { Ok(rules) }
}

/// What a rule asks of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Match {
    /// True of what is asked for here, or false.
    Known(bool),
    /// Is of UDP.
    Udp(bool),
    /// Has this UDP destination port.
    Port(bool),
    /// Came in by, or goes out by, this device.
    Device(String),
    /// Not to be told.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Accept,
    Drop,
    Jump(String),
    Return,
    /// Counts, marks, logs.
    Goes,
}

#[derive(Debug, Clone)]
struct Rule {
    matches: Vec<Match>,
    target: Target,
    shown: String,
    /// The command that takes it out.
    undo: String,
}

#[derive(Debug, Default)]
struct Chain {
    /// `input`, `forward` …; none for one that is jumped to.
    hook: Option<String>,
    drops: bool,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Table {
    name: String,
    /// Of which family; both where none is said.
    v6: Option<bool>,
    chains: BTreeMap<String, Chain>,
}

/// What is asked for: VXLAN's UDP (the rules are read for its port), or what is forwarded between these devices.
enum Packet<'a> {
    Tunnel,
    Forwarded(&'a [String]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    Maybe,
    Yes,
}

impl Packet<'_> {
    fn fit(&self, rule: &Rule) -> Fit {
        let one = |wanted: &Match| match (wanted, self) {
            (Match::Known(true), _) | (Match::Udp(true) | Match::Port(true), Packet::Tunnel) => Fit::Yes,
            (Match::Known(false), _) | (Match::Udp(false) | Match::Port(false), Packet::Tunnel) => Fit::No,
            (Match::Device(name), Packet::Tunnel) if name == "lo" => Fit::No,
            (Match::Device(name), Packet::Forwarded(devices)) => {
                let is_it = |device: &String| match name.strip_suffix(['+', '*']) {
                    Some(prefix) => device.starts_with(prefix),
                    None => device == name,
                };
                if devices.iter().any(is_it) { Fit::Yes } else { Fit::No }
            }
            (Match::Udp(_) | Match::Port(_) | Match::Device(_) | Match::Unknown, _) => Fit::Maybe,
        };
        rule.matches.iter().map(one).min().unwrap_or(Fit::Yes)
    }

    /// Does the rule mean this packet by name?
    fn is_named(&self, rule: &Rule) -> bool {
        rule.matches.iter().any(|wanted| matches!((wanted, self), (Match::Port(true), Packet::Tunnel)))
    }
}

#[derive(Debug, Clone)]
enum Fate<'a> {
    Accepted,
    Dropped(&'a Rule),
    Through,
}

/// How a chain ends for a packet; `maybe` becomes true where it may have been accepted before.
fn walk<'a>(table: &'a Table, chain: &str, packet: &Packet, maybe: &mut bool, depth: u32) -> Fate<'a> {
    let Some(chain) = table.chains.get(chain).filter(|_| depth < 32) else { return Fate::Through };
    for rule in &chain.rules {
        let fit = packet.fit(rule);
        match &rule.target {
            _ if fit == Fit::No => {}
            Target::Drop if fit == Fit::Yes || packet.is_named(rule) => return Fate::Dropped(rule),
            Target::Accept if fit == Fit::Yes => return Fate::Accepted,
            Target::Accept => *maybe = true,
            Target::Return if fit == Fit::Yes => return Fate::Through,
            Target::Jump(to) => match walk(table, to, packet, maybe, depth + 1) {
                Fate::Through => {}
                fate if fit == Fit::Yes => return fate,
                Fate::Accepted => *maybe = true,
                Fate::Dropped(rule) if packet.is_named(rule) => return Fate::Dropped(rule),
                Fate::Dropped(_) => {}
            },
            Target::Drop | Target::Return | Target::Goes => {}
        }
    }
    Fate::Through
}

pub fn judge(base: &Base, rules: &Ruleset) -> Vec<Finding> {
    let mut found = Vec::new();
    if base.networks.is_empty() {
        return found;
    }
    let port = base.config.vtep.port;
    let (mut tables, mut unread) = (Vec::new(), None);
    for (program, text) in &rules.iptables {
        tables.extend(iptables(program, text, port));
    }
    if let Some(text) = &rules.nft {
        match nft(text, port, !rules.iptables.is_empty()) {
            Some(more) => tables.extend(more),
            None => unread = Some("nft's JSON cannot be read"),
        }
    }
    found.extend(unread.map(|why| Finding::not_checked("firewall", "nft", why)));
    let tunnels6: Vec<bool> = [false, true]
        .into_iter()
        .filter(|v6| base.networks.iter().any(|r| r.vtep.is_some_and(|vtep| vtep.is_ipv6() == *v6)))
        .collect();
    for table in tables.iter().filter(|table| table.v6.is_none_or(|v6| tunnels6.contains(&v6))) {
        for hook in ["prerouting", "input", "output"] {
            found.extend(fate(
                table,
                hook,
                &Packet::Tunnel,
                &format!("VXLAN (UDP {port})"),
                "the other VTEPs' and this host's UDP",
            ));
        }
    }
    for record in &base.networks {
        let Some(vrf) = &record.network.vrf else { continue };
        let l3 = vrf.l3_bridge().ok().flatten();
        let devices = [Some(vrf.name.clone()), Some(record.network.bridge.clone()), l3];
        let devices: Vec<String> = devices.into_iter().flatten().map(|name| name.to_string()).collect();
        let has = |v6: bool| record.network.gateway.iter().any(|g| g.addr().is_ipv6() == v6);
        for table in tables.iter().filter(|table| table.v6.is_none_or(has)) {
            let what = format!("what network {} forwards", record.network.name);
            found.extend(fate(
                table,
                "forward",
                &Packet::Forwarded(&devices),
                &what,
                &format!("what comes from and goes to {}", devices.join(", ")),
            ));
        }
    }
    found
}

fn fate(table: &Table, hook: &str, packet: &Packet, what: &str, to_accept: &str) -> Option<Finding> {
    let (name, chain) = table.chains.iter().find(|(_, chain)| chain.hook.as_deref() == Some(hook))?;
    let mut maybe = false;
    let place = format!("{} {name}", table.name);
    let unsure =
        || Finding::hint("firewall", &place, format!("may drop {what}: a rule before lets some of it through"));
    match walk(table, name, packet, &mut maybe, 0) {
        Fate::Accepted => None,
        Fate::Dropped(rule) if !maybe => {
            Some(Finding::problem("firewall", &place, format!("drops {what}: {}", rule.shown)).run(&rule.undo))
        }
        Fate::Through if chain.drops && !maybe => {
            let finding = Finding::problem(
                "firewall",
                &place,
                format!("drops {what}: its policy is drop, and no rule accepts it"),
            );
            Some(finding.by(format!("let the firewall accept {to_accept}")))
        }
        Fate::Through if !chain.drops => None,
        Fate::Dropped(_) | Fate::Through => Some(unsure()),
    }
}

// ----- iptables -----

fn iptables(program: &str, text: &str, port: u16) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            let name = format!("{program} {}", name.trim());
            tables.push(Table { name, v6: Some(program.starts_with("ip6")), chains: BTreeMap::new() });
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split_whitespace();
            let (Some(name), policy) = (words.next(), words.next()) else { continue };
            let builtin = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"].contains(&name);
            let hook = builtin.then(|| name.to_lowercase());
            table.chains.insert(name.to_owned(), Chain { hook, drops: policy == Some("DROP"), rules: Vec::new() });
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let (chain, words) = rule.split_once(' ').unwrap_or((rule, ""));
            let short = table.name.rsplit(' ').next().unwrap_or("filter").to_owned();
            let (matches, target) = rule_of(&split(words), port);
            let undo = format!("{program} -t {short} -D {rule}");
            let rule = Rule { matches, target, shown: format!("-A {rule}"), undo };
            table.chains.entry(chain.to_owned()).or_default().rules.push(rule);
        }
    }
    tables
}

/// Words, where a quoted one may have spaces.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            c => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

fn rule_of(words: &[String], port: u16) -> (Vec<Match>, Target) {
    let (mut matches, mut target, mut not) = (Vec::new(), Target::Goes, false);
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let inverted = std::mem::take(&mut not);
        let mut value = || words.next().unwrap_or_default();
        match word {
            "!" => not = true,
            "-p" => matches.push(Match::Udp(matches!(value(), "udp" | "17" | "all") != inverted)),
            "--dport" | "--dports" => matches.push(Match::Port(has_port(value(), port) != inverted)),
            "--state" | "--ctstate" => {
                let new = value().split(',').any(|state| state == "NEW" || state == "UNTRACKED");
                matches.push(Match::Known(new != inverted));
            }
            "-i" | "-o" => {
                let name = value().to_owned();
                matches.push(if inverted && name == "lo" {
                    Match::Known(true)
                } else if inverted {
                    Match::Unknown
                } else {
                    Match::Device(name)
                });
            }
            "-m" if matches!(value(), "udp" | "tcp" | "comment" | "state" | "conntrack" | "multiport") => {}
            "--comment" => drop(value()),
            "-j" | "-g" => {
                target = match value() {
                    "ACCEPT" => Target::Accept,
                    "DROP" | "REJECT" => Target::Drop,
                    "RETURN" => Target::Return,
                    "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "CHECKSUM" | "MASQUERADE" | "SNAT" | "DNAT"
                    | "CT" | "TRACE" => Target::Goes,
                    chain => Target::Jump(chain.to_owned()),
                };
                // What follows is the target's.
                break;
            }
            word if word.starts_with("--") && matches.last() == Some(&Match::Unknown) => {}
            _ => matches.push(Match::Unknown),
        }
    }
    (matches, target)
}

/// `4789`, `4000:5000`, `53,4789`
fn has_port(list: &str, port: u16) -> bool {
    list.split(',').any(|range| match range.split_once([':', '-']) {
        Some((low, high)) => (low.parse().unwrap_or(0)..=high.parse().unwrap_or(u16::MAX)).contains(&port),
        None => range.parse() == Ok(port),
    })
}

// ----- nft -----

/// None where it is no JSON of nft's. `twice`: what iptables-nft keeps there was read already.
fn nft(text: &str, port: u16, twice: bool) -> Option<Vec<Table>> {
    // A remark on old tables may stand before it.
    let json = text.lines().find(|line| line.starts_with('{'))?;
    let value: Value = serde_json::from_str(json).ok()?;
    let mut tables: BTreeMap<(String, String), Table> = BTreeMap::new();
    for item in value.get("nftables")?.as_array()? {
        let Some((kind, item)) = item.as_object().and_then(|item| item.iter().next()) else { continue };
        let word = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (family, table) = (word("family"), word("table"));
        let v6 = match family.as_str() {
            "ip" => Some(false),
            "ip6" => Some(true),
            "inet" => None,
            _ => continue,
        };
        if twice && v6.is_some() && ["filter", "nat", "mangle", "raw", "security"].contains(&table.as_str()) {
            continue;
        }
        let key = (family.clone(), table.clone());
        let name = format!("nft {family} {table}");
        let entry = || Table { name, v6, chains: BTreeMap::new() };
        match kind.as_str() {
            "chain" => {
                let hook = Some(word("hook")).filter(|hook| !hook.is_empty());
                let chain = Chain { hook, drops: word("policy") == "drop", rules: Vec::new() };
                tables.entry(key).or_insert_with(entry).chains.insert(word("name"), chain);
            }
            "rule" => {
                let (matches, target) = expressions(item.get("expr"), port);
                let handle = item.get("handle").and_then(Value::as_u64).unwrap_or(0);
                let chain = word("chain");
                let undo = format!("nft delete rule {family} {table} {chain} handle {handle}");
                let rule = Rule { matches, target, shown: format!("rule with handle {handle}"), undo };
                let table = tables.entry(key).or_insert_with(entry);
                table.chains.entry(chain).or_default().rules.push(rule);
            }
            _ => {}
        }
    }
    Some(tables.into_values().collect())
}

fn expressions(expr: Option<&Value>, port: u16) -> (Vec<Match>, Target) {
    let (mut matches, mut target) = (Vec::new(), Target::Goes);
    for (kind, body) in expr.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object).flatten() {
        match kind.as_str() {
            "match" => matches.push(match_of(body, port)),
            "accept" => target = Target::Accept,
            "drop" | "reject" => target = Target::Drop,
            "return" => target = Target::Return,
            "jump" | "goto" => {
                let to = body.get("target").and_then(Value::as_str).unwrap_or_default();
                target = Target::Jump(to.to_owned());
            }
            "counter" | "log" | "comment" | "mangle" | "notrack" => {}
            // A verdict map may accept it.
            "vmap" => (matches, target) = (vec![Match::Unknown], Target::Accept),
            _ => matches.push(Match::Unknown),
        }
    }
    (matches, target)
}

fn match_of(body: &Value, port: u16) -> Match {
    let at = |path: &str| body.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let inverted = at("/op") == "!=";
    let right = body.get("right").unwrap_or(&Value::Null);
    let has = |wanted: &dyn Fn(&Value) -> bool| match right {
        Value::Array(list) => list.iter().any(wanted),
        right => match right.get("set").and_then(Value::as_array) {
            Some(list) => list.iter().any(wanted),
            None => wanted(right),
        },
    };
    let word = |names: &[&str]| has(&|value: &Value| value.as_str().is_some_and(|word| names.contains(&word)));
    match (at("/left/meta/key"), at("/left/ct/key"), at("/left/payload/protocol"), at("/left/payload/field")) {
        // A named set is not read.
        _ if right.as_str().is_some_and(|word| word.starts_with('@')) => Match::Unknown,
        ("l4proto", ..) | (_, _, "ip", "protocol") | (_, _, "ip6", "nexthdr") => Match::Udp(word(&["udp"]) != inverted),
        (_, "state", ..) => Match::Known(word(&["new", "untracked"]) != inverted),
        ("iifname" | "oifname" | "iif" | "oif", ..) if !inverted => match right.as_str() {
            Some(name) => Match::Device(name.to_owned()),
            None => Match::Unknown,
        },
        (_, _, "udp" | "th", "dport") => {
            let is_it = |value: &Value| match value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
                Some([low, high]) => {
                    let number = |v: &Value| v.as_u64().unwrap_or(u64::MAX);
                    (number(low)..=number(high)).contains(&port.into())
                }
                _ => value.as_u64() == Some(port.into()),
            };
            Match::Port(has(&is_it) != inverted)
        }
        (_, _, "tcp" | "icmp" | "icmpv6" | "sctp", _) => Match::Udp(false),
        _ => Match::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::super::fixture::base;
    use super::*;

    fn filter(policies: [&str; 2], rules: &str) -> Ruleset {
        let [input, forward] = policies;
        let text = format!(
            "# Generated by iptables-save v1.8.9 on Mon\n*filter\n:INPUT {input} [0:0]\n:FORWARD {forward} [0:0]\n:OUTPUT ACCEPT [0:0]\n:OWN - [0:0]\n{rules}\nCOMMIT\n"
        );
        Ruleset { iptables: vec![("iptables", text)], nft: None }
    }

    /// The mends of what is a problem.
    fn mends(rules: &Ruleset) -> Vec<String> {
        let found = judge(&base(), rules).into_iter();
        found.filter(|finding| finding.severity == Severity::Problem).map(|finding| finding.mend).collect()
    }

    fn inputs(policy: &str, rules: &str) -> Vec<String> {
        mends(&filter([policy, "ACCEPT"], rules))
    }

    fn forwards(policy: &str, rules: &str) -> Vec<String> {
        mends(&filter(["ACCEPT", policy], rules))
    }

    const ACCEPT: &str = "let the firewall accept the other VTEPs' and this host's UDP";

    #[test]
    fn no_rules_drop_nothing() {
        assert_eq!(mends(&Ruleset::default()), [""; 0]);
        assert_eq!(inputs("ACCEPT", ""), [""; 0]);
        let mut nobody = base();
        nobody.networks.clear();
        assert_eq!(judge(&nobody, &filter(["DROP", "DROP"], "")), [], "nothing of ours is in its way");
    }

    #[test]
    fn a_rule_that_drops_vxlan_is_taken_out_by_its_own_words() {
        let drop = "INPUT -p udp -m udp --dport 4789 -j DROP";
        assert_eq!(inputs("ACCEPT", &format!("-A {drop}")), [format!("iptables -t filter -D {drop}")]);
        for rule in [
            "INPUT -p udp -m multiport --dports 53,4789 -j REJECT --reject-with icmp-port-unreachable",
            "INPUT -p udp -m udp --dport 4000:5000 -j DROP",
            "INPUT -s 10.0.0.2/32 -p udp -m udp --dport 4789 -j DROP",
            "INPUT ! -i lo -p udp -j DROP",
            "OUTPUT -p udp -m udp --dport 4789 -j DROP",
        ] {
            assert_eq!(inputs("ACCEPT", &format!("-A {rule}")), [format!("iptables -t filter -D {rule}")]);
        }
        assert_eq!(inputs("ACCEPT", "-A INPUT -j OWN\n-A OWN -p udp -m udp --dport 4789 -j DROP").len(), 1);
    }

    #[test]
    fn a_rule_that_means_others_is_none_of_ours() {
        for rule in [
            "-A INPUT -p tcp -m tcp --dport 4789 -j DROP",
            "-A INPUT -p udp -m udp --dport 53 -j DROP",
            "-A INPUT -p udp -m udp ! --dport 4789 -j DROP",
            "-A INPUT -i lo -p udp -j DROP",
            "-A INPUT -s 192.0.2.0/24 -j DROP",
            "-A OWN -p udp -m udp --dport 4789 -j DROP",
            "-A INPUT -p udp -m udp --dport 4789 -j ACCEPT\n-A INPUT -p udp -j DROP",
        ] {
            assert_eq!(inputs("ACCEPT", rule), [""; 0], "{rule}");
        }
    }

    #[test]
    fn a_policy_that_drops_wants_a_rule_that_accepts() {
        assert_eq!(inputs("DROP", ""), [ACCEPT]);
        let established = "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT";
        assert_eq!(inputs("DROP", established), [ACCEPT]);
        assert_eq!(inputs("DROP", "-A INPUT -p udp -m udp --dport 4789 -j ACCEPT"), [""; 0]);
        let some = filter(["DROP", "ACCEPT"], "-A INPUT -s 10.0.0.0/24 -p udp -m udp --dport 4789 -j ACCEPT");
        let found = judge(&base(), &some);
        assert_eq!(found.iter().map(|f| f.severity).collect::<Vec<_>>(), [Severity::Hint], "{found:?}");
    }

    #[test]
    fn what_a_vrf_forwards() {
        let wanted = "let the firewall accept what comes from and goes to red, red-l2, red-l3";
        assert_eq!(forwards("DROP", "-A FORWARD -o docker0 -j ACCEPT\n-A FORWARD -j OWN\n-A OWN -j RETURN"), [wanted]);
        assert_eq!(forwards("DROP", "-A FORWARD -i red+ -j ACCEPT"), [""; 0]);
        let libvirt = "-A FORWARD -j OWN\n-A OWN -d 10.1.0.0/24 -o red-l2 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A OWN -o red-l2 -j REJECT";
        assert_eq!(forwards("ACCEPT", libvirt), ["iptables -t filter -D OWN -o red-l2 -j REJECT"]);
        let mut layer2 = base();
        layer2.networks[0].network.vrf = None;
        assert_eq!(judge(&layer2, &filter(["ACCEPT", "DROP"], "")), []);
    }

    #[test]
    fn the_other_family_is_not_asked() {
        let text = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\nCOMMIT\n".to_owned();
        let rules = Ruleset { iptables: vec![("ip6tables", text)], nft: None };
        assert_eq!(mends(&rules), [""; 0]);
    }

    fn nft_rules(policy: &str, rules: &str) -> Ruleset {
        let chain = format!(
            r#"{{"chain":{{"family":"inet","table":"fw","name":"in","handle":1,"type":"filter","hook":"input","prio":0,"policy":"{policy}"}}}}"#
        );
        Ruleset { iptables: Vec::new(), nft: Some(format!(r#"{{"nftables":[{{"metainfo":{{}}}},{chain}{rules}]}}"#)) }
    }

    fn nft_rule(expr: &str) -> String {
        format!(r#",{{"rule":{{"family":"inet","table":"fw","chain":"in","handle":7,"expr":[{expr}]}}}}"#)
    }

    const UDP_4789: &str =
        r#"{"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"dport"}},"right":4789}}"#;

    #[test]
    fn the_same_in_nft() {
        let rule = |verdict: &str| nft_rule(&format!(r#"{UDP_4789},{{"counter":{{}}}},{verdict}"#));
        assert_eq!(mends(&nft_rules("accept", &rule(r#"{"drop":null}"#))), ["nft delete rule inet fw in handle 7"]);
        assert_eq!(mends(&nft_rules("drop", &rule(r#"{"accept":null}"#))), [""; 0]);
        assert_eq!(mends(&nft_rules("drop", "")), [ACCEPT]);
        let range = UDP_4789.replace("4789", r#"{"set":[53,{"range":[4000,5000]}]}"#);
        assert_eq!(mends(&nft_rules("accept", &nft_rule(&format!(r#"{range},{{"drop":null}}"#)))).len(), 1);
        let tcp = UDP_4789.replace("udp", "tcp");
        assert_eq!(mends(&nft_rules("accept", &nft_rule(&format!(r#"{tcp},{{"drop":null}}"#)))), [""; 0]);
        let known =
            r#"{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}},{"accept":null}"#;
        assert_eq!(mends(&nft_rules("drop", &nft_rule(known))), [ACCEPT]);
        let map = r#"{"vmap":{"key":{"meta":{"key":"l4proto"}},"data":"@verdicts"}}"#;
        assert_eq!(mends(&nft_rules("drop", &nft_rule(map))), [""; 0], "a map may accept it");
    }

    #[test]
    fn what_is_no_json_is_said() {
        let rules = Ruleset { iptables: Vec::new(), nft: Some("{ oops".into()) };
        assert_eq!(judge(&base(), &rules)[0].severity, Severity::NotChecked);
    }
}
