//! What is made of what the packets did. The packets themselves are in tests/cli/firewall.rs.

use super::super::fixture::{facts, host};
use super::super::{Facts, Finding, Severity};
use super::stage::What;
use super::told::RULES;
use super::tried::{ALWAYS, Verdict, Why, attempt, others};
use super::*;

fn verdict(what: What) -> Verdict {
    let mend = Some("mend it".to_owned());
    let lost = vec!["10.0.0.2".into()];
    Verdict { what, lost, of: 1, known: true, mend, blank: false, why: Why::Tried, naming: None }
}

fn seen(verdicts: Vec<Verdict>) -> FirewallFacts {
    FirewallFacts { bridge_nf: Vec::new(), untold: Vec::new(), tried: Ok(Tried { verdicts, ..Tried::default() }) }
}

fn tunnel() -> Verdict {
    verdict(What::Tunnel { own: "10.0.0.1:4789".parse().unwrap(), out: false })
}

fn bridged() -> Verdict {
    verdict(What::Bridged { network: "red".into(), bridge: "red-l2".into(), v6: false })
}

impl FirewallFacts {
    pub(in crate::checks) fn healthy() -> FirewallFacts {
        seen(Vec::new())
    }
}

fn finds(firewall: FirewallFacts) -> Vec<Finding> {
    check(&Facts { firewall, ..facts() })
}

fn only(firewall: FirewallFacts) -> Finding {
    let mut found = finds(firewall);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn what_is_lost_is_a_problem_where_that_is_certain() {
    assert_eq!(finds(seen(Vec::new())), []);
    let told = only(seen(vec![tunnel()]));
    assert_eq!((told.severity, told.runnable, told.mend.as_str()), (Severity::Problem, true, "mend it"));
    assert_eq!(told.evidence, "drops VXLAN from 10.0.0.2 (tried in a copy of this host's rules)");
    let guessed = only(seen(vec![Verdict { known: false, ..tunnel() }]));
    assert_eq!(guessed.severity, Severity::Warning, "nobody knows whether a VTEP is there");
    let blank = only(seen(vec![Verdict { known: false, blank: true, ..tunnel() }]));
    assert_eq!((blank.runnable, blank.mend.as_str()), (false, "with the other VTEPs' addresses for UNDERLAY: mend it"));
    for why in [Why::Queue, Why::Vrf, Why::Some] {
        let unsure = only(seen(vec![Verdict { why, mend: None, ..tunnel() }]));
        assert_eq!((unsure.severity, unsure.runnable), (Severity::Warning, false), "{why:?}");
    }
}

#[test]
fn without_a_mend_the_rules_are_shown() {
    let naming: Vec<String> = (0..9).map(|n| format!("iptables: [{n}:0] -A INPUT -p udp --dport 4789 -j X")).collect();
    let told = only(seen(vec![Verdict { mend: None, naming: Some(naming), ..tunnel() }]));
    assert!(
        !told.runnable
            && told.mend.starts_with(
                "judge yourself: no change that was tried lets it through; these of 9 rules name it: iptables: [0:0] "
            ),
        "{told}"
    );
    assert_eq!(told.mend.matches(" | ").count(), RULES - 1);
    let hurried = only(seen(vec![Verdict { mend: None, why: Why::Hurried, naming: Some(Vec::new()), ..tunnel() }]));
    assert_eq!(hurried.mend, "judge yourself: no rule names it, and there was no time to try a change");
    let none = only(seen(vec![Verdict { mend: None, why: Why::Hurried, ..tunnel() }]));
    assert!(none.mend.ends_with("and no time was left to look which rules name it"), "{none}");
}

#[test]
fn br_netfilter_is_told_once() {
    let on = |verdicts| FirewallFacts { bridge_nf: BRIDGE_NF.to_vec(), ..seen(verdicts) };
    let passes = only(on(Vec::new()));
    assert_eq!((passes.check, passes.severity, passes.mend.as_str()), ("bridge-nf-call", Severity::Hint, ""));
    let untold = finds(FirewallFacts { untold: vec!["nft: oops".into()], ..on(Vec::new()) });
    let warned = untold.iter().find(|finding| finding.check == "bridge-nf-call").unwrap();
    assert_eq!((warned.severity, warned.runnable), (Severity::Warning, false));
    assert_eq!(warned.mend.matches("sysctl -w").count(), 3);
    let dropped = only(on(vec![bridged()]));
    assert_eq!((dropped.check, dropped.severity, dropped.object.as_str()), ("firewall", Severity::Problem, "red"));
    assert!(dropped.evidence.contains("bridge-nf-call-iptables shows them"), "{dropped}");
}

#[test]
fn what_cannot_be_tried_is_said() {
    let told = only(FirewallFacts { tried: Err("nft: oops".into()), ..seen(Vec::new()) });
    assert_eq!(
        (told.severity, told.evidence.as_str()),
        (Severity::NotChecked, "its rules could not be tried: nft: oops")
    );
    let told = only(FirewallFacts { untold: vec!["nft: oops".into()], ..seen(Vec::new()) });
    assert_eq!(told.severity, Severity::NotChecked, "nothing lost is not nothing that drops");
}

#[test]
fn what_no_copy_shows_is_said() {
    let untried = vec![(bridged().what, ALWAYS)];
    let told = only(FirewallFacts { tried: Ok(Tried { untried, ..Tried::default() }), ..seen(Vec::new()) });
    assert_eq!((told.severity, told.object.as_str()), (Severity::NotChecked, "red"));
}

#[test]
fn the_others_are_named_no_wider_than_needed() {
    let named = |own: &str, peers: &[&str], address: &str| {
        let uplink = Uplink { name: "eth0".into(), port: None, addresses: vec![address.parse().unwrap()] };
        let all: Vec<IpAddr> = peers.iter().map(|peer| peer.parse().unwrap()).collect();
        let peers = vec![(all[0], uplink)];
        others(&Tunnels { own: own.parse().unwrap(), port: 4789, peers, all, known: true })
    };
    assert_eq!(named("192.0.2.1", &["192.0.2.9"], "192.0.2.1/25"), ["192.0.2.0/25"]);
    assert_eq!(named("10.0.0.1", &["10.0.0.2", "10.0.0.5"], "192.0.2.1/24"), ["10.0.0.0/29"]);
    assert_eq!(named("10.0.0.1", &["10.9.0.2", "10.0.0.2"], "192.0.2.1/24"), ["10.0.0.2", "10.9.0.2"]);
    assert_eq!(named("c0d1::1", &["c0d1::2"], "fe80::1/64"), ["c0d1::/126"]);
}

#[test]
fn a_host_as_it_is_asked_about() {
    let host = host();
    let stage = set(&host, &[], &BRIDGE_NF, &Ruleset::default());
    let asked: Vec<&What> = stage.cases.iter().map(|case| &case.what).collect();
    let routed = |out: &str| What::Routed { network: "red".into(), vrf: "red".into(), out: out.into(), v6: false };
    assert_eq!(asked, [&bridged().what, &routed("red-l2"), &routed("red-l3")]);
    assert_eq!(stage.devices, ["tap0", "vxlan20", "red", "red-l3"]);
    let quiet = set(&host, &[], &[], &Ruleset::default());
    assert_eq!(quiet.cases.len(), 2, "without br_netfilter no firewall sees bridged frames");
}

// The host tells the sender by an ICMP error, which goes by the bridge as well where the host has an address in that network.
#[test]
fn a_frame_that_is_refused_is_lost() {
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/proc/sys/net/bridge").exists() {
        return eprintln!("SKIP a_frame_that_is_refused_is_lost: not root, or no br_netfilter");
    }
    let mut stage = set(&host(), &[], &BRIDGE_NF, &Ruleset::default());
    stage.script += "address add 10.9.9.9/32 dev lo\n";
    let text = "# Generated by iptables-save\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\nCOMMIT\n";
    let saved = vec![ruleset::Saved { program: "iptables", v6: false, text: text.into() }];
    let rules = Ruleset { saved, ..Ruleset::default() };
    let tried = sandbox::inside(|| attempt(&stage, &[], &rules, &Kept::default(), Instant::now() + PATIENCE)).unwrap();
    assert_eq!(tried.verdicts.first().map(|verdict| verdict.what.clone()), Some(bridged().what));
}

