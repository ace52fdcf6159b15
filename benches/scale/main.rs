//! `make bench`: what a host costs that fills up: each hook's latency up to 1,000 networks and 10,000 guests (and 200 VRFs with their
//! L3VNIs, where the kernel has VRFs), and what the agent and `sync` cost on it; `sync` once more where as many guests are on few networks.
//!
//! Runs itself again in fresh namespaces: real bridges, tunnels, taps, libvirt's status files, /run of its own, nothing left behind. The host is filled by
//! the code that the hooks run, in this process. Hooks are measured as whole processes, each beside the same on a second host that stays empty, and all
//! in turn with an exec of a static no-op: what slows the machine slows both, so the ratio tells more than the time.
//!
//! Where the kernel has no VRFs the hooks are measured once more in the lab's second kernel.
//!
//! EVPN_BENCH_PART=10 makes all of it on a tenth of the host.

mod agent;
#[path = "../common/mod.rs"]
mod common;
mod hooks;
mod sync;

use common::crowd::{Crowd, PORTS};
use common::figures::{Sample, Table, keep, median, median_ratio, show};
use common::plot::{Curve, curves};
use hooks::{Empty, Hooks};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Networks and guests; one network is what each host has that runs anything at all.
const FILLINGS: [(usize, usize); 3] = [(100, 1000), (300, 3000), (1000, 10_000)];
const VRFS: usize = 200;
/// The agent is measured at these fillings.
const AGENT_AT: [usize; 2] = [0, 2];
/// Set for the host of few networks.
const FEW: &str = "EVPN_BENCH_FEW";

fn main() {
    let in_vrfs = common::has_vrf();
    if !common::is_inside() && !in_vrfs && !common::is_in_the_lab() {
        common::in_the_lab("bench-scale", 900, &["scale-vrf.md", "scale-flat-vrf.svg", "scale-all-vrf.svg"]);
    }
    let hook = common::inside();
    let part = std::env::var("EVPN_BENCH_PART").map_or(1, |text| text.parse().expect("EVPN_BENCH_PART is a number"));
    let fillings = FILLINGS.map(|(networks, guests)| (networks.div_ceil(part), guests / part));
    let vrfs = if in_vrfs { VRFS.div_ceil(part) } else { 0 };
    match std::env::var_os(FEW) {
        Some(_) => few(&hook, vrfs, fillings[FILLINGS.len() - 1].1),
        None => many(&hook, vrfs, fillings),
    }
}

/// Beside what has been left by a run on a kernel with the other answer.
fn named(name: &str, vrfs: usize) -> String {
    format!("{name}{}", if vrfs == 0 { "" } else { "-vrf" })
}

fn many(hook: &Path, vrfs: usize, fillings: [(usize, usize); 3]) {
    let empty = Empty::start(hook, vrfs);
    let mut crowd = Crowd::new(vrfs, 10);
    crowd.grow(1, 0);
    let hooks = Hooks::prepare(hook, &crowd);
    let mut agents = agent::table();
    let (mut measured, mut took) = (Vec::new(), Vec::new());
    for (number, (networks, guests)) in fillings.into_iter().enumerate() {
        let start = Instant::now();
        crowd.grow(networks, guests);
        took.push(format!("{networks}/{guests} in {:.1} s", start.elapsed().as_secs_f64()));
        measured.push(hooks.measure(&empty));
        if AGENT_AT.contains(&number) && !common::is_in_the_lab() {
            agent::measure(hook, &crowd, &mut agents);
        }
    }
    let mut table = latency(&hooks, vrfs, fillings, &measured);
    table.note(format!("Filled up (networks/guests): {}.", took.join(", ")));
    if common::is_in_the_lab() {
        return show(&named("scale", vrfs), &[&table]);
    }
    let mut syncs = sync::table();
    sync::measure(hook, &crowd, &mut syncs);
    show(&named("scale", vrfs), &[&table, &agents, &syncs]);
    // In other namespaces, and these end with their last process.
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--"]).arg(std::env::current_exe().unwrap()).env(FEW, "1");
    panic!("unshare (util-linux): {}", command.exec());
}

/// The same number of guests on few networks.
fn few(hook: &Path, vrfs: usize, guests: usize) {
    let mut crowd = Crowd::new(vrfs, PORTS);
    crowd.grow(guests.div_ceil(PORTS), guests);
    let mut table = sync::table();
    sync::measure(hook, &crowd, &mut table);
    show(&named("sync-few", vrfs), &[&table]);
}

/// Each hook's row, and pictures of them.
fn latency(hooks: &Hooks, vrfs: usize, fillings: [(usize, usize); 3], measured: &[Vec<[Vec<Sample>; 2]>]) -> Table {
    let title = match vrfs {
        0 => "A hook on a host that fills up (no VRFs, this kernel has none)".to_owned(),
        vrfs => format!("A hook on a host that fills up, its networks in {vrfs} VRFs"),
    };
    let head: Vec<String> = fillings.iter().map(|(networks, guests)| format!("{networks}/{guests}")).collect();
    let head: Vec<&str> = ["networks/guests:", "1/0"].into_iter().chain(head.iter().map(String::as_str)).collect();
    let mut table = Table::new(&title, &[&head[..], &["CPU full/empty"]].concat());
    let of = |samples: &[Sample], value: fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<_>>();
    let mut plotted = Vec::new();
    for (number, name) in hooks.names().enumerate() {
        let walls = |host: usize| measured.iter().map(move |calls| of(&calls[number][host], |sample| sample.wall));
        let empty: Vec<f64> = walls(1).flatten().collect();
        let growth: Vec<f64> = walls(0).zip(walls(1)).map(|(full, empty)| median_ratio(&full, &empty)).collect();
        let cells = walls(0).zip(&growth).map(|(full, growth)| format!("{:.0} µs, {growth:.2}", median(&full)));
        let [full, other] = [0, 1].map(|host| of(&measured[FILLINGS.len() - 1][number][host], |sample| sample.cpu));
        let row = [name.to_owned(), format!("{:.0} µs", median(&empty))].into_iter().chain(cells);
        // The lab's kernel counts in ticks, of which a no-op takes none.
        let cpu = Some(median(&full) / median(&other)).filter(|growth| growth.is_finite());
        let cpu = cpu.map_or("-".to_owned(), |growth| format!("{growth:.2}"));
        table.row(&row.chain([cpu]).collect::<Vec<_>>());
        let points = fillings.iter().zip(&growth).map(|((_, guests), growth)| (*guests as f64, *growth));
        plotted.push(Curve { name: name.to_owned(), points: [(0.0, 1.0)].into_iter().chain(points).collect() });
    }
    let rounds = measured.iter().map(|all| all[0][0].len().to_string()).collect::<Vec<_>>();
    table.note(format!(
        "Medians of {} rounds: µs, and how many times what the same call took in the same round on a host that stays empty (wanted: at most 1.2).",
        rounds.join(", ")
    ));
    let picks = [("flat", &["static", "qemu", "LXC"][..]), ("all", &["network", "attach", "detach", "qemu start"][..])];
    for (what, words) in picks {
        let (picked, rest) =
            plotted.into_iter().partition(|c: &Curve| words.iter().any(|word| c.name.starts_with(word)));
        plotted = rest;
        let picture = curves(&title, "guests on the host", "times the same on an empty host", &picked);
        keep(&format!("{}.svg", named(&format!("scale-{what}"), vrfs)), &picture);
    }
    table
}
