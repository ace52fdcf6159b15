//! Real libvirt, in one process: virsh's shell on the test driver, which keeps what it is told in memory.

use std::io::{BufRead, BufReader, PipeReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command};

/// A row of domiflist: target, type, MAC.
pub type Listed = (String, String, String);

pub struct Virsh {
    child: Child,
    stdin: ChildStdin,
    answers: BufReader<PipeReader>,
    asked: usize,
}

impl Virsh {
    pub fn start() -> std::io::Result<Virsh> {
        let (answers, output) = std::io::pipe()?;
        let mut command = Command::new("virsh");
        // No history of it, and lines as they are, however long.
        command.args(["--connect", "test:///default"]).envs([
            ("HOME", "/nonexistent"),
            ("TERM", "dumb"),
            ("LC_ALL", "C"),
        ]);
        command.stdin(std::process::Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let mut child = command.spawn()?;
        drop(command);
        let stdin = child.stdin.take().expect("it is piped");
        let mut virsh = Virsh { child, stdin, answers: BufReader::new(answers), asked: 0 };
        // What the test driver begins with has names that files want, too.
        for command in ["destroy test", "undefine test", "net-destroy default", "net-undefine default"] {
            virsh.ask(command);
        }
        Ok(virsh)
    }

    /// The same, of a command that it may die of: libvirt 9.0 does of files that a newer one has because it did (hostdev-scsi-vhost-rawio-invalid.xml).
    /// The next command has another one.
    fn try_ask(&mut self, command: &str) -> Result<Vec<String>, String> {
        self.told(command).map_err(|_| {
            *self = Virsh::start().expect("it did start");
            "virsh itself dies of it".to_owned()
        })
    }

    fn ask(&mut self, command: &str) -> Vec<String> {
        self.told(command).unwrap_or_else(|lines| panic!("virsh ended at {command}: {lines:?}"))
    }

    /// What it prints to a command, without the prompt's lines; as an error where it is all that it ever printed.
    fn told(&mut self, command: &str) -> Result<Vec<String>, Vec<String>> {
        self.asked += 1;
        let end = format!("@@{}", self.asked);
        self.stdin.write_all(format!("{command}\necho {end}\n").as_bytes()).expect("virsh listens");
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.answers.read_until(b'\n', &mut line).unwrap() == 0 {
                return Err(lines);
            }
            let line = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            if line == end {
                return Ok(lines);
            }
            if !line.starts_with("virsh # ") {
                lines.push(line);
            }
        }
    }

    /// Has libvirt take a file; what it prints of it, and what domiflist lists (target, type, MAC). Else why it would not.
    pub fn domain(&mut self, file: &Path) -> Result<(String, Vec<Listed>), String> {
        let answer = self.try_ask(&format!("define {}", quoted(file.to_str().unwrap())))?;
        let name = taken(&answer, "Domain '", "' defined from ")?;
        let xml = self.ask(&format!("dumpxml --inactive {}", quoted(&name))).join("\n");
        let list = self.ask(&format!("domiflist --inactive {}", quoted(&name)));
        let gone = self.ask(&format!("undefine {}", quoted(&name)));
        assert!(gone.iter().any(|line| line.contains("has been undefined")), "{}: {gone:?}", file.display());
        let rows = list.iter().skip_while(|line| !line.starts_with("---")).skip(1).filter(|line| !line.is_empty());
        let row = |line: &String| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let at = |n: usize| words.get(n).map(ToString::to_string).unwrap_or_default();
            (at(0), at(1), words.last().map(ToString::to_string).unwrap_or_default())
        };
        Ok((xml, rows.map(row).collect()))
    }

    /// The same of a network.
    pub fn network(&mut self, file: &Path) -> Result<String, String> {
        let answer = self.try_ask(&format!("net-define {}", quoted(file.to_str().unwrap())))?;
        let name = taken(&answer, "Network ", " defined from ")?;
        let xml = self.ask(&format!("net-dumpxml {}", quoted(&name))).join("\n");
        let gone = self.ask(&format!("net-undefine {}", quoted(&name)));
        assert!(gone.iter().any(|line| line.contains("has been undefined")), "{}: {gone:?}", file.display());
        Ok(xml)
    }
}

impl Drop for Virsh {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As virsh's shell takes it.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What libvirt calls it now, or its last words, without what is particular to the file.
fn taken(answer: &[String], before: &str, after: &str) -> Result<String, String> {
    let name = answer.iter().find_map(|line| Some(line.strip_prefix(before)?.rsplit_once(after)?.0.to_owned()));
    name.ok_or_else(|| {
        let words = answer.iter().rev().find(|line| line.starts_with("error: ")).cloned().unwrap_or_default();
        let words: Vec<&str> =
            words.trim_start_matches("error: ").split(' ').filter(|w| !w.contains(['\'', '/'])).collect();
        words.into_iter().take(6).collect::<Vec<_>>().join(" ")
    })
}
