//! When each thing happened, on the one clock that all nodes of the lab share.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use super::fabric::{Line, Monitor};
use super::{Guest, Stage};

pub const SOON: Duration = Duration::from_secs(30);

/// What a kernel announced.
pub struct Moment {
    /// "comp2  FDB entry"
    pub what: &'static str,
    pub line: Line,
}

/// What happened in both kernels when a VM started or stopped: entries on comp1, then on comp2.
pub struct Timeline {
    pub typed: Instant,
    pub moments: Vec<Moment>,
}

impl Timeline {
    /// The first entry that the hook made or removed.
    pub fn first(&self) -> Instant {
        self.moments.iter().map(|moment| moment.line.at).min().unwrap_or(self.typed)
    }

    /// When the last one was done.
    pub fn last(&self) -> Instant {
        self.moments.iter().map(|moment| moment.line.at).max().unwrap_or(self.typed)
    }
}

/// Where each monitor stood before something was typed.
pub struct Mark {
    typed: Instant,
    comp1: usize,
    comp2: usize,
}

impl Mark {
    pub fn now(stage: &Stage) -> Mark {
        let (comp1, comp2) = (stage.comp1.transcript().len(), stage.comp2.transcript().len());
        Mark { typed: Instant::now(), comp1, comp2 }
    }

    /// Tells each of the VM's entries as it appears.
    pub fn appears(&self, stage: &Stage, vm: &Guest) -> Timeline {
        self.read(stage, vm, vm.mac, |line| !line.text.starts_with("Deleted"))
    }

    /// Tells each as it goes; a neighbour that the kernel deletes has no MAC any more.
    pub fn goes(&self, stage: &Stage, vm: &Guest) -> Timeline {
        self.read(stage, vm, "", |line| line.text.starts_with("Deleted"))
    }

    fn read(&self, stage: &Stage, vm: &Guest, neighbour: &str, wanted: impl Fn(&Line) -> bool) -> Timeline {
        let first = |monitor: &Monitor, mut from: usize, parts: &[&str]| loop {
            let (at, line) = monitor.transcript().wait_from(from, parts, SOON);
            if wanted(&line) {
                return line;
            }
            from = at + 1;
        };
        let (mac, ip) = (vm.mac, format!("{} ", vm.ip));
        let vxlan = format!("dev vxlan{}", vm.tenant.vni);
        let (bridge, l3) = (format!("dev {}", vm.tenant.bridge), format!("dev {}", vm.tenant.l3_bridge));
        let here = |parts: &[&str]| first(&stage.comp1, self.comp1, parts);
        let there = |parts: &[&str]| first(&stage.comp2, self.comp2, parts);
        let mut timeline = Timeline { typed: self.typed, moments: Vec::new() };
        let mut tell = |what: &'static str, line: Line| {
            stage.story.say(&format!("  {} kernel: {}", &what[..5], line.text));
            timeline.moments.push(Moment { what, line });
        };
        tell("comp1  FDB entry", here(&[mac, "dev vnet", "master"]));
        tell("comp1  neighbour entry", here(&[&ip, &bridge, neighbour]));
        tell("comp2  FDB entry", there(&[mac, &vxlan, "dst"]));
        tell("comp2  neighbour entry", there(&[&ip, &bridge, neighbour]));
        tell("comp2  route in the VRF", there(&[&ip, &l3]));
        timeline
    }
}

/// From `zero` to `at`, with a sign: `-0.61 s`, `+162 ms`.
pub fn after(zero: Instant, at: Instant) -> String {
    match at.cmp(&zero) {
        Ordering::Less => format!("-{}", span(at, zero)),
        Ordering::Equal => "0".to_owned(),
        Ordering::Greater => format!("+{}", span(zero, at)),
    }
}

pub fn span(from: Instant, to: Instant) -> String {
    match (to - from).as_secs_f64() {
        gap if gap < 0.01 => format!("{:.1} ms", gap * 1e3),
        gap if gap < 1.0 => format!("{:.0} ms", gap * 1e3),
        gap => format!("{gap:.2} s"),
    }
}
