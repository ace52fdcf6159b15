//! The kernel room against a real kernel, each test in a fresh network namespace (unshare(1), so: as root).
//!
//! Every step is cross-checked with iproute2, the other implementation: set by us and read by `ip -j`, and the reverse.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/dnsmasq.rs"]
mod dnsmasq;
mod entries;
mod events;
#[path = "../common/inside.rs"]
mod inside;
mod links;
mod nft_tables;
mod reading;
mod routing;
mod rules;
mod snoop;

use common::{again, has_vlan_filtering, has_vrf, ip_link, json, sh, skip, try_sh};
use evpn_hook::kernel::Kernel;
use evpn_hook::model::{IfName, Mac};
use evpn_hook::plan::{Hears, Step};

/// Runs a test's body in a namespace of its own: the test binary runs itself once more under unshare(1).
macro_rules! netns {
    ($name:ident, $kernel:ident, $body:block) => {
        #[test]
        fn $name() {
            let name = crate::common::test_name(concat!(module_path!(), "::", stringify!($name)));
            crate::isolated(name, |$kernel: &mut evpn_hook::kernel::Kernel| $body);
        }
    };
}
pub(crate) use netns;

/// In a network namespace, with a kernel handle that was opened there.
fn isolated(name: &str, body: impl FnOnce(&mut Kernel)) {
    common::isolated(name, &["unshare", "-n", "--"], || body(&mut Kernel::open().unwrap()));
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

fn add_bridge(text: &str, mtu: Option<u32>) -> Step {
    Step::AddBridge { name: name(text), mac: mac("00:00:00:11:11:10"), mtu }
}

fn add_vxlan(vni: u32, local: &str) -> Step {
    Step::AddVxlan { vni: vni.try_into().unwrap(), local: local.parse().unwrap(), port: 4789, mtu: None }
}

fn master(dev: &str, master: Option<&str>) -> Step {
    Step::SetMaster { dev: name(dev), master: master.map(name) }
}

fn index(kernel: &mut Kernel, dev: &str) -> u32 {
    kernel.link(&name(dev)).unwrap().unwrap().index
}
