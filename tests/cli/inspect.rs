//! `inspect`: what a hook reads, shown to a person or to a comparison.

use crate::common::sh;
use crate::host::{BIN, Host, finish, repository, snapshot};
use crate::on_a_host;
use serde_json::{Value, json};
use std::process::Command;

/// Without any capability, and with neither configuration nor state.
fn inspect(what: &str, xml: impl AsRef<[u8]>) -> crate::host::Run {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--", BIN, "inspect", what]);
    finish(command, xml.as_ref())
}

fn json_of(what: &str, case: &str) -> Value {
    let run = inspect(what, repository(&format!("tests/golden/input/{case}/stdin.xml"))).ok();
    serde_json::from_str(&run.stdout).unwrap()
}

on_a_host!(a_domain_and_a_network_are_shown_as_they_are_read, {
    Host::new("[");
    let before = snapshot();
    let domain = json_of("qemu", "qemu-red-dual-stack");
    assert_eq!(
        domain["interfaces"],
        json!([{"type": "network", "mac": "52:54:00:03:82:d8", "network": "red", "bridge": "red-l2", "portgroup": null, "target": "vnet0"}])
    );
    assert_eq!((&domain["name"], &domain["uuid"]), (&json!("red"), &json!("6c1d3f50-9a51-4e5b-8f0a-2f6a3f1b0d60")));
    assert_eq!(domain["metadata"][0]["ips"], json!(["10.1.0.60", "fd00:1::60"]));
    // A hook has no use for these.
    let kinds = json_of("qemu", "qemu-other-interface-types");
    let kinds: Vec<_> = kinds["interfaces"].as_array().unwrap().iter().map(|i| i["type"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"direct") && kinds.contains(&"hostdev"), "{kinds:?}");
    let network = json_of("network", "network-red-start");
    assert_eq!((&network["name"], &network["interfaces"]), (&json!("red"), &json!([])));
    assert_eq!((&network["bridge"], &network["metadata"]["vrf"]["table"]), (&json!("red-l2"), &json!(10)));
    let not_ours = "<network><name>n</name><forward mode='route' dev='eth1'/><bridge name='a:b'/></network>";
    let run = inspect("network", not_ours).ok();
    let not_ours: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&not_ours["metadata"], &not_ours["bridge"]), (&Value::Null, &json!("a:b")));
    assert_eq!(not_ours["interfaces"][0]["target"], "eth1");
    // The words are in their order, for those who compare texts.
    let text = inspect("qemu", "<domain><devices><interface type='user'/></devices></domain>").ok().stdout;
    let keys: Vec<&str> = text.split('"').skip(1).step_by(2).filter(|word| *word != "user").collect();
    let wanted = "name uuid interfaces type mac network bridge portgroup target metadata";
    assert_eq!(keys, wanted.split(' ').collect::<Vec<_>>());
    assert_eq!(snapshot(), before);
});

on_a_host!(what_is_no_domain_is_one_line_and_status_2, {
    sh("ip link set lo up");
    let good = repository("tests/golden/input/qemu-red-start/stdin.xml");
    for (what, xml, words) in [
        ("qemu", "", "there is no XML on stdin"),
        ("qemu", "<network/>", "the XML on stdin is no <domain>: pipe `virsh dumpxml` in"),
        ("network", "<domain/>", "the XML on stdin is no <network>: pipe `virsh net-dumpxml` in"),
        ("qemu", &good[..good.len() / 2], "the XML breaks at line "),
        ("qemu", "<!DOCTYPE d><domain/>", "DOCTYPE"),
        ("qemu", &good.replace("evpn:ip ", "evpn:ipx "), "evpn:ipx"),
        ("qemu", &" ".repeat(64 << 20), "over 5 MiB"),
        ("lxc", "", "lxc"),
    ] {
        let run = inspect(what, xml);
        assert!(run.status == 2 && run.stdout.is_empty() && run.stderr.lines().count() == 1, "{run:?}");
        assert!(run.stderr.contains(words) && run.stderr.starts_with("evpn-hook: "), "{words}: {run:?}");
    }
});
