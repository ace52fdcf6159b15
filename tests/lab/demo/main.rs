//! `make demo`: the webinar's fabric, played on the lab. Every line that it prints comes from a command that it ran, and it
//! ends with status 0 only if all that it shows is as it should be.

#[path = "../fabric/mod.rs"]
mod fabric;
mod guests;
mod leaving;
mod networks;
mod story;
mod tables;
mod timeline;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;

use fabric::{Agent, Fabric, Host, Monitor};
use story::Story;

/// One tenant of the reference fabric.
pub struct Tenant {
    pub name: &'static str,
    pub bridge: &'static str,
    pub l3_bridge: &'static str,
    pub vni: u32,
    pub vnis: &'static str,
    pub gateway: &'static str,
}

pub static RED: Tenant =
    Tenant { name: "red", bridge: "red-l2", l3_bridge: "red-l3", vni: 20, vnis: "20/10", gateway: "10.1.0.1" };
pub static GREEN: Tenant =
    Tenant { name: "green", bridge: "green-l2", l3_bridge: "green-l3", vni: 40, vnis: "40/30", gateway: "10.2.0.1" };

/// One guest: VMs live on comp1, containers on comp2.
pub struct Guest {
    /// What tables call it.
    pub label: &'static str,
    /// What its hypervisor calls it.
    pub name: &'static str,
    pub tenant: &'static Tenant,
    pub mac: &'static str,
    pub ip: String,
    pub is_vm: bool,
}

impl Guest {
    pub fn host<'a>(&self, fabric: &'a Fabric) -> &'a Host {
        if self.is_vm { fabric.comp1() } else { fabric.comp2() }
    }

    /// Where the fabric's word of it arrives.
    pub fn other_host<'a>(&self, fabric: &'a Fabric) -> &'a Host {
        if self.is_vm { fabric.comp2() } else { fabric.comp1() }
    }

    pub fn vtep(&self) -> &'static str {
        if self.is_vm { "10.0.0.1" } else { "10.0.0.2" }
    }

    pub fn router_mac(&self) -> &'static str {
        if self.is_vm { "02:45:0a:00:00:01" } else { "02:45:0a:00:00:02" }
    }
}

/// What all chapters use.
pub struct Stage {
    pub fabric: &'static Fabric,
    pub story: Story,
    /// What the two kernels announce.
    pub comp1: Monitor,
    pub comp2: Monitor,
    /// Each hypervisor's, once they were started.
    pub agents: Vec<Agent>,
}

const PICTURE: &str = r"
                 spine1               underlay (eBGP unnumbered) and EVPN route reflector
               /        \
          comp1          comp2        FRR in AS 64512, l2vpn evpn with advertise-all-vni
       10.0.0.1          10.0.0.2     VTEP
   libvirt, QEMU          LXC         evpn-hook is called by libvirt's and LXC's hooks
     alpine-red          red          tenant red:   VRF table 10, L3VNI 10, L2VNI 20, 10.1.0.0/24
   alpine-green          green        tenant green: VRF table 30, L3VNI 30, L2VNI 40, 10.2.0.0/24";

fn play(fabric: &'static Fabric) -> i32 {
    let story = Story::default();
    println!("{PICTURE}");
    let (comp1, comp2) = (fabric.comp1().monitor(), fabric.comp2().monitor());
    let mut stage = Stage { fabric, story, comp1, comp2, agents: Vec::new() };
    let before = leaving::Before::of(fabric);
    networks::up(&mut stage);
    let mut vms = guests::start_vms(&mut stage);
    let containers = guests::start_containers(&mut stage);
    tables::all(&mut stage, &mut vms, &containers);
    leaving::all(&mut stage, vms, containers, &before);
    stage.story.verdict()
}

fn main() {
    let mut status = 1;
    // A wait in vain panics; what every node knew by then is dumped, and the demo has failed.
    let played = catch_unwind(AssertUnwindSafe(|| fabric::scenario("demo", |fabric| status = play(fabric))));
    exit(if played.is_ok() { status } else { 1 });
}
