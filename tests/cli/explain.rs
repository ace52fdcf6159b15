//! `explain` where there is no FRR: the kernel's links, each broken by a real command and mended by what is printed. The fabric's are the lab's.

use crate::common::sh;
use crate::host::{Host, tap};
use crate::on_a_host;
use serde_json::Value;

const MAC: &str = "52:54:00:03:82:d8";

fn explain(host: &Host, what: &str) -> Value {
    let run = host.run(&["--json", "explain", what]);
    let said: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"));
    assert_eq!(run.status, if said["healthy"] == true { 0 } else { 3 }, "{run:?}");
    said
}

fn guest(host: &Host) {
    tap("vnet0");
    host.run(&["attach", "vnet0", "--network", "flat", "--mac", MAC, "--ip", "10.1.0.60", "--guest", "vm1"]).ok();
}

on_a_host!(a_chain_ends_at_the_kernel_where_there_is_no_speaker, {
    let host = Host::flat();
    guest(&host);
    for what in ["vm1", "vnet0", MAC, "10.1.0.60"] {
        let said = explain(&host, what);
        assert_eq!((&said["asked"], &said["healthy"]), (&what.into(), &true.into()), "{said:#}");
        let chain = &said["chains"][0];
        let links: Vec<&str> = chain["links"].as_array().unwrap().iter().map(|l| l["link"].as_str().unwrap()).collect();
        assert_eq!(links, ["guest", "device", "port", "bridge", "vxlan", "vtep", "fdb", "neighbour"]);
        assert_eq!((&chain["place"], &chain["device"], &chain["mac"]), (&"here".into(), &"vnet0".into(), &MAC.into()));
    }
    let text = host.run(&["explain", "vm1"]).ok().stdout;
    assert!(text.starts_with(&format!("guest vm1 on network flat: {MAC} 10.1.0.60, vnet0\n")), "{text}");
    assert!(text.ends_with("every link holds\n"), "{text}");

    for (breaks, link, after) in [
        ("ip link set vnet0 nomaster", "port", ""),
        ("ip link add other type bridge && ip link set vnet0 master other", "port", "ip link del other"),
        ("ip link set vnet0 down", "device", ""),
        ("ip link set vnet0 mtu 1400", "device", ""),
        (&format!("bridge fdb del {MAC} dev vnet0 master"), "fdb", ""),
        ("ip neigh del 10.1.0.60 dev flat-l2", "neighbour", ""),
        ("ip link set flat-l2 down", "bridge", ""),
        ("ip link set vxlan20 down", "vxlan", ""),
        ("ip link set vxlan20 nomaster", "vxlan", ""),
        ("bridge link set dev vxlan20 learning on", "vxlan", ""),
        ("ip link del vxlan20", "vxlan", ""),
    ] {
        sh(breaks);
        let said = explain(&host, "vm1");
        let chain = &said["chains"][0];
        let broken = &chain["links"][usize::try_from(chain["broken"].as_u64().expect(breaks)).unwrap()];
        assert_eq!((&broken["link"], &broken["state"]), (&link.into(), &"broken".into()), "{breaks}: {said:#}");
        assert_eq!(broken["mend"], "evpn-hook sync", "{breaks}");
        let text = host.run(&["explain", "vm1"]);
        assert_eq!(text.status, 3);
        assert!(text.stdout.contains("\n          mend: evpn-hook sync\n"), "{breaks}: {text:?}");
        assert!(text.stdout.contains(&format!("first broken link: {link} ")), "{breaks}: {text:?}");
        host.run(&["sync"]).ok();
        assert_eq!(explain(&host, "vm1")["healthy"], true, "{breaks}");
        if !after.is_empty() {
            sh(after);
        }
    }
});

on_a_host!(what_is_nobodys_is_one_line_with_a_way_out, {
    let host = Host::flat();
    tap("vnet0");
    for (what, said) in [
        ("vm9", "'vm9': no guest, device, MAC or address of this host: see 'evpn-hook status'"),
        ("vm\n9", r"'vm\n9': no guest, device"),
        ("flat-l2", "flat-l2 is a device, but no guest's"),
        ("vnet0", "'evpn-hook attach vnet0 --network NET --mac MAC --ip IP' makes it one"),
        ("203.0.113.9", "203.0.113.9: no guest of this host has it"),
    ] {
        let run = host.run(&["explain", what]);
        assert!(run.status == 1 && run.stdout.is_empty() && run.stderr.contains(said), "{what}: {run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
    let said = explain(&host, "10.1.0.99");
    let chain = &said["chains"][0];
    assert_eq!(
        (&chain["place"], &chain["links"][3]["link"]),
        (&"away".into(), &"neighbour".into()),
        "in the subnet, and nobody's: {said:#}"
    );
    assert_eq!(chain["broken"], 3);
    guest_twice(&host);
    let run = host.run(&["explain", MAC]);
    assert!(
        run.status == 1
            && run.stderr.contains("more than one has it: guest a (vnet1), guest b (vnet2): name one by its device"),
        "{run:?}"
    );
});

fn guest_twice(host: &Host) {
    for (name, device) in [("a", "vnet1"), ("b", "vnet2")] {
        tap(device);
        let run = host.run(&["attach", device, "--network", "flat", "--mac", MAC, "--guest", name]);
        assert_eq!(run.status, 0, "the second is warned of: {run:?}");
    }
}
