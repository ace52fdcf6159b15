//! `make bench`: hooks as whole processes on this host's kernel, against an exec of a static no-op, a bash + iproute2 hook that does the same work,
//! and CloudStack's scripts; all in turn, so that a machine that drifts drifts for all. Then where the hook's own time goes.
//!
//! `make bench-check` compares what does not hang on the machine's speed with baseline.toml, and `make bench-baseline` sets that anew.
//!
//! EVPN_BENCH_ROUNDS sets how many rounds, for a quick look. Runs itself again in fresh network and mount namespaces: real bridges, VXLANs and taps, /run of its own, nothing left behind.

mod cases;
mod check;
#[path = "../common/mod.rs"]
mod common;
mod scene;
mod steps;

use cases::Case;
use common::figures::{self, Sample, Table, median, median_ratio, quantile};
use common::journald::Journald;
use common::{count, plot};
use scene::Scene;

const ROUNDS: usize = 150;
const WARM_UP: usize = 5;

fn main() {
    let hook = common::inside();
    let scene = Scene::new(&hook);
    // A host has one, and sending to it is a part of a hook's cost.
    let journald = Journald::start();
    assert!(scene::is_clean());
    match std::env::args().nth(1).as_deref() {
        Some("check") => check::check(&scene),
        Some("baseline") => check::set(&scene),
        _ => measure(&scene, &journald),
    }
    assert!(scene::is_clean(), "something was not taken back");
}

/// A case with its runs, and the no-op's beside each.
struct Row {
    case: Case,
    own: Vec<Sample>,
    noop: Vec<Sample>,
}

fn measure(scene: &Scene, journald: &Journald) {
    let rounds = std::env::var("EVPN_BENCH_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number"));
    let cases = cases::hook(scene).into_iter().chain([cases::in_pages(scene)]).chain(cases::peers(scene));
    let mut rows: Vec<Row> = cases.map(|case| Row { case, own: Vec::new(), noop: Vec::new() }).collect();
    let mut noop = cases::noop(scene);
    for round in 0..WARM_UP + rounds {
        for Row { case, own, noop: beside } in &mut rows {
            let samples = (noop.warm(|call| call.run()), case.warm(|call| call.run()));
            if round >= WARM_UP {
                beside.push(samples.0);
                own.push(samples.1);
            }
        }
        journald.forget();
    }
    let of_all = rows.iter().flat_map(|row| row.noop.clone()).collect::<Vec<_>>();
    let mut all = vec![Row { case: cases::noop(scene), own: of_all.clone(), noop: of_all }];
    all.append(&mut rows);
    let table = table(&mut all, rounds);
    let mut breakdown = |name: &str, event| {
        let row = all.iter_mut().find(|row| row.case.name == name).expect("a case of this name");
        steps::breakdown(journald, &mut noop, &mut row.case, event, rounds)
    };
    let start = breakdown("qemu start, 1 NIC", "qemu start");
    let network = breakdown("network started", "network started");
    figures::show("hook", &[&table, &start, &network]);
    picture("hook-wall.svg", "Hooks, whole processes: wall time, median", &all, |sample| sample.wall);
    picture("hook-cpu.svg", "Hooks, whole processes: CPU time, median", &all, |sample| sample.cpu);
}

fn wall(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.wall).collect()
}

fn cpu(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.cpu).collect()
}

fn table(rows: &mut [Row], rounds: usize) -> Table {
    let head =
        ["", "wall µs (min to p90)", "× no-op", "CPU µs", "× no-op", "system calls", "max RSS KiB", "page faults"];
    let mut table = Table::new("Hooks as whole processes", &head);
    for Row { case, own, noop } in rows.iter_mut() {
        let calls = case.with(|call| count::system_calls(&call.command, &call.input));
        let memory = case.with(|call| count::peak_memory(&call.command, &call.input));
        let (time, faults) = (wall(own), own.iter().map(|sample| sample.faults).collect::<Vec<_>>());
        table.row(&[
            case.name.clone(),
            format!("{:.0} ({:.0} to {:.0})", median(&time), quantile(&time, 0.0), quantile(&time, 0.9)),
            format!("{:.2}", median_ratio(&time, &wall(noop))),
            format!("{:.0}", median(&cpu(own))),
            format!("{:.2}", median_ratio(&cpu(own), &cpu(noop))),
            calls.to_string(),
            memory.to_string(),
            format!("{:.0}", median(&faults)),
        ]);
    }
    table.note(format!(
        "Medians of {rounds} rounds, all in turn, each right after an untimed run of the same; × no-op: the median of the ratios to the no-op's run just before."
    ));
    let find = |name: &str| &rows.iter().find(|row| row.case.name == name).expect("a case of this name").own;
    let (one, many, bash) = (find("qemu start, 1 NIC"), find("qemu start, 16 NICs"), find("bash: qemu start, 1 NIC"));
    table.note(format!(
        "16 NICs take {:.2} times the wall time of 1; the hook takes {:.3} of the bash hook's CPU and {:.3} of its wall time (1 NIC).",
        median_ratio(&wall(many), &wall(one)),
        median_ratio(&cpu(one), &cpu(bash)),
        median_ratio(&wall(one), &wall(bash))
    ));
    table
}

fn picture(file: &str, title: &str, rows: &[Row], of: impl Fn(&Sample) -> f64 + Copy) {
    let value = |row: &Row| median(&row.own.iter().map(of).collect::<Vec<_>>()) / 1e3;
    let bars: Vec<(String, f64)> = rows.iter().map(|row| (row.case.name.clone(), value(row))).collect();
    figures::keep(file, &plot::bars(title, "ms", &bars));
}
