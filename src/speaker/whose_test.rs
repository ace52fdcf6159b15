use super::*;
use crate::speaker::running::parse;

const ID: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// A host's configuration as bgpd prints it, with these lines at the top of its EVPN instance, and of VRF red's.
fn running(evpn: &[&str], red: &[&str]) -> Running {
    let top = |lines: &[&str]| lines.iter().map(|line| format!(" {line}\n")).collect::<String>();
    parse(&format!(
        "router bgp 64512\n bgp router-id 10.0.0.1\n{} neighbor 10.0.0.9 remote-as 64512\n !\n address-family l2vpn evpn\n  advertise-all-vni\n exit-address-family\nexit\n\
         router bgp 64512 vrf red\n{} !\n address-family ipv4 unicast\n  redistribute connected\n exit-address-family\n !\n\
         address-family ipv6 unicast\n  redistribute connected\n exit-address-family\n !\n\
         address-family l2vpn evpn\n  advertise ipv4 unicast\n  advertise ipv6 unicast\n exit-address-family\nexit\n",
        top(evpn),
        top(red)
    ))
}

fn ours(evpn: &[&str], red: &[&str]) -> bool {
    let running = running(evpn, red);
    is_ours(running.vrf("red").unwrap(), &running, &[ID])
}

#[test]
fn our_stanza_is_ours_whoever_typed_it() {
    assert!(ours(&[], &["bgp router-id 10.0.0.1"]));
    assert!(ours(&[], &[]), "an older version's, without router-id");
    assert!(!ours(&[], &["bgp router-id 1.2.3.4"]));
    let running = running(&[], &["bgp router-id 10.0.0.11"]);
    let red = running.vrf("red").unwrap();
    assert!(!is_ours(red, &running, &[ID]) && is_ours(red, &running, &[ID, Ipv4Addr::new(10, 0, 0, 11)]));
}

#[test]
fn one_line_more_is_the_operators() {
    for line in
        ["neighbor 10.9.0.1 remote-as 65001", "maximum-paths 4", "no bgp default ipv4-unicast", "timers bgp 3 9"]
    {
        assert!(!ours(&[], &[line]), "{line}");
        assert!(!ours(&[line], &[line]), "{line}: in the host's instance, too, and none of FRR's changing defaults");
    }
    let own = parse(include_str!("../../tests/golden/speaker/bgpd-running-own.txt"));
    assert!(!is_ours(own.vrf("red").unwrap(), &own, &[ID]), "a route-map behind ours");
    let mut other = running(&[], &[]);
    other.instances[1].asn = 65001;
    assert!(!is_ours(other.vrf("red").unwrap(), &other, &[ID]), "another AS");
}

/// hook.md 12: `frr version 8.1` under 8.4.4 puts the first two into every instance, 7.5 the third as well, 8.4 under 10.x the fourth.
#[test]
fn what_an_older_frr_version_puts_into_every_instance_is_nobodys() {
    let printed = [
        "no bgp hard-administrative-reset",
        "no bgp graceful-restart notification",
        "no bgp suppress-duplicates",
        "no bgp enforce-first-as",
        "no bgp ebgp-requires-policy",
        "no bgp network import-check",
    ];
    assert!(ours(&printed, &printed));
    assert!(!ours(&[], &printed[..1]), "typed into this one alone");
    assert!(!ours(&printed[..1], &["bgp hard-administrative-reset"]), "the contrary of what the others have");
}

#[test]
fn single_lines_of_ours() {
    let (ours, other) = (running(&[], &["bgp router-id 10.0.0.1"]), Ipv4Addr::new(10, 0, 0, 11));
    let red = ours.vrf("red").unwrap();
    assert!(identified(red, ID) && !identified(red, other) && !identified(ours.evpn().unwrap(), other));
    let own = parse(include_str!("../../tests/golden/speaker/bgpd-running-own.txt"));
    assert!(contains(red, BgpLine::Ipv4Connected));
    assert!(!contains(own.vrf("red").unwrap(), BgpLine::Ipv4Connected), "the operator made it longer");
}
