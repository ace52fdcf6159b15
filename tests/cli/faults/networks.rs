//! Layer-2 networks up and down: config.toml's and libvirt's.

use super::look::delete;
use super::{Call, OnFailure, Plan, all, call, leave, leave_operators, operators_bridge, strangers, without_theirs};
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

/// The MAC of `flat`'s gateway.
const GATEWAY: &str = "00:00:00:11:11:10";

fn there_before(_: &Host) {
    operators_bridge("flat-l2", GATEWAY);
}

fn leave_there_before(host: &Host) {
    without_theirs();
    leave(host);
    leave_operators("flat-l2", GATEWAY);
}

/// A network on a bridge that libvirt does not make, as its XML is now.
fn bridged(mtu: &str, gateway: &str, mac: &str) -> Call {
    let rest = format!(
        "<forward mode='bridge'/><bridge name='lab-l2'/><mac address='{mac}'/><mtu size='{mtu}'/><ip address='{gateway}' prefix='24'/>"
    );
    let xml = network("lab", "<evpn:network vni='40'/>", &rest);
    Call { args: vec!["network", "lab", "started", "begin", "-"], stdin: xml, ..Call::default() }
}

fn bridged_is_up(host: &Host) {
    let first = bridged("1450", "10.1.0.1", "00:00:00:11:11:10");
    host.hook(&first.args, first.stdin).ok();
}

on_a_host!(networks, {
    let host = &Host::new(CONFIG);
    strangers();
    let flat_up = |host: &Host| host.run(&["network", "up", "flat"]).ok().status.eq(&0).then_some(()).unwrap();
    let is_up_on_it = |host: &Host| {
        there_before(host);
        flat_up(host);
        without_theirs();
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
                before: &there_before,
                leave: &leave_there_before,
                ..plan
            },
            Plan { name: "network down", before: &flat_up, command: &down, on_failure: OnFailure::GoesOn, ..plan },
            Plan {
                name: "network down, on a bridge that was there",
                before: &is_up_on_it,
                command: &down,
                on_failure: OnFailure::GoesOn,
                leave: &leave_there_before,
                ..plan
            },
            Plan {
                name: "a network that is up changes",
                before: &bridged_is_up,
                command: &|| bridged("1400", "10.1.0.254", "00:00:00:11:11:99"),
                leave: &stopped,
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
