//! How the demo talks: chapters, commands as a user types them with what they answered, tables, and checks.

use std::thread::JoinHandle;

use super::fabric::{Host, Output};

const WIDTH: usize = 110;
/// As on a terminal of today, but for its size.
const SETTING: &str = "exec 2>&1\nexport LC_ALL=C.UTF-8\n";

#[derive(Default)]
pub struct Story {
    chapters: usize,
    checked: usize,
    wrong: Vec<String>,
}

impl Story {
    pub fn chapter(&mut self, title: &str) {
        self.chapters += 1;
        let head = format!("== {}. {title} ", self.chapters);
        println!("\n{head:=<WIDTH$}\n");
    }

    pub fn say(&self, text: &str) {
        println!("{text}");
    }

    /// Runs what a user would type, and prints it with its answer, errors among it. It must succeed.
    pub fn run(&mut self, host: &'static Host, command: &str) -> String {
        let running = self.begin(host, command);
        self.end(running)
    }

    /// The same for a command during which something is to be watched.
    pub fn begin(&self, host: &'static Host, command: &str) -> JoinHandle<Output> {
        println!("{}# {command}", host.name());
        // Without the machine's terminal virsh does not look for a polkit agent, which the lab has not.
        let script = format!("{SETTING}{command}");
        std::thread::spawn(move || host.run(&["setsid", "--wait", "bash", "-c", &script]))
    }

    pub fn end(&mut self, running: JoinHandle<Output>) -> String {
        let output = running.join().expect("a command can be run");
        for line in output.stdout.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            println!("{line}");
        }
        self.check(output.code == 0, || {
            format!("{}: exit status {}", output.command.replace(SETTING, ""), output.code)
        });
        output.stdout
    }

    /// Columns as wide as their widest cell; the first row is the heading.
    pub fn table(&self, rows: &[Vec<String>]) {
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        for (number, row) in rows.iter().enumerate() {
            let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column)));
            let line = cells.collect::<Vec<_>>().join("  ");
            println!("  {}", line.trim_end());
            if number == 0 {
                let rules = (0..row.len()).map(|column| "-".repeat(width(column)));
                println!("  {}", rules.collect::<Vec<_>>().join("  "));
            }
        }
    }

    /// Counts; what is not so is said at once and again at the end.
    pub fn check(&mut self, is_so: bool, what: impl FnOnce() -> String) {
        self.checked += 1;
        if !is_so {
            let what = what();
            println!("  WRONG: {what}");
            self.wrong.push(what);
        }
    }

    /// The last words, and the exit status.
    pub fn verdict(&self) -> i32 {
        println!();
        if self.wrong.is_empty() {
            println!("demo: {} things checked, all as they should be", self.checked);
            return 0;
        }
        println!("demo: {} of {} things checked are wrong:", self.wrong.len(), self.checked);
        for what in &self.wrong {
            println!("  {what}");
        }
        1
    }
}

/// A row of a table.
pub fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}
