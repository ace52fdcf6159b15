//! Hosts of which the check once told something wrong: a verdict that no packet bears out, or a mend that does more, or other, than it says.

use super::*;

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
