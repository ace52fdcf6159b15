//! Hosts of which the check once told something wrong: a verdict that no packet bears out, or a mend that does more, or other, than it says.

use super::*;

/// All of this check's findings, hints as well.
fn all(host: &Host) -> Vec<Value> {
    let report: Value = serde_json::from_str(&host.run(&["--json", "doctor"]).stdout).unwrap();
    let ours = |finding: &&Value| finding["check"] == "firewall" || finding["check"] == "bridge-nf-call";
    report["findings"].as_array().unwrap().iter().filter(ours).cloned().collect()
}

fn of_flat(host: &Host) -> Vec<Value> {
    doctor(host).into_iter().filter(|finding| finding["object"] == "flat").collect()
}

fn word<'a>(finding: &'a Value, key: &str) -> &'a str {
    finding[key].as_str().unwrap()
}

/// A directory of this test's own in place of the host's.
fn own(dir: &str) {
    sh(&format!("mkdir -p /run/own{dir} && cp -a {dir}/. /run/own{dir} && mount --bind /run/own{dir} {dir}"));
}

/// In place of one of the host's programs.
fn instead(program: &str, words: &str) {
    let path = format!("/usr/sbin/{program}");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, format!("#!/bin/sh\n{words}\n")).unwrap();
    sh(&format!("chmod +x {path}"));
}

// iptables-restore of the IPv4 rules fails at an IPv6 address, and the host boots without any.
on_a_host!(an_ipv6_rule_is_kept_with_ipv6_rules, {
    own("/etc");
    sh(
        "mkdir /etc/iptables; printf '*filter\\n:INPUT DROP [0:0]\\nCOMMIT\\n' | tee /etc/iptables/rules.v4 >/etc/iptables/rules.v6",
    );
    let host = host_with_ipv6();
    sh("ip6tables -A INPUT -p ipv6-icmp -j ACCEPT; ip6tables -P INPUT DROP");
    let told = mend(&doctor(&host)[0]);
    assert!(told.ends_with("/etc/iptables/rules.v6") && !told.contains("rules.v4"), "{told}");
    sh("rm /etc/iptables/rules.v6");
    let told = mend(&doctor(&host)[0]);
    assert!(told.ends_with(" # does not last: it is gone with the next boot"), "{told}");
});

// A program that does not tell its rules leaves rules that nobody tried.
on_a_host!(rules_that_a_program_does_not_tell_are_not_checked, {
    own("/usr/sbin");
    let host = host();
    sh("iptables -A FORWARD -p tcp --dport 9 -j DROP; nft add table inet own");
    assert_eq!(doctor(&host), [] as [Value; 0]);
    sh("cp -a /usr/sbin/nft /usr/sbin/nft.own");
    for (program, words) in [
        ("nft", "case $1 in list) head -c 9000000 /dev/zero | tr '\\0' x;; *) exec nft.own \"$@\";; esac"),
        ("nft", "case $1 in list) exit 1;; *) exec nft.own \"$@\";; esac"),
        ("iptables-save", "echo oops; exit 1"),
        ("iptables-save", "exec sleep 9"),
    ] {
        instead(program, words);
        let report: Value = serde_json::from_str(&host.run(&["--json", "doctor"]).stdout).unwrap();
        let found = report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "firewall");
        let found = found.unwrap_or_else(|| panic!("{program}: {words}: {report:#}"));
        assert_eq!(found["severity"], "not-checked", "{found:#}");
        assert!(word(found, "evidence").contains(program), "{found:#}");
        sh(
            "rm -f /usr/sbin/nft /usr/sbin/iptables-save; cp -a /usr/sbin/nft.own /usr/sbin/nft; ln -s xtables-nft-multi /usr/sbin/iptables-save",
        );
    }
});

// What is lost by the rules that are known is lost, whatever the others do.
on_a_host!(a_loss_stays_one_where_not_all_rules_are_told, {
    own("/usr/sbin");
    let host = host();
    load("rhel.iptables");
    sh("nft add table inet own");
    instead("nft", "echo oops; exit 1");
    let report: Value = serde_json::from_str(&host.run(&["--json", "doctor"]).stdout).unwrap();
    let found = report["findings"].as_array().unwrap().iter();
    let severities: BTreeSet<&str> =
        found.filter(|finding| finding["check"] == "firewall").map(|finding| word(finding, "severity")).collect();
    assert_eq!(severities, BTreeSet::from(["not-checked", "problem"]));
});

