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

// A program that does not tell its rules leaves rules that nobody tried.
on_a_host!(rules_that_a_program_does_not_tell_are_not_checked, {
    own("/usr/sbin");
    let host = host();
    sh("iptables -A FORWARD -p tcp --dport 9 -j DROP; nft add table inet own");
    assert_eq!(doctor(&host), [] as [Value; 0]);
    sh("cp -a /usr/sbin/nft /usr/sbin/nft.own; cp -a /usr/sbin/iptables-nft-save /usr/sbin/iptables-save.own");
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
        instead(program, &format!("exec {program}.own \"$@\""));
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