/// On the kernel of this machine, which needs no VRF for it. tests/lab/doctor.rs has a real one.
#[test]
fn what_a_vrf_forwards_is_told_by_the_names_of_its_devices() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIP what_a_vrf_forwards_is_told_by_the_names_of_its_devices: not root");
    }
    let stage = set(&host(), &[], &[], &Ruleset::default());
    let dropped = |policy: &str, rules: &str| {
        let text = format!(
            "# Generated by iptables-save\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD {policy} [0:0]\n:OUTPUT ACCEPT [0:0]\n{rules}COMMIT\n"
        );
        let saved = vec![ruleset::Saved { program: "iptables", v6: false, text }];
        let rules = Ruleset { saved, ..Ruleset::default() };
        let tried =
            sandbox::inside(|| attempt(&stage, &[], &rules, &Kept::default(), Instant::now() + PATIENCE)).unwrap();
        tried.verdicts.into_iter().map(|verdict| verdict.mend.unwrap()).collect::<Vec<_>>()
    };
    let accept = |out: &str| {
        format!("iptables -I FORWARD -i red -o {out} -j ACCEPT # does not last: it is gone with the next boot")
    };
    assert_eq!(dropped("ACCEPT", ""), [""; 0]);
    assert_eq!(dropped("DROP", ""), [accept("red-l2"), accept("red-l3")]);
    assert_eq!(dropped("DROP", "-A FORWARD -i red+ -j ACCEPT\n"), [""; 0]);
    // What libvirt has for a network of mode route or nat.
    let libvirt = "-A FORWARD -d 10.1.0.0/24 -o red-l2 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -o red-l2 -j REJECT\n";
    assert_eq!(dropped("ACCEPT", libvirt), [accept("red-l2")]);
}