fn has_br_netfilter() -> bool {
    let has = std::path::Path::new("/proc/sys/net/bridge").exists();
    if !has {
        crate::common::skip("bridged frames", "this kernel has no br_netfilter");
    }
    has
}

// A guest's own filter is not its network's, and an accept for all would open every guest.
on_a_host!(one_guests_own_filter, {
    let host = host();
    bridge_nf(true);
    if !has_br_netfilter() {
        return;
    }
    for way in ["in", "out"] {
        sh(&format!("iptables -A FORWARD -m physdev --physdev-is-bridged --physdev-{way} vnet1 -j DROP"));
    }
    let found = of_flat(&host);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((&found[0]["runnable"], word(&found[0], "severity")), (&Value::Bool(false), "warning"), "{found:#?}");
    assert!(word(&found[0], "mend").starts_with("judge yourself: "), "{found:#?}");
    assert!(word(&found[0], "mend").contains("--physdev-in vnet1 "), "{found:#?}");
    // The same for each of them: still no accept for all is told.
    for way in ["in", "out"] {
        sh(&format!("iptables -A FORWARD -m physdev --physdev-is-bridged --physdev-{way} vnet2 -j DROP"));
    }
    let found = of_flat(&host);
    assert_eq!((&found[0]["runnable"], word(&found[0], "severity")), (&Value::Bool(false), "problem"), "{found:#?}");
});

// What a guest sends has the guest's MAC and address.
on_a_host!(a_filter_against_forged_addresses, {
    let host = host();
    bridge_nf(true);
    if !has_br_netfilter() {
        return;
    }
    for n in [1, 2] {
        let port = format!("iptables -A FORWARD -m physdev --physdev-is-bridged --physdev-in vnet{n}");
        sh(&format!("{port} -m mac ! --mac-source 52:54:00:00:00:0{n} -j DROP; {port} ! -s 10.1.0.6{n} -j DROP"));
    }
    // Guests may begin to talk, and others not to them.
    sh("iptables -A FORWARD -m physdev --physdev-is-bridged --physdev-in vxlan20 -j DROP");
    assert!(guests_talk(COMES));
    assert_eq!(of_flat(&host), [] as [Value; 0]);
});

// The setting is for all bridges of the host: others' filters would be off.
on_a_host!(br_netfilter_is_a_hint_where_frames_pass, {
    let host = host();
    bridge_nf(true);
    if !has_br_netfilter() {
        return;
    }
    sh("iptables -A FORWARD -i br7 -j DROP");
    let found = all(&host);
    assert_eq!((found.len(), word(&found[0], "check")), (1, "bridge-nf-call"), "{found:#?}");
    assert_eq!((&found[0]["runnable"], word(&found[0], "severity")), (&Value::Bool(false), "hint"), "{found:#?}");
});

