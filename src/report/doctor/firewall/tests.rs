//! What is made of what the packets did. The packets themselves are in tests/cli/firewall.rs.

use super::super::fixture::base;
use super::*;

fn verdict(what: What) -> Verdict {
    let mend = Some("mend it".to_owned());
    Verdict {
        what,
        port: 4789,
        lost: vec!["10.0.0.2".into()],
        of: 1,
        known: true,
        mend,
        blank: false,
        hurried: false,
        naming: Vec::new(),
    }
}

fn seen(verdicts: Vec<Verdict>) -> Seen {
    Seen {
        bridge_nf: Vec::new(),
        untold: Vec::new(),
        tried: Ok(Tried { verdicts, untried: Vec::new() }),
        hands_over: false,
    }
}

fn tunnel() -> Verdict {
    verdict(What::Tunnel { v6: false, out: false })
}

fn bridged() -> Verdict {
    verdict(What::Bridged { network: "red".into(), bridge: "red-l2".into(), v6: false })
}

fn only(seen: &Seen) -> Finding {
    let mut found = judge(&base(), seen);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn what_is_lost_is_a_problem_where_that_is_certain() {
    assert_eq!(judge(&base(), &seen(Vec::new())), []);
    let told = only(&seen(vec![tunnel()]));
    assert_eq!((told.severity, told.runnable, told.mend.as_str()), (Severity::Problem, true, "mend it"));
    assert_eq!(told.evidence, "drops VXLAN from 10.0.0.2 (tried in a copy of this host's rules)");
    let guessed = only(&seen(vec![Verdict { known: false, ..tunnel() }]));
    assert_eq!(guessed.severity, Severity::Warning, "nobody knows whether a VTEP is there");
    let blank = only(&seen(vec![Verdict { known: false, blank: true, ..tunnel() }]));
    assert_eq!((blank.runnable, blank.mend.as_str()), (false, "with the other VTEPs' addresses for UNDERLAY: mend it"));
    let queued = only(&Seen { hands_over: true, ..seen(vec![tunnel()]) });
    assert_eq!(queued.severity, Severity::Warning, "in the copy no program listens");
}

#[test]
fn without_a_mend_the_rules_are_shown() {
    let naming: Vec<String> = (0..9).map(|n| format!("iptables: [{n}:0] -A INPUT -p udp --dport 4789 -j X")).collect();
    let told = only(&seen(vec![Verdict { mend: None, naming, ..tunnel() }]));
    assert!(
        !told.runnable
            && told.mend.starts_with(
                "judge yourself: no change that was tried lets it through; these of 9 rules name it: iptables: [0:0] "
            ),
        "{told}"
    );
    assert_eq!(told.mend.matches(" | ").count(), RULES - 1);
    let hurried = only(&seen(vec![Verdict { mend: None, hurried: true, ..tunnel() }]));
    assert_eq!(hurried.mend, "judge yourself: no rule names it, and there was no time to try a change");
}

#[test]
fn br_netfilter_is_told_once() {
    let on = |verdicts| Seen { bridge_nf: BRIDGE_NF.to_vec(), ..seen(verdicts) };
    let warned = only(&on(Vec::new()));
    assert_eq!((warned.check, warned.severity), ("bridge-nf-call", Severity::Warning));
    assert_eq!(warned.mend.matches("sysctl -w").count(), 3);
    let dropped = only(&on(vec![bridged()]));
    assert_eq!((dropped.check, dropped.severity, dropped.object.as_str()), ("firewall", Severity::Problem, "red"));
    assert!(dropped.evidence.contains("bridge-nf-call-iptables shows them"), "{dropped}");
}

#[test]
fn what_cannot_be_tried_is_said() {
    let told = only(&Seen { tried: Err("nft: oops".into()), ..seen(Vec::new()) });
    assert_eq!(
        (told.severity, told.evidence.as_str()),
        (Severity::NotChecked, "its rules could not be tried: nft: oops")
    );
    let told = only(&Seen { untold: vec!["nft: oops".into()], ..seen(Vec::new()) });
    assert_eq!(told.severity, Severity::NotChecked, "nothing lost is not nothing that drops");
}

#[test]
fn what_no_copy_shows_is_said() {
    let untried = vec![(bridged().what, ALWAYS)];
    let told = only(&Seen { tried: Ok(Tried { verdicts: Vec::new(), untried }), ..seen(Vec::new()) });
    assert_eq!((told.severity, told.object.as_str()), (Severity::NotChecked, "red"));
}

#[test]
fn the_others_are_named_no_wider_than_needed() {
    let named = |own: &str, peers: &[&str], address: &str| {
        let uplink = Uplink { name: "eth0".into(), port: None, addresses: vec![address.parse().unwrap()] };
        let peers = peers.iter().map(|peer| (peer.parse().unwrap(), uplink.clone())).collect();
        others(&Tunnels { own: own.parse().unwrap(), port: 4789, peers, known: true })
    };
    assert_eq!(named("192.0.2.1", &["192.0.2.9"], "192.0.2.1/25"), ["192.0.2.0/25"]);
    assert_eq!(named("10.0.0.1", &["10.0.0.2", "10.0.0.5"], "192.0.2.1/24"), ["10.0.0.0/29"]);
    assert_eq!(named("10.0.0.1", &["10.9.0.2", "10.0.0.2"], "192.0.2.1/24"), ["10.0.0.2", "10.9.0.2"]);
    assert_eq!(named("c0d1::1", &["c0d1::2"], "fe80::1/64"), ["c0d1::/126"]);
}

#[test]
fn a_host_as_it_is_asked_about() {
    let base = base();
    let stage = set(&base, &[], &BRIDGE_NF, &Ruleset::default());
    let asked: Vec<&What> = stage.cases.iter().map(|case| &case.what).collect();
    let routed = |out: &str| What::Routed { network: "red".into(), vrf: "red".into(), out: out.into(), v6: false };
    assert_eq!(asked, [&bridged().what, &routed("red-l2"), &routed("red-l3")]);
    assert_eq!(stage.devices, ["tap0", "vxlan20", "red", "red-l3"]);
    let quiet = set(&base, &[], &[], &Ruleset::default());
    assert_eq!(quiet.cases.len(), 2, "without br_netfilter no firewall sees bridged frames");
}

// The host tells the sender by an ICMP error, which goes by the bridge as well where the host has an address in that network.
#[test]
fn a_frame_that_is_refused_is_lost() {
    if !rustix::process::geteuid().is_root() || !Path::new("/proc/sys/net/bridge").exists() {
        return eprintln!("SKIP a_frame_that_is_refused_is_lost: not root, or no br_netfilter");
    }
    let mut stage = set(&base(), &[], &BRIDGE_NF, &Ruleset::default());
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
    let stage = set(&base(), &[], &[], &Ruleset::default());
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
