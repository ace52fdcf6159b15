//! The host's rules as its programs print them, and what can be told of them without evaluating one.

use super::tables;
use crate::exec;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

/// A ruleset of 20,000 rules, in bytes.
const LONG: usize = 8 << 20;

/// What one of iptables' programs printed.
#[derive(Debug, PartialEq, Eq)]
pub struct Saved {
    /// `iptables`, `ip6tables-legacy` …
    pub program: &'static str,
    pub v6: bool,
    /// With the rules' counters.
    pub text: String,
}

impl Saved {
    /// There is no table at all.
    pub fn is_empty(&self) -> bool {
        !self.text.lines().any(|line| line.starts_with('*'))
    }
}

/// A chain that the kernel calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// `inet filter input`
    pub place: String,
    /// `ip`, `ip6` or `inet`
    pub family: String,
    /// `input`, `forward` …
    pub hook: String,
}

#[derive(Debug, Default)]
pub struct Ruleset {
    pub saved: Vec<Saved>,
    /// `ipset save`, where a rule asks for a set.
    pub sets: Option<String>,
    /// `nft list ruleset`, without what is iptables' and without families that look at no IP packet.
    pub nft: String,
    /// Of it.
    pub chains: Vec<Base>,
    /// Why there may be more rules than these, nothing where these are all.
    pub untold: Vec<String>,
}

impl Ruleset {
    pub fn is_empty(&self) -> bool {
        self.nft.is_empty() && self.saved.iter().all(Saved::is_empty)
    }

    /// The whole text.
    fn texts(&self) -> impl Iterator<Item = &str> {
        self.saved.iter().map(|saved| saved.text.as_str()).chain([self.nft.as_str()])
    }

    pub fn has(&self, words: &[&str]) -> bool {
        self.texts().any(|text| words.iter().any(|word| text.contains(word)))
    }

    /// Does a rule leave packets to a program, which may let them through? In a copy nobody listens.
    pub fn hands_over(&self) -> bool {
        self.texts().any(|text| text.lines().any(|line| line.contains("-j NFQUEUE") || is_queue(line)))
    }

    /// The words of nft's that may be names of devices: it loads no rule for one that is not there (`iif`, `flowtable`, family netdev).
    pub fn words(&self) -> BTreeSet<&str> {
        let apart = |c: char| c.is_whitespace() || matches!(c, '"' | ',' | ';' | '{' | '}');
        self.nft.split(apart).filter(|word| !word.is_empty()).collect()
    }

    /// The rules that have one of these words, with their counters, as they were printed.
    pub fn naming(&self, words: &[&str]) -> Vec<String> {
        let names = |line: &str| {
            let apart = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            line.split(apart).any(|part| words.contains(&part))
        };
        let is_rule = |line: &&str| !line.starts_with([':', '#', '*']) && names(line);
        let mut found = Vec::new();
        for saved in &self.saved {
            found.extend(saved.text.lines().filter(is_rule).map(|line| format!("{}: {line}", saved.program)));
        }
        found.extend(self.nft.lines().map(str::trim).filter(is_rule).map(|line| format!("nft: {line}")));
        found
    }
}

fn is_queue(line: &str) -> bool {
    line.trim_start().starts_with("queue ") || line.contains(" queue ") && !line.contains('"')
}

/// Asks whichever of the programs are there. One that is not installed is missed only where the kernel has something that it would print; each other failure
/// leaves rules that nobody knows.
pub fn observe(until: Instant) -> Ruleset {
    let mut rules = Ruleset::default();
    let programs = [
        ("iptables", "iptables-legacy", "/proc/net/ip_tables_names", false),
        ("ip6tables", "ip6tables-legacy", "/proc/net/ip6_tables_names", true),
    ];
    for (program, legacy, tables, v6) in programs {
        let text = ask(&mut rules.untold, until, &format!("{program}-save"), &["-c"], || None);
        // The new ones do not show what the old ones have put into the kernel's old tables.
        let is_new = text.as_ref().is_none_or(|text| !text.contains("\n*") || text.contains("nf_tables"));
        rules.saved.extend(text.map(|text| Saved { program, v6, text }));
        if is_new && std::fs::read_to_string(tables).is_ok_and(|names| !names.trim().is_empty()) {
            let missed = || Some(format!("the kernel has what it would print ({tables})"));
            let text = ask(&mut rules.untold, until, &format!("{legacy}-save"), &["-c"], missed);
            rules.saved.extend(text.map(|text| Saved { program: legacy, v6, text }));
        }
    }
    let saved = std::mem::take(&mut rules.saved);
    let missed = || match tables::observe() {
        Ok(tables) => {
            let left = tables.into_iter().find(|table| !is_iptables(&saved, &table.family, &table.name))?;
            Some(format!("the kernel has table {} {}", left.family, left.name))
        }
        Err(error) => Some(format!("the kernel does not tell its tables: {error}")),
    };
    let listed = ask(&mut rules.untold, until, "nft", &["list", "ruleset"], missed);
    (rules.nft, rules.chains) = of_nft(&listed.unwrap_or_default(), &saved);
    rules.saved = saved;
    if rules.has(&["--match-set", "-j SET"]) {
        let missed = || Some("a rule asks for its sets".to_owned());
        rules.sets = ask(&mut rules.untold, until, "ipset", &["save"], missed);
    }
    rules
}

