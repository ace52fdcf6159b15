//! The table of faults that `make test` prints: what a guest saw of each, and what healed it, as the tests saw it while they ran.

use std::fmt::Write as _;
use std::path::PathBuf;

/// The faults that must be in it, each with its words.
const FAULTS: &str = include_str!("faults.list");

/// The rows of one test; they are kept when it has passed.
pub struct Table {
    test: String,
    rows: Vec<[String; 4]>,
}

impl Table {
    pub fn of(test: &str) -> Table {
        Table { test: test.to_owned(), rows: Vec::new() }
    }

    /// One case: in which event, what the guest saw, what healed it. Equal ones are counted.
    pub fn add(&mut self, fault: &str, event: &str, guest: &str, healed: &str) {
        let listed = FAULTS.lines().any(|line| line.split_whitespace().next() == Some(fault));
        assert!(listed, "{fault} is not in tests/common/faults.list");
        self.rows.push([fault, event, guest, healed].map(str::to_owned));
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut text = String::new();
        let mut told: Vec<&[String; 4]> = Vec::new();
        for row in &self.rows {
            if told.contains(&row) {
                continue;
            }
            told.push(row);
            let count = self.rows.iter().filter(|other| *other == row).count();
            let [fault, event, guest, healed] = row;
            let _ = writeln!(text, "{fault:<17} {event:<24} {guest:<22} {healed:<28} {count:>4}x  {}", self.test);
        }
        let dir = std::env::var_os("EVPN_LAB_OUT").map(PathBuf::from);
        let dir = dir.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/test"));
        let file = dir.join(format!("trouble-{}.txt", self.test.replace("::", "-")));
        std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(file, text)).expect("the table of faults");
    }
}
