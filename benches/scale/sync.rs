//! `sync` as a whole process: when there is nothing to do, and when every entry is gone.

use crate::common::crowd::{CONFIG, Crowd, Look};
use crate::common::figures::{Sample, Table, median, run};
use crate::common::must;
use std::path::Path;
use std::process::Command;

const ROUNDS: usize = 5;

pub fn table() -> Table {
    let head = ["guests on networks", "warm, ms", "CPU, ms", "cold, ms", "CPU, ms", "RSS, MB"];
    let mut table = Table::new("sync: nothing to do (warm), every FDB and neighbour entry gone (cold)", &head);
    table.note(format!(
        "Medians of {ROUNDS} rounds; RSS is the largest of all. Wanted: warm < 500 ms, cold < 2000 ms, RSS < 40 MB."
    ));
    table
}

/// A row of it.
pub fn measure(hook: &Path, crowd: &Crowd, table: &mut Table) {
    let sync = || -> Sample { run(Command::new(hook).args(["--config", CONFIG, "sync"]), &[]) };
    sync();
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        warm.push(sync());
        crowd.flush();
        cold.push(sync());
        let said = must(Command::new(hook).args(["--config", CONFIG, "sync"]));
        assert_eq!(said, "nothing to do\n", "a cold sync mended all");
        let mut look = Look::new();
        assert!(crowd.guests.iter().all(|guest| look.is_there(guest)), "an entry is missing after a sync");
    }
    let at = |samples: &[Sample], value: fn(&Sample) -> f64| {
        format!("{:.0}", median(&samples.iter().map(value).collect::<Vec<_>>()) / 1e3)
    };
    let rss = warm.iter().chain(&cold).map(|s| s.rss).fold(0.0, f64::max) / 1024.0;
    table.row(&[
        format!("{} on {}", crowd.guests.len(), crowd.networks()),
        at(&warm, |s| s.wall),
        at(&warm, |s| s.cpu),
        at(&cold, |s| s.wall),
        at(&cold, |s| s.cpu),
        format!("{rss:.1}"),
    ]);
}
