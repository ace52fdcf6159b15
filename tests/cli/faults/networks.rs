//! Layer-2 networks up and down: config.toml's and libvirt's.

use super::look::delete;
use super::{Call, OnFailure, Plan, all, call, leave, strangers, strangers_on};
use crate::common::sh;
use crate::host::{CONFIG, Host};
use crate::on_a_host;
use crate::xml::{LAB, LIBVIRTS_BRIDGE, network};
use std::fs;

const STATUS: &str = "/run/libvirt/network/lab.xml";

fn lab(op: &'static str) -> Call {
    let xml = network("lab", "<evpn:network vni='40'/>", LAB);
    Call { args: vec!["network", "lab", op, "begin", "-"], stdin: xml, ..Call::default() }
}

/// libvirt has it up.
fn listed() {
    fs::create_dir_all("/run/libvirt/network").unwrap();
    let text = lab("").stdin.replace("hookData", "networkstatus");
    fs::write(STATUS, text).unwrap();
}

/// libvirt has it down, and its bridge is gone.
fn unlisted() {
    fs::create_dir_all("/run/libvirt/network").unwrap();
    let _ = fs::remove_file(STATUS);
    delete(&["lab-l2"]);
}

fn started(host: &Host) {
    sh(LIBVIRTS_BRIDGE);
    host.hook(&lab("started").args, lab("").stdin).ok();
    listed();
}

fn stopped(host: &Host) {
    host.hook(&lab("stopped").args, lab("").stdin).ok();
    unlisted();
    leave(host);
}

/// An operator's bridge of the network's name, in use.
fn operators_bridge(_: &Host) {
    sh("ip link add flat-l2 address 00:00:00:11:11:10 mtu 1400 type bridge && ip link set flat-l2 up");
    strangers_on("flat-l2");
}

fn leave_operators(host: &Host) {
    // Its guest stays until the network is down: `network down` is for those without.
    sh("[ ! -e /proc/sys/net/ipv4/conf/theirs ] || ip link set theirs nomaster");
    leave(host);
    delete(&["flat-l2", "theirs"]);
}

on_a_host!(networks, {
    let host = &Host::new(CONFIG);
    strangers();
    let flat_up = |host: &Host| host.run(&["network", "up", "flat"]).ok().status.eq(&0).then_some(()).unwrap();
    let in_use = |host: &Host| {
        operators_bridge(host);
        flat_up(host);
    };
    let without_theirs = |host: &Host| {
        in_use(host);
        sh("ip link set theirs nomaster");
    };
    let before_start = |_: &Host| drop(sh(LIBVIRTS_BRIDGE));
    let (up, down) = (|| call("network up flat"), || call("network down flat"));
    let plan = Plan {
        name: "network up",
        before: &|_| {},
        command: &up,
        on_failure: OnFailure::Undoes(1),
        world: &|| {},
        leave: &leave,
    };
    all(
        "networks",
        host,
        &[
            Plan {
                name: "network up, on a bridge that was there",
                before: &operators_bridge,
                leave: &leave_operators,
                ..plan
            },
            Plan { name: "network down", before: &flat_up, command: &down, on_failure: OnFailure::GoesOn, ..plan },
            Plan {
                name: "network down, on a bridge that was there",
                before: &without_theirs,
                command: &down,
                on_failure: OnFailure::GoesOn,
                leave: &leave_operators,
                ..plan
            },
            Plan {
                name: "libvirt's network started",
                before: &before_start,
                command: &|| lab("started"),
                world: &listed,
                leave: &stopped,
                ..plan
            },
            Plan {
                name: "libvirt's network started, libvirt gives up",
                before: &before_start,
                command: &|| lab("started"),
                world: &unlisted,
                leave: &stopped,
                ..plan
            },
            Plan {
                name: "libvirt's network stopped",
                before: &started,
                command: &|| lab("stopped"),
                on_failure: OnFailure::GoesOn,
                world: &unlisted,
                leave: &stopped,
            },
            plan,
        ],
    );
});
