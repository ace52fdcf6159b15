//! The reference fabric in one lab machine: spine1 as underlay and EVPN route reflector, comp1 and comp2 as hypervisors
//! with real FRR, libvirtd and LXC, each in namespaces and a root file system of its own.
//!
//! It panics on every failure: its callers are tests and a demo, and a panic already carries what they want to print.
#![allow(dead_code, unused_imports)] // shared by the scenarios and the lab shell, neither of which uses all of it
#![allow(unsafe_code)] // system calls in other namespaces

mod agent;
mod announce;
mod capture;
mod container;
mod dump;
mod echo;
mod fdb_events;
mod frr;
mod host;
mod migration;
mod monitor;
mod neighbour;
mod netns;
mod pinger;
#[path = "../../common/poison.rs"]
mod poison;
mod pulse;
mod stranger;
mod traces;
mod transcript;
mod vm;
mod wait;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, Once, OnceLock};
use std::time::{Duration, Instant};

pub use agent::Agent;
pub use capture::{Capture, Frame};
pub use container::{Container, Probe};
pub use echo::echo;
pub use fdb_events::FdbEvents;
pub use frr::{OtherFrr, START as FRR_START};
pub use host::{Host, Output, Running};
pub use migration::{Events, Migration};
pub use monitor::Monitor;
pub use netns::inside;
pub use pinger::{Ping, Pinger};
pub use pulse::{died, revive};
pub use stranger::Stranger;
pub use traces::Traces;
pub use transcript::{Line, Transcript};
pub use vm::{Nic, Vm, VmSpec};
pub use wait::wait_until;
pub use wire::Wire;

pub struct Fabric {
    spine1: Host,
    comp1: Host,
    comp2: Host,
    /// Only where a scenario wants it.
    comp3: OnceLock<Host>,
    newcomers: Mutex<Vec<&'static Host>>,
}

