//! `make bench`: 1,000 `qemu start` hooks at once, as when a host's guests come back or another host is evacuated to this one, and 1,000 `stopped`.
//!
//! Two hosts in namespaces, each with a zebra and a bgpd of its own, joined by a veth and an iBGP session; every guest's entry has to arrive in the other
//! host's bridges, and to leave them. First the same without any speaker: FRR's daemons of both hosts share this machine's processors with the hooks.
//! Beside it FRR's own floor: the same entries made one after the other by a program that does nothing else (this one).

mod arrivals;
#[path = "../common/mod.rs"]
mod common;
#[path = "../fabric/host.rs"]
#[allow(dead_code)]
mod host;
mod processes;

use arrivals::Arrivals;
use common::crowd::{Crowd, Placed};
use common::figures::{Table, median, show};
use common::{batch, must, sh};
use evpn_hook::kernel::Kernel;
use evpn_hook::model::Mac;
use evpn_hook::plan::Step;
use evpn_hook::speaker::Frr;
use host::{Host, until};
use processes::{Burst, at_once, cores, cpu_of};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const GUESTS: usize = 1000;
const NETWORKS: usize = 10;
const ROUNDS: usize = 3;
const DAEMONS: [&str; 2] = ["zebra", "bgpd"];

fn main() {
    let hook = common::inside();
    for dir in ["/etc/frr", "/var/log", "/var/tmp"] {
        sh(&format!("mount -t tmpfs none {dir}"));
    }
    let mut crowd = Crowd::new(0, GUESTS / NETWORKS);
    crowd.grow(NETWORKS, 0);
    let place = GUESTS / NETWORKS;
    let guests: Vec<Placed> = (0..GUESTS).map(|n| Placed::new(n, n / place, n % place)).collect();
    batch("ip", &guests.iter().map(Placed::lines).collect::<String>());
    let calls = |phase: &str| -> Vec<_> {
        let call = |guest: &Placed| {
            let file = format!("/run/{}.xml", guest.name);
            fs::write(&file, guest.domain()).unwrap();
            (hook.clone(), format!("qemu {} {phase} -", guest.name), file)
        };
        guests.iter().map(call).collect()
    };
    let (start, stop) = (calls("start begin"), calls("stopped end"));

    let mut alone: [Vec<Run>; 2] = Default::default();
    for _ in 0..ROUNDS {
        for (calls, runs) in [&start, &stop].into_iter().zip(&mut alone) {
            runs.push(Run { burst: at_once(calls), ..Run::default() });
        }
    }

    let hosts = hosts(&hook);
    let macs: Vec<Mac> = guests.iter().map(|guest| guest.mac).collect();
    let netns = hosts[1].netns();
    let with = |there: bool, work: &dyn Fn() -> Burst| {
        let arrivals = Arrivals::listen(&netns, &macs, there);
        let (before, begin) = (frr_cpu(&hosts), Instant::now());
        let burst = work();
        let (last, missing) = arrivals.all();
        let after = frr_cpu(&hosts);
        let frr = std::array::from_fn(|daemon| after[daemon] - before[daemon]);
        Run { burst, last: Some(last.duration_since(begin).as_secs_f64()), missing, frr }
    };
    let mut runs: [Vec<Run>; 4] = Default::default();
    for _ in 0..ROUNDS {
        runs[0].push(with(true, &|| at_once(&start)));
        runs[1].push(with(false, &|| at_once(&stop)));
        runs[2].push(with(true, &|| bare(&guests, true)));
        runs[3].push(with(false, &|| bare(&guests, false)));
    }

    let head = [
        "",
        "failed",
        "wall, s",
        "their CPU, s",
        "wall / (CPU / cores)",
        "last one at the other host, s",
        "missing",
        "zebra, s",
        "bgpd, s",
        "other's zebra, s",
        "other's bgpd, s",
    ];
    let mut table = Table::new(&format!("{GUESTS} guests at once, on {NETWORKS} networks, {} cores", cores()), &head);
    row(&mut table, "qemu start, no speaker", &alone[0]);
    row(&mut table, "qemu stopped, no speaker", &alone[1]);
    row(&mut table, "qemu start, FRR", &runs[0]);
    row(&mut table, "qemu stopped, FRR", &runs[1]);
    row(&mut table, "floor: added by a bare program", &runs[2]);
    row(&mut table, "floor: deleted by a bare program", &runs[3]);
    table.note(format!(
        "Medians of {ROUNDS} rounds; failed and missing are sums. All processes are spawned as fast as {} threads can; wall is from before the first to after the last has ended. Wanted: wall at most 1.5 times their CPU on all cores; with FRR its four daemons' CPU (to when the last entry was there) comes out of the same cores.",
        cores()
    ));
    let of = |runs: &[Run]| median(&runs.iter().filter_map(|run| run.last).collect::<Vec<_>>());
    table.note(format!(
        "The last entry is at the other host after {:.2} times the floor, and gone after {:.2} times.",
        of(&runs[0]) / of(&runs[2]),
        of(&runs[1]) / of(&runs[3])
    ));
    show("burst", &[&table]);
    let all = alone.iter().chain(&runs).flatten();
    let (failed, missing) = all.fold((0, 0), |(f, m), run| (f + run.burst.failed, m + run.missing));
    assert_eq!((failed, missing), (0, 0), "hooks failed, entries missing");
}

