//! `sync` itself, killed while it mends.

use super::{OnFailure, Plan, all, call, leave, ok, strangers, tap};
use crate::common::sh;
use crate::host::{CONFIG, Host};
use crate::on_a_host;

on_a_host!(repairs, {
    let host = &Host::new(CONFIG);
    strangers();
    let attached = |host: &Host| {
        ok(host, "network up flat");
        tap("vnet0", "down");
        ok(host, "attach vnet0 --network flat --mac 52:54:00:03:82:d8 --ip 10.1.0.60 --ip fd00:1::60");
    };
    let without_bridge = |host: &Host| {
        attached(host);
        sh("ip link del flat-l2 && ip link set vnet0 down mtu 1400 && ip link set vxlan20 down");
    };
    let other_tunnel = |host: &Host| {
        attached(host);
        sh("ip link del vxlan20 && ip link add vxlan20 type vxlan id 20 local 10.0.0.9 dstport 4790
            ip link set vxlan20 master flat-l2 alias evpn-hook up");
    };
    let without_register = |host: &Host| {
        attached(host);
        sh("rm -r /run/evpn-hook && ip link set vxlan20 nomaster
            ip neigh add 10.1.0.70 lladdr 52:54:00:00:00:70 dev flat-l2 nud permanent proto 69");
    };
    let corrupt = |host: &Host| {
        attached(host);
        sh("for file in /run/evpn-hook/*/*.json; do echo garbage >$file; done");
    };
    let without_guest = |host: &Host| {
        attached(host);
        sh("ip link del vnet0 && ip neigh add 10.1.0.70 lladdr 52:54:00:00:00:70 dev flat-l2 nud permanent proto 69");
    };
    let unwanted = |_: &Host| {
        sh("ip link add vxlan99 type vxlan id 99 dstport 4789 && ip link set vxlan99 alias evpn-hook
            ip link add gone-l2 type bridge && ip link set gone-l2 alias evpn-hook && ip link set vxlan99 master gone-l2");
    };
    let plan = Plan {
        name: "sync: bridge deleted",
        before: &without_bridge,
        command: &|| call("sync"),
        on_failure: OnFailure::GoesOn,
        world: &|| {},
        leave: &leave,
    };
    all(
        "repairs",
        host,
        &[
            Plan { name: "sync: tunnel to elsewhere", before: &other_tunnel, ..plan },
            Plan { name: "sync: state lost", before: &without_register, ..plan },
            Plan { name: "sync: state corrupt", before: &corrupt, ..plan },
            Plan { name: "sync: guest gone, ghosts", before: &without_guest, ..plan },
            Plan { name: "sync: devices that nobody wants", before: &unwanted, ..plan },
            plan,
        ],
    );
});