/// What it printed. Where it did not, why goes to `whys`; where it is not installed, only if something is missed then.
fn ask(
    whys: &mut Vec<String>,
    until: Instant,
    program: &str,
    args: &[&str],
    missed: impl FnOnce() -> Option<String>,
) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    let said = |words: &str| words.lines().next().unwrap_or("it failed").to_owned();
    let why = match exec::run_up_to(LONG, command, until) {
        Ok(Some(ended)) if ended.status.success() && ended.output.len() < LONG => return Some(ended.output),
        Ok(Some(ended)) if ended.status.success() => format!("it printed more than {LONG} bytes"),
        Ok(Some(ended)) => said(&ended.output),
        Ok(None) => "it did not end in time".into(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("it is not installed, and {}", missed()?),
        Err(error) => error.to_string(),
    };
    whys.push(format!("{program}: {why}"));
    None
}

/// Is this one of the tables that iptables-nft's programs print?
fn is_iptables(saved: &[Saved], family: &str, table: &str) -> bool {
    saved.iter().any(|saved| {
        let new = saved.text.contains("nf_tables") && family == if saved.v6 { "ip6" } else { "ip" };
        new && saved.text.lines().any(|line| line.strip_prefix('*') == Some(table))
    })
}

/// Without the tables that iptables-nft keeps there (its own programs print them, and nft cannot read all of what it prints of them), without the families
/// bridge and arp, and without owners: what an owner has goes with it (nft(8), `flags owner`).
fn of_nft(text: &str, saved: &[Saved]) -> (String, Vec<Base>) {
    let (mut kept, mut chains) = (String::new(), Vec::new());
    let mut table: Option<(&str, &str)> = None;
    let mut chain = "";
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["table", family, name, ..] if line.starts_with("table ") => {
                let looked_at = matches!(family, "ip" | "ip6" | "inet" | "netdev") && !is_iptables(saved, family, name);
                table = looked_at.then_some((family, name));
            }
            ["chain", name, "{", ..] => chain = name,
            ["type", "filter", "hook", hook, ..] => {
                chains.extend(table.map(|(family, table)| Base {
                    place: format!("{family} {table} {chain}"),
                    family: family.to_owned(),
                    hook: hook.to_owned(),
                }));
            }
            _ => {}
        }
        let Some(_) = table else { continue };
        kept += &match words[..] {
            ["flags", ..] if line.contains("owner") => {
                let others: Vec<&str> =
                    words[1..].iter().flat_map(|word| word.split(',')).filter(|flag| *flag == "dormant").collect();
                if others.is_empty() { String::new() } else { format!("\tflags {}\n", others.join(",")) }
            }
            _ => format!("{line}\n"),
        };
        if line == "}" {
            table = None;
        }
    }
    (kept, chains)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "# Warning: table ip filter is managed by iptables-nft, do not touch!\n\
        table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority filter; policy accept;\n\t\txt match \"comment\"\n\t}\n}\n\
        table inet firewalld {\n\tflags owner,persist\n\n\tchain filter_INPUT {\n\t\ttype filter hook input priority filter + 10; policy accept;\n\t\tiifname \"lo\" accept\n\t}\n}\n\
        table bridge evpn-hook {\n\tchain prerouting {\n\t\ttype filter hook prerouting priority 0; policy accept;\n\t}\n}\n\
        table ip other {\n\tchain c {\n\t\ttype filter hook forward priority filter; policy drop;\n\t\tudp dport { 53, 4789 } counter packets 3 bytes 99 drop\n\t}\n}\n";

    fn rules() -> Ruleset {
        let text = "# Generated by iptables-save v1.8.9 (nf_tables) on Mon\n*filter\n:INPUT ACCEPT [0:0]\n[7:84] -A INPUT -p udp -m udp --dport 4789 -j DROP\nCOMMIT\n";
        let saved = vec![Saved { program: "iptables", v6: false, text: text.into() }];
        let (nft, chains) = of_nft(LISTED, &saved);
        Ruleset { saved, nft, chains, ..Ruleset::default() }
    }

    #[test]
    fn what_is_iptables_is_not_read_twice_and_other_families_not_at_all() {
        let rules = rules();
        assert!(
            !rules.nft.contains("table ip filter") && !rules.nft.contains("bridge") && !rules.nft.contains("owner")
        );
        assert!(rules.nft.starts_with("table inet firewalld {\n\n\tchain"), "{}", rules.nft);
        let base = |place: &str, family: &str, hook: &str| Base {
            place: place.into(),
            family: family.into(),
            hook: hook.into(),
        };
        let expected = [base("inet firewalld filter_INPUT", "inet", "input"), base("ip other c", "ip", "forward")];
        assert_eq!(rules.chains, expected);
        assert!(of_nft(LISTED, &[]).0.contains("table ip filter"), "nobody else prints it");
    }

    #[test]
    fn the_rules_that_name_something_are_shown_with_their_counters() {
        let shown = rules().naming(&["4789"]);
        let wanted = [
            "iptables: [7:84] -A INPUT -p udp -m udp --dport 4789 -j DROP",
            "nft: udp dport { 53, 4789 } counter packets 3 bytes 99 drop",
        ];
        assert_eq!(shown, wanted);
        assert_eq!(rules().naming(&["478"]), [""; 0]);
    }

    #[test]
    fn what_is_left_to_a_program() {
        assert!(!rules().hands_over() && !rules().is_empty() && Ruleset::default().is_empty());
        let queue = Ruleset { nft: "\t\tudp dport 4789 queue to 0".into(), ..Ruleset::default() };
        assert!(queue.hands_over());
        assert!(rules().words().contains("lo"));
    }
}
