//! `make bench`: what `status`, `explain` and `doctor` cost on a fabric of 100,000 routes, beside the same on an empty one.
//!
//! Twice a host with one network and one guest, its FRR and a peer: one peer announces 80,000 MACs on four VNIs, of which the host has one, and 20,000
//! addresses on that, the other peer nothing. Each report is asked of both in turn. It ends with 1 where one costs more than it may.

#[path = "../common/mod.rs"]
mod common;
mod fabric;
#[path = "../fabric/host.rs"]
#[allow(dead_code)]
mod host;

use common::figures::{Sample, Table, median, median_ratio, quantile, show};
use fabric::{Fabric, GUEST, IP, far_ip, far_mac};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

const MACS: usize = 80_000;
const ROUNDS: usize = 20;
/// A report on the large fabric may cost so many times what it does on the empty one; doctor, which looks at all of the host, so many ms.
const WANTED: f64 = 1.5;
const WANTED_OF_DOCTOR: f64 = 3000.0;

fn main() {
    let hook = common::inside();
    let number = |name: &str, default: usize| -> usize {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (macs, rounds) = (number("EVPN_BENCH_MACS", MACS), number("EVPN_BENCH_ROUNDS", ROUNDS));
    let empty = Empty::start(&hook);
    let large = Fabric::up(&hook, macs);
    let (far_mac, far_ip) = (far_mac(macs / 8), far_ip(macs / 8));
    // What there is of it on the empty fabric is nothing; the guest of this host stands for it there.
    let (own_mac, own_ip) = (GUEST.to_owned(), IP.to_owned());
    let reports = [
        ("status --check", ["status --check".to_owned(), "status --check".to_owned()]),
        ("explain, a guest of this host", ["explain web".to_owned(), "explain web".to_owned()]),
        ("explain, a MAC of another", [format!("explain {far_mac}"), format!("explain {own_mac}")]),
        ("explain, an address of another", [format!("explain {far_ip}"), format!("explain {own_ip}")]),
        ("doctor", ["doctor".to_owned(), "doctor".to_owned()]),
    ];
    let (routes, entries) = large.size();
    let title = format!(
        "Reports on a fabric of {routes} routes, {entries} MACs and addresses of them in the host's one network"
    );
    let mut table = Table::new(
        &title,
        &["", "empty, ms", "large, ms", "10th to 90th percentile", "ratio", "CPU, ms", "CPU large/empty"],
    );
    let mut dear = Vec::new();
    for (name, [of_large, of_empty]) in reports {
        let mut runs: [Vec<Sample>; 2] = Default::default();
        for _ in 0..=rounds {
            runs[0].push(empty.report(&of_empty));
            runs[1].push(large.report(&of_large));
        }
        // The first of each warms up.
        let walls = runs.each_ref().map(|runs| runs[1..].iter().map(|run| run.wall / 1e3).collect::<Vec<_>>());
        let cpu = runs.each_ref().map(|runs| runs[1..].iter().map(|run| run.cpu / 1e3).collect::<Vec<_>>());
        let (large, ratio) = (median(&walls[1]), median_ratio(&walls[1], &walls[0]));
        dear.extend(too_dear(name, large, ratio));
        table.row(&[
            name.to_owned(),
            format!("{:.1}", median(&walls[0])),
            format!("{large:.1}"),
            format!("{:.1} to {:.1}", quantile(&walls[1], 0.1), quantile(&walls[1], 0.9)),
            format!("{ratio:.2}"),
            format!("{:.1}", median(&cpu[1])),
            format!("{:.2}", median_ratio(&cpu[1], &cpu[0])),
        ]);
    }
    table.note(format!(
        "Medians of {rounds} pairs: whole processes, from before fork to after wait; CPU is theirs on the large fabric, without FRR's. Wanted: at most {WANTED} times \
         for status and explain, doctor at most {WANTED_OF_DOCTOR:.0} ms. Where a guest of another host is asked for, the empty fabric's own guest stands beside it."
    ));
    show("reports", &[&table]);
    if !dear.is_empty() {
        eprintln!("a report on a large fabric is dearer than it may be:");
        dear.iter().for_each(|line| eprintln!("  {line}"));
        std::process::exit(1);
    }
}

/// By how much, if it is.
fn too_dear(name: &str, large: f64, ratio: f64) -> Option<String> {
    match name {
        "doctor" => (large > WANTED_OF_DOCTOR)
            .then(|| format!("{name}: {large:.0} ms, and at most {WANTED_OF_DOCTOR:.0} are wanted")),
        _ => (ratio > WANTED).then(|| {
            format!("{name}: {ratio:.2} times what it costs on an empty one, and at most {WANTED} are wanted")
        }),
    }
}

/// The empty fabric, in namespaces of its own.
struct Empty {
    calls: Sender<String>,
    samples: Receiver<Sample>,
}

impl Empty {
    fn start(hook: &Path) -> Empty {
        let (calls, asked) = channel::<String>();
        let (answer, samples) = channel();
        let hook: PathBuf = hook.to_owned();
        thread::spawn(move || {
            common::own_namespaces();
            let fabric = Fabric::up(&hook, 0);
            for words in asked {
                answer.send(fabric.report(&words)).unwrap();
            }
        });
        Empty { calls, samples }
    }

    fn report(&self, words: &str) -> Sample {
        self.calls.send(words.to_owned()).unwrap();
        self.samples.recv().expect("the empty fabric's thread lives")
    }
}
