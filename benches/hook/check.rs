//! The short form for CI: has a kind of call become dearer than baseline.toml says? Counts, not times, so that a busy machine makes no difference.

use crate::cases;
use crate::common::figures::Table;
use crate::common::{count, project};
use crate::scene::Scene;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Dearer than this is too dear; cheaper by as much should become the baseline.
const MOST: f64 = 1.20;
const HEAD: &str =
    "# What each kind of hook call may cost on x86-64: tests/run fails where one takes 20 % more (benches/hook/check.rs).
# Set anew by `make bench-baseline`; a commit that does so says why.\n\n";

/// One call's costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Counts {
    /// In user space.
    instructions: u64,
    system_calls: u64,
    /// Those that read nothing from a disk.
    page_faults: u64,
}

impl Counts {
    fn each(self) -> [(&'static str, u64); 3] {
        [("instructions", self.instructions), ("system calls", self.system_calls), ("page faults", self.page_faults)]
    }
}

fn file() -> PathBuf {
    project().join("benches/hook/baseline.toml")
}

fn counts(scene: &Scene) -> BTreeMap<String, Counts> {
    let one = |mut case: cases::Case| {
        case.call = scene.in_pages(case.call);
        let counts = Counts {
            instructions: case.with(|call| count::instructions(&call.command, &call.input)),
            system_calls: case.with(|call| count::system_calls(&call.command, &call.input)),
            page_faults: count::page_faults(|| case.with(|call| call.run())),
        };
        (case.name, counts)
    };
    cases::hook(scene).into_iter().map(one).collect()
}

/// Fails, and says which and by how much, where one is dearer than it may be.
pub fn check(scene: &Scene) {
    let text = fs::read_to_string(file()).unwrap_or_else(|error| panic!("{}: {error}", file().display()));
    let baseline: BTreeMap<String, Counts> =
        toml::from_str(&text).unwrap_or_else(|error| panic!("baseline.toml: {error}"));
    let counts = counts(scene);
    let mut table = Table::new("Hook calls against the baseline", &["", "count", "baseline", "of it"]);
    let mut dear = Vec::new();
    for (name, now) in &counts {
        let Some(then) = baseline.get(name) else {
            dear.push(format!("{name}: not in the baseline"));
            continue;
        };
        for ((what, now), (_, then)) in now.each().into_iter().zip(then.each()) {
            let ratio = now as f64 / then as f64;
            table.row(&[
                format!("{name}: {what}"),
                now.to_string(),
                then.to_string(),
                format!("{:.1} %", ratio * 100.0),
            ]);
            if ratio < 1.0 / MOST {
                println!("cheaper: {name}: {what}; `make bench-baseline` keeps it so");
            }
            if ratio > MOST {
                dear.push(format!("{name}: {now} {what}, {:.1} % above the baseline's {then}", (ratio - 1.0) * 100.0));
            }
        }
    }
    let gone = baseline.keys().filter(|name| !counts.contains_key(*name));
    dear.extend(gone.map(|name| format!("{name}: in the baseline, and no such call is measured")));
    print!("{}", table.text());
    if !dear.is_empty() {
        eprintln!("a hook is dearer than it may be (20 % above benches/hook/baseline.toml):");
        dear.iter().for_each(|line| eprintln!("  {line}"));
        eprintln!("if that is what it has to cost: `make bench-baseline`, and say why in the commit");
        std::process::exit(1);
    }
}

/// Writes down what the calls cost now.
pub fn set(scene: &Scene) {
    let text = HEAD.to_owned() + &toml::to_string(&counts(scene)).unwrap();
    fs::write(file(), &text).unwrap();
    print!("{text}");
}
