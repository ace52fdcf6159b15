//! Where a call's time goes, by the times that it tells journald itself: one entry a step, and one for the whole.

use crate::cases::Case;
use crate::common::figures::{Table, median};
use crate::common::journald::{Entry, Journald};

/// A table of this call's medians: each step, and what lies around them. `event` is the call's name in the journal.
pub fn breakdown(journald: &Journald, noop: &mut Case, case: &mut Case, event: &str, rounds: usize) -> Table {
    let (mut empty, mut whole, mut inside, mut taken) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // Each step's text, in the order in which they are taken, with its times.
    let mut steps: Vec<(String, Vec<f64>)> = Vec::new();
    journald.forget();
    for _ in 0..rounds {
        empty.push(noop.warm(|call| call.run().wall));
        case.with(|call| (call.run(), journald.call(event)));
        let (wall, entries) = case.with(|call| (call.run().wall, journald.call(event)));
        whole.push(wall);
        let (last, first) = entries.split_last().expect("a call says how it ended");
        inside.push(micros(last));
        let each: Vec<&Entry> = first.iter().filter(|entry| entry.contains_key("STEP")).collect();
        taken.push(each.iter().map(|entry| micros(entry)).sum());
        for entry in each {
            let text = entry["MESSAGE"].split("  [").next().unwrap_or_default();
            match steps.iter_mut().find(|(known, _)| known == text) {
                Some((_, times)) => times.push(micros(entry)),
                None => steps.push((text.to_owned(), vec![micros(entry)])),
            }
        }
    }
    let pairs = |a: &[f64], b: &[f64]| median(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>());
    let total = median(&whole);
    let mut table = Table::new(&format!("Where the time of '{}' goes", case.name), &["", "µs", "of the whole"]);
    let mut row = |what: &str, micros: f64| {
        table.row(&[what.to_owned(), format!("{micros:.0}"), format!("{:.0} %", micros / total * 100.0)]);
    };
    row("a process: fork, exec, exit, wait (the no-op)", median(&empty));
    row("this process's own: a larger image, its start, its end", pairs(&whole, &inside) - median(&empty));
    row("read, ask, plan, write down, say", pairs(&inside, &taken));
    for (text, times) in &steps {
        assert_eq!(times.len(), rounds, "{text}: not taken in each round");
        row(&format!("step: {text}"), median(times));
    }
    row("the whole, from before fork to after wait", total);
    table.note(format!(
        "Medians of {rounds} rounds; steps and the inside as the hook tells them to journald (whole µs)."
    ));
    table
}

fn micros(entry: &Entry) -> f64 {
    entry["DURATION_USEC"].parse().unwrap()
}
