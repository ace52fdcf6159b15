//! The whole program on a host of its own: each test has a fresh network namespace, a /run of its own, and starts the real binary.
//!
//! Bad input first: what is wrong is said in one line that names the object and the way out, the exit status is as promised, and
//! nothing is left behind. Then the ways that work, as a user or a hypervisor would call.

mod advice;
mod agent;
mod at_work;
mod boot;
mod broken_host;
mod changes;
mod clash;
#[path = "../common/mod.rs"]
mod common;
mod crowd;
#[path = "../common/dnsmasq.rs"]
mod dnsmasq;
mod doctor;
mod door;
mod duplicates;
mod explain;
mod faults;
mod firewall;
#[path = "../common/forge.rs"]
mod forge;
mod guests;
mod half_way;
mod host;
mod hostile;
mod identity;
mod inmate;
#[path = "../common/inside.rs"]
mod inside;
mod inspect;
mod install;
mod journal;
mod learned;
mod lxc;
mod metrics;
mod mtu;
mod networks;
mod probes;
mod proxmox;
mod record;
mod routed;
mod rules;
mod security;
mod status;
mod storm;
mod sync;
#[path = "../common/table.rs"]
mod table;
mod there_before;
mod trouble;
mod unread;
mod whose;
mod wrong;
mod xml;

/// A test on a host of its own; unshare(1) and mount(8), so: as root.
macro_rules! on_a_host {
    ($name:ident, $body:block) => {
        #[test]
        fn $name() {
            let name = crate::common::test_name(concat!(module_path!(), "::", stringify!($name)));
            crate::common::isolated(name, crate::OWN_HOST, || $body);
        }
    };
}
pub(crate) use on_a_host;

const OWN_HOST: &[&str] = &[
    "unshare",
    "-n",
    "-m",
    "--propagation",
    "private",
    "--",
    "sh",
    "-c",
    "mount -t tmpfs run /run && exec \"$@\"",
    "sh",
];