#[derive(Default)]
struct Run {
    burst: Burst,
    /// When the last entry had come to, or gone from, the other host: seconds from the start.
    last: Option<f64>,
    missing: usize,
    /// Seconds of zebra and bgpd, here and there.
    frr: [f64; 4],
}

fn row(table: &mut Table, name: &str, runs: &[Run]) {
    let at = |value: &dyn Fn(&Run) -> f64| median(&runs.iter().map(value).collect::<Vec<_>>());
    let (wall, cpu) = (at(&|run| run.burst.wall), at(&|run| run.burst.cpu));
    let mut cells = vec![
        name.to_owned(),
        runs.iter().map(|run| run.burst.failed).sum::<usize>().to_string(),
        format!("{wall:.2}"),
        format!("{cpu:.2}"),
        match name.starts_with("floor") {
            // One process, on one core.
            true => "-".to_owned(),
            false => format!("{:.2}", at(&|run| run.burst.wall * cores() as f64 / run.burst.cpu)),
        },
    ];
    if runs.iter().all(|run| run.last.is_some()) {
        cells.push(format!("{:.2}", at(&|run| run.last.unwrap_or_default())));
        cells.push(runs.iter().map(|run| run.missing).sum::<usize>().to_string());
        cells.extend((0..4).map(|daemon| format!("{:.2}", at(&|run| run.frr[daemon]))));
    } else {
        cells.extend(std::iter::repeat_n("-".to_owned(), 6));
    }
    table.row(&cells);
}

/// This host and another, with the same networks and a session between them.
fn hosts(hook: &Path) -> [Host; 2] {
    let (mut first, mut second) = (Host::new(1), Host::new(2));
    first.cable(&second);
    let mut config = "[vtep]\naddress = '10.0.0.2'\n[speaker]\nkind = 'none'\n".to_owned();
    for n in 0..NETWORKS {
        config +=
            &format!("[[network]]\nname = 'net{n}'\nbridge = '{}'\nvni = {}\n", common::crowd::bridge(n), 1000 + n);
    }
    fs::write(second.config(), config).unwrap();
    must(second.evpn_hook(hook).args(["network", "up", "--all"]));
    first.start_frr("", &[2], false);
    second.start_frr("", &[1], false);
    let mut frr = Frr::with_deadlines(&first.dir, Duration::from_secs(5), Duration::from_secs(20));
    until("the session between the two", || {
        frr.evpn_peers().is_ok_and(|peers| peers.iter().any(|peer| peer.state == "Established"))
    });
    [first, second]
}

fn frr_cpu(hosts: &[Host; 2]) -> [f64; 4] {
    std::array::from_fn(|n| {
        let file = hosts[n / 2].dir.join(DAEMONS[n % 2]).with_extension("pid");
        cpu_of(fs::read_to_string(file).unwrap().trim())
    })
}

/// The guests' entries, made or deleted one after the other in this process.
fn bare(guests: &[Placed], there: bool) -> Burst {
    let mut kernel = Kernel::open().unwrap();
    let (begin, cpu) = (Instant::now(), cpu_of("self"));
    for Placed { tap: dev, bridge, mac, ip, .. } in guests {
        let (dev, bridge, mac, ip) = (dev.clone(), bridge.clone(), *mac, (*ip).into());
        let steps = match there {
            true => [Step::AddFdb { dev, mac }, Step::AddNeigh { bridge, ip, mac, router: false }],
            false => [Step::DelNeigh { bridge, ip }, Step::DelFdb { dev, mac }],
        };
        steps.iter().for_each(|step| kernel.apply(step).unwrap());
    }
    Burst { failed: 0, wall: begin.elapsed().as_secs_f64(), cpu: cpu_of("self") - cpu }
}
