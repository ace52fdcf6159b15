//! What is measured: each call with what has to be there before it and what takes it back afterwards.

use crate::scene::{self, Call, FRESH, Scene, VETH};
use std::fmt::Write;

pub struct Case {
    pub name: String,
    before: Vec<Call>,
    pub call: Call,
    after: Vec<Call>,
}

impl Case {
    fn new(name: impl Into<String>, before: Vec<Call>, call: Call, after: Vec<Call>) -> Case {
        Case { name: name.into(), before, call, after }
    }

    /// Does something with the call where it finds what a hypervisor would have left it, and takes its doings back.
    pub fn with<T>(&mut self, measure: impl FnOnce(&mut Call) -> T) -> T {
        for call in &mut self.before {
            call.run();
        }
        let result = measure(&mut self.call);
        for call in &mut self.after {
            call.run();
        }
        result
    }

    /// The same right after another run of it, so that its pages and the kernel's caches are warm, whatever ran before.
    pub fn warm<T>(&mut self, measure: impl FnOnce(&mut Call) -> T) -> T {
        self.with(|call| call.run());
        self.with(measure)
    }
}

pub fn noop(scene: &Scene) -> Case {
    Case::new("static no-op", vec![], scene.noop(), vec![])
}

/// evpn-hook's own calls.
pub fn hook(scene: &Scene) -> Vec<Case> {
    let start = |nics: usize| {
        let stopped = scene.qemu(nics, "stopped");
        Case::new(nics_of("qemu start", nics), vec![], scene.qemu(nics, "start"), vec![stopped])
    };
    let fresh = |operation| scene.network(FRESH, operation);
    vec![
        start(1),
        start(4),
        start(16),
        Case::new("qemu stopped, 1 NIC", vec![scene.qemu(1, "start")], scene.qemu(1, "stopped"), vec![]),
        Case::new("qemu prepare (nothing to do)", vec![], scene.qemu(1, "prepare"), vec![]),
        Case::new("network started", vec![], fresh("started"), vec![fresh("stopped")]),
        Case::new("LXC start-host", vec![], scene.lxc("start-host"), vec![scene.lxc("stop")]),
    ]
}

/// One call of a program that no file cache has in large pieces.
pub fn in_pages(scene: &Scene) -> Case {
    let stopped = scene.qemu(1, "stopped");
    Case::new("qemu start, 1 NIC, in single pages", vec![], scene.in_pages(scene.qemu(1, "start")), vec![stopped])
}

/// The same by others.
pub fn peers(scene: &Scene) -> Vec<Case> {
    let start = |nics: usize| {
        let call = scene.script("bash-hook", &["qemu", "vm1", "start", "begin", "-"], scene::domain(nics));
        let (mut fdb, mut neighbours) = (String::new(), String::new());
        for n in 0..nics {
            let (mac, ip) = scene::nic(n);
            let _ = writeln!(fdb, "fdb del {mac} dev vnet{n} master");
            let _ = writeln!(neighbours, "neigh del {ip} dev net{n}-l2");
        }
        let after = vec![scene::undo("bridge", &fdb), scene::undo("ip", &neighbours)];
        Case::new(nics_of("bash: qemu start", nics), vec![], call, after)
    };
    let vxlan = format!("vxlan{}", 100 + FRESH);
    let words = ["network", &format!("net{FRESH}"), "started", "begin", "-"];
    let network = Case::new(
        "bash: network started",
        vec![],
        scene.script("bash-hook", &words, scene::network(FRESH)),
        vec![scene::undo("ip", &format!("link del {vxlan}\n"))],
    );
    let (mac, ip) = (scene::CONTAINER, "10.1.0.39");
    let lxc = Case::new(
        "bash: LXC start-host",
        vec![],
        scene.as_lxc(scene.script("bash-hook", &["lxc", "c1", "lxc", "start-host"], ""), "start-host"),
        vec![
            scene::undo("bridge", &format!("fdb del {mac} dev {VETH} master\n")),
            scene::undo("ip", &format!("neigh del {ip} dev net0-l2\n")),
        ],
    );
    let (mac, ip) = scene::nic(0);
    let macip = Case::new(
        "CloudStack's way: one NIC",
        vec![],
        scene.script("cloudstack-macip", &["-o", "add", "-b", "net0-l2", "-m", &mac, "-4", &ip], ""),
        vec![scene::undo("ip", &format!("neigh del {ip} dev net0-l2\nroute del {ip}/32 dev net0-l2\n"))],
    );
    // It makes the bridge as well, under a name of its own.
    let made = "brvx-200";
    let vni = Case::new(
        "CloudStack's way: one VNI",
        vec![],
        scene.script("cloudstack-vxlan", &["-o", "add", "-v", "200", "-p", "lo", "-b", made], ""),
        vec![scene::undo("ip", &format!("link del vxlan200\nlink del {made}\n"))],
    );
    vec![start(1), start(4), start(16), network, lxc, macip, vni]
}

fn nics_of(what: &str, nics: usize) -> String {
    format!("{what}, {nics} NIC{}", if nics == 1 { "" } else { "s" })
}
