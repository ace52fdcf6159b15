//! `make bench`: from the start of a hook's process to the guest's entries in another host's kernel, beside FRR's own floor (a program that adds the same
//! entries and does nothing else) and beside learning from the guest's first frame; from FRR to FRR, and through a third as route reflector.
//!
//! Runs itself again in namespaces of its own: hosts, daemons and files go with them. Where the kernel has no VRF the default one stands in for the
//! tenant's, and the same runs once more in the lab's second kernel, which has VRFs and takes many times as long for the start of any process.

mod arrivals;
#[path = "../common/mod.rs"]
mod common;
mod fabric;
mod host;
mod port;

use arrivals::SIGNS;
use common::figures::{Table, keep, median, quantile, show};
use common::plot::{Curve, curves};
use fabric::{Fabric, Times, Way};
use std::time::Duration;

const ROUNDS: usize = 80;
const ROUNDS_IN_THE_LAB: usize = 30;
const WARM_UP: usize = 3;
/// The guest's first frame has its turn in one round of so many: nothing hangs on its exact figure.
const FRAMES: usize = 3;
const LAB: &str = "bench-fabric";

const WAYS: [(Way, &str, &str); 3] = [
    (Way::Hook, "hook", "evpn-hook qemu … start"),
    (Way::Floor, "floor", "FRR's floor: a bare netlink program"),
    (Way::Frame, "first frame", "the guest's first frame, no hook"),
];
/// The times of all runs, by way.
type Runs = [Vec<Times>; WAYS.len()];

fn main() {
    let in_lab = common::is_in_the_lab();
    let in_vrf = common::has_vrf();
    if !common::is_inside() && !in_vrf && !in_lab {
        common::in_the_lab(LAB, 600, &["vrf.md", "vrf-fdb.svg", "vrf-route.svg"]);
    }
    let hook = common::inside();
    let rounds = if in_lab { ROUNDS_IN_THE_LAB } else { ROUNDS };
    let rounds = std::env::var("EVPN_BENCH_ROUNDS").map_or(rounds, |text| text.parse().expect("a number"));
    let mut fabric = Fabric::up(&hook, in_vrf);
    let mut delays = Delays(0x9e37_79b9_7f4a_7c15);
    let both = [false, true].map(|reflected| {
        fabric.reflect(reflected);
        measure(&mut fabric, rounds, &mut delays)
    });
    let place = match (in_lab, in_vrf) {
        (true, _) => "a tenant's VRF, in the lab's second kernel",
        (false, true) => "a tenant's VRF",
        (false, false) => "the default VRF as the tenant's",
    };
    let mut tables = ["from FRR to FRR", "through a route reflector"].map(|path| {
        let head = [&["median (minimum to 90th percentile), ms"][..], &SIGNS].concat();
        Table::new(&format!("Hook to fabric, {path}; {place}"), &head)
    });
    tables.iter_mut().zip(&both).for_each(|(table, runs)| fill(table, runs));
    tables[1].note(format!(
        "{rounds} rounds, hook and floor in turn, the frame in each third. 0 is just before the process is spawned, or the frame sent. The first column is \
         in the kernel of the guest's own host, the others are in the second host's."
    ));
    let name = if in_lab { "vrf" } else { "fabric" };
    for (sign, what) in [(1, "fdb"), (3, "route")] {
        let title = format!("{}, ms since the start; RR: through a route reflector; {place}", SIGNS[sign]);
        keep(&format!("{name}-{what}.svg"), &picture(&title, &both, sign));
    }
    show(name, &tables.each_ref());
}

/// All ways in turn, in another order each round; what came of one is gone everywhere before the next.
fn measure(fabric: &mut Fabric, rounds: usize, delays: &mut Delays) -> Runs {
    let mut runs = Runs::default();
    for round in 0..WARM_UP + rounds {
        for turn in 0..WAYS.len() {
            let number = (turn + round) % WAYS.len();
            let way = WAYS[number].0;
            if way == Way::Frame && round % FRAMES != 0 {
                continue;
            }
            std::thread::sleep(delays.next());
            let times = fabric.once(way);
            if round >= WARM_UP {
                runs[number].push(times);
            }
        }
    }
    runs
}

/// Up to 100 ms, the same at each run of the benchmark: FRR's timers have a phase, and no way shall keep step with it.
struct Delays(u64);

impl Delays {
    fn next(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_micros(self.0 % 100_000)
    }
}

fn column(runs: &[Times], sign: usize) -> Vec<f64> {
    runs.iter().map(|times| times[sign]).collect()
}

/// What is FRR's of it: from the entry in its own host's kernel on.
fn beyond(runs: &[Times], sign: usize) -> Vec<f64> {
    runs.iter().map(|times| times[sign] - times[0]).collect()
}

fn fill(table: &mut Table, runs: &Runs) {
    for ((_, _, name), runs) in WAYS.iter().zip(runs) {
        let cell = |sign| {
            let values = column(runs, sign);
            format!("{:.1} ({:.1} to {:.1})", median(&values), quantile(&values, 0.0), quantile(&values, 0.9))
        };
        row(table, name, (0..SIGNS.len()).map(cell).collect());
    }
    let [hook, floor, frame] = runs;
    for (name, below, of) in [
        ("hook / floor", floor, column as fn(&[Times], usize) -> Vec<f64>),
        ("hook / floor, from the own entry on", floor, beyond),
        ("hook / first frame", frame, column),
    ] {
        let ratio = |sign| format!("{:.3}", median(&of(hook, sign)) / median(&of(below, sign)));
        row(table, name, [vec![String::new()], (1..SIGNS.len()).map(ratio).collect()].concat());
    }
}

fn row(table: &mut Table, name: &str, cells: Vec<String>) {
    table.row(&[vec![name.to_owned()], cells].concat());
}

/// How many of the runs were there by then; without the last twentieth, whose stragglers would leave the others no room.
fn picture(title: &str, both: &[Runs; 2], sign: usize) -> String {
    let mut lines = Vec::new();
    for (runs, suffix) in both.iter().zip(["", ", RR"]) {
        for ((_, name, _), runs) in WAYS.iter().zip(runs) {
            let mut values = column(runs, sign);
            values.sort_by(f64::total_cmp);
            let shown = values.len() * 19 / 20;
            let share = |number: usize| number as f64 * 100.0 / values.len() as f64;
            let points = values[..shown].iter().enumerate().flat_map(|(n, at)| [(*at, share(n)), (*at, share(n + 1))]);
            lines.push(Curve { name: format!("{name}{suffix}"), points: points.collect() });
        }
    }
    curves(title, "ms", "% of the runs", &lines)
}