// nft has no rule for a bridge of a table that firewalld owns: there the setting is all that helps, and it is not told where others need it.
on_a_host!(br_netfilter_is_not_turned_off_under_another_bridges_rules, {
    let host = host();
    bridge_nf(true);
    if !has_br_netfilter() {
        return;
    }
    let name = "misjudged::br_netfilter_is_not_turned_off_under_another_bridges_rules";
    let Some(_firewalld) = real::firewalld("bookworm", name) else { return };
    let off = "sysctl -w net.bridge.bridge-nf-call-iptables=0";
    assert!(mend(&of_flat(&host)[0]).starts_with(off));
    sh("ip link add br7 type bridge; nft add table ip own; nft 'add chain ip own fw { type filter hook forward priority 5; }'
        nft 'add rule ip own fw iifname \"br7\" drop'");
    let found = of_flat(&host);
    assert_eq!(found[0]["runnable"], false, "{found:#?}");
    assert!(!word(&found[0], "mend").contains("sysctl"), "{found:#?}");
});

// More VTEPs than are asked: the mend is for all of them.
on_a_host!(more_vteps_than_are_asked, {
    let host = host();
    for n in 0..40 {
        sh(&format!(
            "ip route add 10.0.{n}.9/32 via {PEER}; bridge fdb append 00:00:00:00:00:00 dev vxlan20 dst 10.0.{n}.9"
        ));
    }
    sh("iptables -A INPUT -s 10.0.0.0/16 -p udp -j DROP; iptables -A INPUT -s 192.0.2.0/24 -p udp -j DROP");
    let found = doctor(&host);
    let mend = mend(&found[0]);
    for n in 0..40 {
        assert!(mend.contains(&format!("10.0.{n}.9")), "{n}: {mend}");
    }
    run(&mend);
    assert_eq!(doctor(&host), [] as [Value; 0]);
    // The highest is always among those that are asked, and how many are is said.
    sh("iptables -F; iptables -A INPUT -s 192.0.2.2 -p udp -j DROP");
    let found = all(&host);
    assert!(word(&found[0], "evidence").contains("drops VXLAN from 192.0.2.2"), "{found:#?}");
    let hint = found.iter().find(|finding| finding["severity"] == "hint").unwrap_or_else(|| panic!("{found:#?}"));
    assert_eq!(word(hint, "evidence"), "32 of 41 other VTEPs were tried");
});

// A program that is handed something else explains no loss.
on_a_host!(a_queue_for_something_else, {
    let host = host();
    load("rhel.iptables");
    sh("iptables -A OUTPUT -p tcp --dport 25 -j NFQUEUE --queue-num 3");
    mend(&doctor(&host)[0]);
    // A program that is handed VXLAN does.
    sh("iptables -F; iptables -A INPUT -i eth0 -p udp --dport 4789 -j NFQUEUE --queue-num 0");
    let found = doctor(&host);
    assert_eq!((found.len(), word(&found[0], "severity")), (1, "warning"), "{found:#?}");
    assert!(word(&found[0], "mend").starts_with("judge yourself: "), "{found:#?}");
    assert!(word(&found[0], "mend").contains("-j NFQUEUE --queue-num 0"), "{found:#?}");
});

// A daemon's table is in no file of the host's.
on_a_host!(a_table_that_a_daemon_writes, {
    own("/etc");
    let host = host();
    sh("printf 'table inet filter {\\n}\\n' >/etc/nftables.conf; nft add table ip kube-proxy
        nft 'add chain ip kube-proxy filter-input { type filter hook input priority 0; policy drop; }'");
    let told = mend(&doctor(&host)[0]);
    assert!(told.starts_with("nft 'insert rule ip kube-proxy filter-input "), "{told}");
    assert!(!told.contains("/etc/nftables.conf"), "{told}");
    assert!(told.ends_with(" # does not last: the table is kube-proxy's, which writes it anew"), "{told}");
    sh("nft delete table ip kube-proxy");
    load("policy-drop.nft");
    let told = mend(&doctor(&host)[0]);
    assert!(told.ends_with(" # to last, also in /etc/nftables.conf"), "{told}");
});

// VXLAN leaves the kernel without a socket of anybody's, and a copy cannot send it so.
on_a_host!(a_rule_that_asks_for_an_owner, {
    let host = host();
    sh("iptables -A OUTPUT -m owner --uid-owner 0 -j ACCEPT; iptables -A OUTPUT -p udp --dport 4789 -j DROP");
    let found = doctor(&host);
    assert_eq!((found.len(), word(&found[0], "severity")), (1, "not-checked"), "{found:#?}");
    assert!(word(&found[0], "evidence").contains("whether the rules drop VXLAN to other VTEPs"), "{found:#?}");
});

// Networks from before the port was changed keep their own.
on_a_host!(two_ports, {
    let host = host();
    let config = std::fs::read_to_string("/run/config.toml").unwrap();
    let config = config.replace("[vtep]\n", "[vtep]\nport = 4790\n");
    std::fs::write(
        "/run/config.toml",
        config + "[[network]]\nname = 'late'\nbridge = 'late-l2'\nvni = 21\nmtu = 1450\n",
    )
    .unwrap();
    host.run(&["network", "up", "late"]);
    sh("iptables -A INPUT -p udp --dport 4790 -j DROP");
    let found = doctor(&host);
    assert_eq!((found.len(), word(&found[0], "object")), (1, "UDP 4790"), "{found:#?}");
    let mend = mend(&found[0]);
    assert!(mend.contains(" --dport 4790 "), "{mend}");
    run(&mend);
    assert_eq!(doctor(&host), [] as [Value; 0]);
});