/// In a copy of these rules of nft's, on a host whose network has an IPv6 gateway as well.
fn tried_with(nft: &str) -> Tried {
    let mut host = host();
    host.networks[0].network.gateway.push("fd00:1::1/64".parse().unwrap());
    let stage = set(&host, &[], &[], &Ruleset::default());
    let rules = Ruleset { nft: nft.into(), ..Ruleset::default() };
    sandbox::inside(|| attempt(&stage, &[], &rules, &Kept::default(), Instant::now() + PATIENCE)).unwrap()
}

// A device that plays a VRF has not its routes: firewalld's IPv6_rpfilter drops there what it lets through on the host.
#[test]
fn what_only_a_vrf_has_is_no_certain_loss() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIP what_only_a_vrf_has_is_no_certain_loss: not root");
    }
    let tried = tried_with(
        "table inet firewalld {\n\tchain filter_PREROUTING {\n\t\ttype filter hook prerouting priority 10; policy accept;\n\t\tmeta nfproto ipv6 fib saddr . mark . iif oif missing drop\n\t}\n}\n",
    );
    let whys: Vec<Why> = tried.verdicts.iter().map(|verdict| verdict.why).collect();
    assert_eq!(whys, [Why::Vrf; 2], "{tried:#?}");
    assert!(tried.verdicts.iter().all(|verdict| verdict.what.is_v6() && verdict.mend.is_none()), "{tried:#?}");
    let told = only(FirewallFacts {
        tried: Ok(Tried { verdicts: tried.verdicts.into_iter().take(1).collect(), ..Tried::default() }),
        ..seen(Vec::new())
    });
    assert_eq!((told.severity, told.runnable), (Severity::Warning, false));
    assert!(told.mend.contains("nft: meta nfproto ipv6 fib saddr"), "{told}");
}

#[test]
fn a_network_without_guests_takes_no_others_port() {
    let mut host = host();
    let mut other = host.networks[0].clone();
    other.network.name = "blue".parse().unwrap();
    other.network.bridge = "blue-l2".parse().unwrap();
    other.network.vni = 30.try_into().unwrap();
    other.network.vrf = None;
    host.networks.insert(0, other);
    host.guests[0].endpoints[0].device = "vnet0".parse().unwrap();
    let stage = set(&host, &[], &BRIDGE_NF, &Ruleset::default());
    assert!(stage.script.contains("link set vnet0 master red-l2"), "{}", stage.script);
    assert!(!stage.script.contains("link set vnet0 master blue-l2"), "{}", stage.script);
    assert!(stage.devices.contains(&"evpn-guest0".to_owned()), "{:?}", stage.devices);
    host.guests[0].endpoints[0].device = "evpn-guest0".parse().unwrap();
    let stage = set(&host, &[], &BRIDGE_NF, &Ruleset::default());
    assert!(!stage.script.contains("link set evpn-guest0 master blue-l2"), "{}", stage.script);
}

#[test]
fn those_that_are_asked_about_are_from_everywhere() {
    let ip = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
    let few: Vec<IpAddr> = (0..32).map(ip).collect();
    assert_eq!(sample(&few), few);
    let flat: Vec<IpAddr> = (0..200).map(ip).collect();
    let asked = sample(&flat);
    assert_eq!((asked.len(), asked[0], asked[PEERS - 1]), (PEERS, ip(0), ip(199)));
    // 20 in the first subnet, and one in each of ten others.
    let racks: Vec<IpAddr> = (0..40).chain((1..=10).map(|n| n << 8)).map(ip).collect();
    let asked = sample(&racks);
    assert!((1..=10).all(|n| asked.contains(&ip(n << 8))), "{asked:?}");
    assert_eq!(asked.len(), PEERS);
}

#[test]
fn two_ends_of_one_family_are_told_apart() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIP two_ends_of_one_family_are_told_apart: not root");
    }
    let uplink = Uplink { name: "eth0".into(), port: None, addresses: vec!["192.0.2.1/24".parse().unwrap()] };
    let end = |port, peer: &str| {
        let all: Vec<IpAddr> = vec![peer.parse().unwrap()];
        Tunnels { own: "192.0.2.1".parse().unwrap(), port, peers: vec![(all[0], uplink.clone())], all, known: true }
    };
    let tunnels = [end(4789, "192.0.2.2"), end(8472, "192.0.2.3")];
    let stage = set(&host(), &tunnels, &[], &Ruleset::default());
    let text = "# Generated by iptables-save\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -p udp --dport 8472 -j DROP\nCOMMIT\n";
    let saved = vec![ruleset::Saved { program: "iptables", v6: false, text: text.into() }];
    let rules = Ruleset { saved, ..Ruleset::default() };
    let tried =
        sandbox::inside(|| attempt(&stage, &tunnels, &rules, &Kept::default(), Instant::now() + PATIENCE)).unwrap();
    let [verdict] = &tried.verdicts[..] else { panic!("{tried:#?}") };
    assert_eq!(verdict.what, What::Tunnel { own: "192.0.2.1:8472".parse().unwrap(), out: false });
    assert!(verdict.mend.as_ref().unwrap().contains(" --dport 8472 "), "{verdict:#?}");
}
