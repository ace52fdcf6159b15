//! The host's rules as its programs print them, and what can be told of them without evaluating one.

use crate::exec;
use crate::kernel::nft_tables;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

/// A ruleset of 20,000 rules, in bytes.
const LONG: usize = 8 << 20;

/// What one of iptables' programs printed.
#[derive(Debug, Clone, PartialEq, Eq)]
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

#[derive(Debug, Clone, Default)]
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

    /// The rules that leave packets to a program, which may let them through: in a copy nobody listens.
    pub fn queues(&self) -> Vec<String> {
        self.picked(|line| queue(line).is_some())
    }

    /// The same rules, as if every such program let everything through.
    pub fn without_queues(&self) -> Ruleset {
        let all = |text: &str| text.lines().map(|line| let_through(line) + "\n").collect::<String>();
        let saved = |saved: &Saved| Saved { text: all(&saved.text), ..saved.clone() };
        Ruleset { saved: self.saved.iter().map(saved).collect(), nft: all(&self.nft), ..self.clone() }
    }

    /// Does a rule ask whose socket a packet is from? VXLAN's is nobody's.
    pub fn asks_for_owner(&self) -> bool {
        self.texts().flat_map(str::lines).filter(|line| OWNER.iter().any(|word| line.contains(word))).any(|line| {
            let line = blanked(line);
            OWNER.iter().any(|word| line.split_whitespace().any(|other| other == *word))
        })
    }

    /// The rules that ask for what a device that plays a VRF does not have: where the route back leads, a group, a kind.
    pub fn only_with_vrf(&self, v6: bool) -> Vec<String> {
        let of_other = if v6 { "meta nfproto ipv4" } else { "meta nfproto ipv6" };
        let asks = |line: &str| {
            if !line.contains("fib") && !VRF.iter().any(|word| line.contains(word)) {
                return false;
            }
            let line = blanked(line);
            let has = |word: &str| line.split_whitespace().any(|other| other == word);
            let back = has("fib") && (has("iif") || has("oif") || has("oifname"));
            !line.contains(of_other) && (back || VRF.iter().any(|word| has(word)))
        };
        let other = |saved: &&Saved| saved.v6 == v6;
        picked(self.saved.iter().filter(other), &self.nft, asks)
    }

    /// The words of nft's that may be names of devices: it loads no rule for one that is not there (`iif`, `flowtable`, family netdev).
    pub fn words(&self) -> BTreeSet<&str> {
        let apart = |c: char| c.is_whitespace() || matches!(c, '"' | ',' | ';' | '{' | '}');
        self.nft.split(apart).filter(|word| !word.is_empty()).collect()
    }

    /// The rules that have one of these words, with their counters, as they were printed; none where the time was up first.
    pub fn naming(&self, words: &[&str], until: Instant) -> Option<Vec<String>> {
        let mut late = false;
        let found = self.picked(|line| {
            late = late || Instant::now() >= until;
            !late && words.iter().any(|word| names(line, word))
        });
        (!late).then_some(found)
    }

    fn picked(&self, is: impl FnMut(&str) -> bool) -> Vec<String> {
        picked(self.saved.iter(), &self.nft, is)
    }

    /// Every word that may be a name, or the beginning of names (`vnet+`, `vnet*`).
    pub fn all_words(&self) -> BTreeSet<&str> {
        let apart = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '*'));
        self.texts().flat_map(|text| text.split(apart)).filter(|word| !word.is_empty()).collect()
    }
}

fn picked<'a>(saved: impl Iterator<Item = &'a Saved>, nft: &str, mut is: impl FnMut(&str) -> bool) -> Vec<String> {
    let mut is_rule = |line: &&str| !line.starts_with([':', '#', '*']) && is(line);
    let mut found = Vec::new();
    for saved in saved {
        found.extend(saved.text.lines().filter(&mut is_rule).map(|line| format!("{}: {line}", saved.program)));
    }
    found.extend(nft.lines().map(str::trim).filter(&mut is_rule).map(|line| format!("nft: {line}")));
    found
}

/// Does a rule have this word, or one that begins so?
fn names(line: &str, word: &str) -> bool {
    // Of an IPv6 address a colon is a part; of ports it is between.
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') || c == ':' && word.contains(':');
    let whole = |(at, _): (usize, &str)| !line[..at].ends_with(inner) && !line[at + word.len()..].starts_with(inner);
    line.match_indices(word).any(whole)
        || line.contains(['+', '*']) && line.split([' ', '"']).any(|part| is_beginning(part, word))
}

/// `vnet+`, `vnet*`
pub fn is_beginning(part: &str, word: &str) -> bool {
    part.strip_suffix(['+', '*']).is_some_and(|begin| !begin.is_empty() && word.starts_with(begin))
}

/// `-m owner` (iptables-extensions(8)), `meta skuid`, `socket cgroupv2` (nft(8)).
const OWNER: [&str; 7] = ["--uid-owner", "--gid-owner", "--socket-exists", "skuid", "skgid", "cgroup", "cgroupv2"];
/// Of iptables-extensions(8) and nft(8), beside `fib`.
const VRF: [&str; 7] = ["rpfilter", "devgroup", "iifgroup", "oifgroup", "iifkind", "oifkind", "sdifname"];

