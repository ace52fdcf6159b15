//! Whole processes under measure, their medians, and tables of them.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// One run of a process: from before fork to after wait.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Microseconds.
    pub wall: f64,
    /// Its own and its children's user and system time, microseconds.
    pub cpu: f64,
    /// Its largest resident memory, KiB; never less than this process had when it started it (`count::peak_memory` tells less).
    pub rss: f64,
    /// Page faults that read nothing from a disk.
    pub faults: f64,
}

/// Runs it with this input; it must succeed.
// wait4(2) waits for it.
#[allow(clippy::zombie_processes)]
pub fn run(command: &mut Command, input: &[u8]) -> Sample {
    let start = Instant::now();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    // A program that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input);
    let (status, usage) = wait(child.id());
    let wall = start.elapsed().as_secs_f64() * 1e6;
    if status != 0 {
        let mut words = String::new();
        let _ = child.stderr.take().unwrap().read_to_string(&mut words);
        panic!("{command:?}: wait status {status}: {words}");
    }
    let micros = |t: libc::timeval| t.tv_sec as f64 * 1e6 + t.tv_usec as f64;
    Sample {
        wall,
        cpu: micros(usage.ru_utime) + micros(usage.ru_stime),
        rss: usage.ru_maxrss as f64,
        faults: usage.ru_minflt as f64,
    }
}

/// wait4(2), for what one child used; getrusage(2) tells of all together.
pub fn wait(pid: u32) -> (i32, libc::rusage) {
    let mut status = 0;
    // SAFETY: both are plain numbers that the kernel fills in, and the child is ours and waited for by nobody else.
    let (done, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid as libc::pid_t, &mut status, 0, &mut usage), usage)
    };
    assert_eq!(done, pid as libc::pid_t, "wait4: {}", std::io::Error::last_os_error());
    (status, usage)
}

/// The value below which this part of them lies.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The median of each pair's ratio: the pairs ran beside each other, so that what slows the machine slows both.
pub fn median_ratio(of: &[f64], to: &[f64]) -> f64 {
    median(&of.iter().zip(to).map(|(a, b)| a / b).collect::<Vec<_>>())
}

/// A table that grows a row at a time; the first column is words, the others are numbers to the right.
pub struct Table {
    title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    pub fn new(title: &str, head: &[&str]) -> Table {
        let head = head.iter().map(|word| (*word).to_owned()).collect();
        Table { title: title.to_owned(), head, rows: Vec::new(), notes: Vec::new() }
    }

    pub fn row(&mut self, cells: &[String]) {
        assert_eq!(cells.len(), self.head.len(), "{}: {cells:?}", self.title);
        self.rows.push(cells.to_vec());
    }

    /// A sentence below the table.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// In Markdown, its columns in line, so that it reads in a terminal as well.
    pub fn text(&self) -> String {
        let width = |column: usize| {
            self.rows.iter().chain([&self.head]).map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |row: &[String]| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!(" {cell:<width$} "),
                _ => format!(" {cell:>width$} "),
            });
            format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
        };
        let rule = widths.iter().enumerate().map(|(column, width)| match column {
            0 => format!(":{}", "-".repeat(width + 1)),
            _ => format!("{}:", "-".repeat(width + 1)),
        });
        let mut out = format!("**{}**\n\n{}|{}|\n", self.title, line(&self.head), rule.collect::<Vec<_>>().join("|"));
        self.rows.iter().for_each(|row| out += &line(row));
        if !self.notes.is_empty() {
            let _ = write!(out, "\n{}\n", self.notes.join("\n"));
        }
        out
    }
}

/// Shows tables, and leaves them in target/bench/NAME.md, with the machine and the day.
pub fn show(name: &str, tables: &[&Table]) {
    let text: Vec<String> = tables.iter().map(|table| table.text()).collect();
    let text = format!("{}\nOn {}.\n", text.join("\n"), super::machine::words());
    println!("{text}");
    keep(&format!("{name}.md"), &text);
}

/// Leaves a result in target/bench.
pub fn keep(name: &str, contents: &str) {
    let dir =
        std::env::var_os("EVPN_LAB_OUT").map(PathBuf::from).unwrap_or_else(|| super::project().join("target/bench"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(name), contents).unwrap();
}