impl Fabric {
    /// The fabric of this process, built and converged at the first call.
    pub fn get() -> &'static Fabric {
        static FABRIC: OnceLock<Fabric> = OnceLock::new();
        let fabric = FABRIC.get_or_init(|| {
            assert!(
                std::env::var_os("EVPN_LAB").is_some(),
                "this needs the lab machine: use tests/lab/run, or `make lab`"
            );
            Fabric::build()
        });
        // Once also remembers a failure: later tests then fail at once, without another wait.
        static CONVERGED: Once = Once::new();
        CONVERGED.call_once(|| dump::on_panic(fabric, "bring-up", || fabric.converge()));
        fabric
    }

    pub fn spine1(&self) -> &Host {
        &self.spine1
    }

    pub fn comp1(&self) -> &Host {
        &self.comp1
    }

    pub fn comp2(&self) -> &Host {
        &self.comp2
    }

    /// A third hypervisor, for containers alone: made and converged at the first call, which should come before any tenant.
    pub fn comp3(&self) -> &Host {
        self.comp3.get_or_init(|| {
            let mut clock = Stopwatch::start();
            let comp3 = Host::create("comp3", None);
            self.join(&comp3);
            clock.lap("comp3");
            comp3
        })
    }

    fn join(&self, host: &Host) {
        let number = host.number();
        host.cable(&self.spine1);
        frr::start(host, &frr::hypervisor_config(number), &frr::hypervisor_loopbacks(number));
        frr::accept(&self.spine1, host.name(), number);
        host.install_hook();
        wait_for_evpn(host);
    }

    /// One more hypervisor, of this Debian suite, with libvirt: comp4, comp5 … It stays, and should come before any tenant.
    pub fn newcomer(&self, suite: &str) -> &'static Host {
        let mut clock = Stopwatch::start();
        let mut newcomers = self.newcomers.lock().expect("the newcomers");
        let host: &Host = Box::leak(Box::new(Host::create(&format!("comp{}", 4 + newcomers.len()), Some(suite))));
        newcomers.push(host);
        drop(newcomers);
        self.join(host);
        host.start_libvirtd();
        clock.lap(&format!("{} of {suite}", host.name()));
        host
    }

    /// A hypervisor of this suite, with libvirt: comp1, if it is one, or a newcomer.
    pub fn of(&'static self, suite: &str) -> &'static Host {
        if self.comp1.suite() == suite { &self.comp1 } else { self.newcomer(suite) }
    }

    /// All packages of a host are upgraded to this suite, and it is started again. FRR and the fabric are up afterwards, and nothing else.
    ///
    /// A node's own files lie above those of its suite, so below them others can be put, and the outcome is apt's: what the host has made is kept, so are
    /// conffiles that were changed, and all other files of packages are the new ones. But dpkg's list of packages is the suite's: what else was
    /// installed is for the caller to enter. So are the users, which the suite's files belong to.
    pub fn upgrade(&self, host: &Host, suite: &str) {
        frr::stop(host, false);
        self.spine1.ok(&["ip", "link", "del", host.name()]);
        host.power_off();
        for path in ["var/lib/dpkg/status", "etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"] {
            let _ = std::fs::remove_file(host.written().join(path));
        }
        host.power_on(suite);
        host.cable(&self.spine1);
        frr::boot(host, &frr::hypervisor_loopbacks(host.number()));
        wait_for_evpn(host);
    }

    /// Those with libvirt.
    pub fn hypervisors(&self) -> [&Host; 2] {
        [&self.comp1, &self.comp2]
    }

    /// All nodes so far, the spine first.
    pub fn nodes(&self) -> Vec<&Host> {
        let newcomers = self.newcomers.lock().expect("the newcomers").clone();
        [&self.spine1, &self.comp1, &self.comp2].into_iter().chain(self.comp3.get()).chain(newcomers).collect()
    }

    fn build() -> Fabric {
        let mut clock = Stopwatch::start();
        let fabric = Fabric {
            spine1: Host::create("spine1", None),
            comp1: Host::create("comp1", None),
            comp2: Host::create("comp2", None),
            comp3: OnceLock::new(),
            newcomers: Mutex::default(),
        };
        clock.lap("namespaces");
        let (spine1, hypervisors) = (&fabric.spine1, fabric.hypervisors());
        for host in hypervisors {
            host.cable(spine1);
        }
        clock.lap("cables");
        frr::start(spine1, &frr::spine_config(&hypervisors.map(Host::name)), frr::SPINE_LOOPBACKS);
        frr::start_reflector(spine1, fabric.comp2.number());
        for (number, host) in (1..).zip(hypervisors) {
            frr::start(host, &frr::hypervisor_config(number), &frr::hypervisor_loopbacks(number));
        }
        clock.lap("frr");
        // One after the other: two libvirtd that start at once race for the kernel's iptables chains. BGP converges meanwhile.
        for host in hypervisors {
            host.install_hook();
            host.start_libvirtd();
        }
        clock.lap("libvirtd");
        fabric
    }

    fn converge(&self) {
        let mut clock = Stopwatch::start();
        for host in self.hypervisors() {
            wait_for_evpn(host);
        }
        clock.lap("convergence");
    }
}

fn wait_for_evpn(host: &Host) {
    wait_until(&format!("{}'s EVPN session to the route reflector", host.name()), Duration::from_secs(60), || {
        frr::evpn_established(host)
    });
}

/// Says on stderr where the bring-up's time goes.
struct Stopwatch(Instant);

impl Stopwatch {
    fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    fn lap(&mut self, what: &str) {
        eprintln!("lab: {what} {:.1} s", self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}

/// Runs one scenario on the fabric, which must leave the hypervisors as it found them and FRR alive; if it fails, what every node knew at
/// that moment is kept.
pub fn scenario(name: &str, test: impl FnOnce(&'static Fabric)) {
    let fabric = Fabric::get();
    let result = catch_unwind(AssertUnwindSafe(|| {
        dump::on_panic(fabric, name, || {
            let mut clock = Stopwatch::start();
            let before = traces::Before::take(fabric.nodes().split_off(1));
            test(fabric);
            let died = pulse::died(&fabric.nodes());
            assert!(died.is_empty(), "{died}");
            before.assert_restored();
            clock.lap(name);
        })
    }));
    // One fault, one red test: the next finds a whole fabric.
    pulse::revive(fabric);
    if let Err(panic) = result {
        pulse::tidy(fabric);
        resume_unwind(panic);
    }
}