/// As long as the line, with blanks for what is quoted: names and comments say anything.
fn blanked(line: &str) -> String {
    let parts = line.split('"').enumerate();
    let blank = |(n, part): (usize, &str)| if n % 2 == 0 { part.to_owned() } else { " ".repeat(part.len()) };
    parts.map(blank).collect::<Vec<_>>().join("\"")
}

/// Where in the line a packet is left to a program: iptables' `-j NFQUEUE` with its options, nft's `queue`, which a comment may follow, or another element.
fn queue(line: &str) -> Option<std::ops::Range<usize>> {
    if !line.contains("queue") && !line.contains("NFQUEUE") {
        return None;
    }
    let line = blanked(line);
    if let Some(at) = line.find("-j NFQUEUE") {
        return Some(at..line.len());
    }
    let heads = ["table ", "chain ", "set ", "map ", "-A ", ":", "["];
    if heads.iter().any(|head| line.trim_start().starts_with(head)) {
        return None;
    }
    let is_verdict = |(at, _): &(usize, &str)| {
        let before = line[..*at].split_whitespace().last().unwrap_or_default();
        let (left, right) = (line[..*at].chars().last(), line[at + 5..].chars().next());
        left.is_none_or(char::is_whitespace)
            && right.is_none_or(|c| c.is_whitespace() || c == ',')
            && !matches!(before, "jump" | "goto")
    };
    let at = line.match_indices("queue").find(is_verdict)?.0;
    let end = [" comment ", ", ", " }"].iter().filter_map(|end| line[at..].find(end)).min();
    Some(at..end.map_or(line.len(), |end| at + end))
}

fn let_through(line: &str) -> String {
    let mut line = line.to_owned();
    while let Some(range) = queue(&line) {
        let accept = if line[range.clone()].starts_with('-') { "-j ACCEPT" } else { "accept" };
        line.replace_range(range, accept);
    }
    line
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
    let missed = || match nft_tables() {
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
        let naming = |word: &str| rules().naming(&[word], Instant::now() + std::time::Duration::from_secs(9)).unwrap();
        let shown = naming("4789");
        let wanted = [
            "iptables: [7:84] -A INPUT -p udp -m udp --dport 4789 -j DROP",
            "nft: udp dport { 53, 4789 } counter packets 3 bytes 99 drop",
        ];
        assert_eq!(shown, wanted);
        assert_eq!((naming("478"), naming("99"), naming("INPUT").len()), (vec![], naming("4789")[1..].to_vec(), 1));
        assert_eq!(rules().naming(&["4789"], Instant::now()), None, "time was up");
    }

    #[test]
    fn a_name_is_a_whole_word_or_begins_so() {
        let line = "-A x -i vnet+ -m physdev --physdev-in tap0.1 -s fd00::1/128 --dports 53:4789";
        for word in ["vnet7", "tap0.1", "fd00::1", "4789", "53"] {
            assert!(names(line, word), "{word}");
        }
        for word in ["tap0", "fd00:", "vne", "478"] {
            assert!(!names(line, word), "{word}");
        }
        assert!(names("iifname \"tap*\" drop", "tap0"));
    }

    #[test]
    fn what_is_left_to_a_program() {
        assert!(rules().queues().is_empty() && !rules().is_empty() && Ruleset::default().is_empty());
        for (line, through) in [
            ("\t\tudp dport 4789 queue to 0", "\t\tudp dport 4789 accept"),
            ("iifname \"eth0\" udp dport 4789 queue to 0", "iifname \"eth0\" udp dport 4789 accept"),
            ("queue flags bypass,fanout to 1-3 comment \"a queue b\"", "accept comment \"a queue b\""),
            (
                "tcp dport vmap { 22 : accept, 23 : queue, 24 : queue to 0 }",
                "tcp dport vmap { 22 : accept, 23 : accept, 24 : accept }",
            ),
            (
                "[1:2] -A x -m comment --comment \"-j NFQUEUE\" -j NFQUEUE --queue-num 1",
                "[1:2] -A x -m comment --comment \"-j NFQUEUE\" -j ACCEPT",
            ),
        ] {
            let rules = Ruleset { nft: line.into(), ..Ruleset::default() };
            assert_eq!((rules.queues().len(), rules.without_queues().nft), (1, format!("{through}\n")), "{line}");
        }
        for line in
            ["iifname \"a queue b\" drop", "chain queue {", "jump queue", "-A x -j DROP", "[0:0] -A queue -j DROP"]
        {
            let rules = Ruleset { nft: line.into(), ..Ruleset::default() };
            assert_eq!((rules.queues().len(), rules.without_queues().nft), (0, format!("{line}\n")), "{line}");
        }
        assert!(rules().words().contains("lo"));
    }

    #[test]
    fn what_a_copy_cannot_play() {
        let of = |line: &str| Ruleset { nft: line.into(), ..Ruleset::default() };
        let firewalld = of("meta nfproto ipv6 fib saddr . mark . iif oif missing drop");
        assert_eq!((firewalld.only_with_vrf(true).len(), firewalld.only_with_vrf(false).len()), (1, 0));
        assert_eq!(of("fib daddr type local drop").only_with_vrf(true), [""; 0]);
        assert_eq!(of("-A x -m rpfilter --invert -j DROP").only_with_vrf(false).len(), 1);
        assert!(of("meta skuid 0 accept").asks_for_owner() && !of("comment \"skuid\" accept").asks_for_owner());
    }
}
