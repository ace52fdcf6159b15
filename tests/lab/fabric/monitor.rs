//! What a node's kernel announces about FDB entries, neighbours, routes and links, as it happens.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::{Host, Line, Transcript, wait_until};

pub struct Monitor {
    transcript: Transcript,
    commands: [Child; 2],
}

impl Monitor {
    pub(super) fn start(host: &Host) -> Monitor {
        let transcript = Transcript::default();
        let commands = [&["bridge", "monitor", "fdb"][..], &["ip", "monitor", "link", "neigh", "route"]].map(|argv| {
            let mut command = host.command(argv).stdout(Stdio::piped()).spawn().expect("monitor starts");
            transcript.record(command.stdout.take().expect("stdout is piped"));
            command
        });
        for command in &commands {
            wait_until("the monitor's subscription", Duration::from_secs(10), || is_subscribed(command.id()));
        }
        Monitor { transcript, commands }
    }

    /// The first message that holds all of `parts`, e.g. `["52:54:00:03:82:d8", "dev vxlan20", "extern_learn"]`. A withdrawal has "Deleted".
    pub fn wait(&self, parts: &[&str], timeout: Duration) -> Line {
        self.transcript.wait(parts, timeout)
    }

    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        for command in &mut self.commands {
            let _ = command.kill();
            let _ = command.wait();
        }
    }
}

/// Whether the process has a netlink socket that listens to groups. A socket's port is its process's id; columns: sk Eth Pid Groups …
fn is_subscribed(pid: u32) -> bool {
    let pid = pid.to_string();
    fs::read_to_string(format!("/proc/{pid}/net/netlink")).unwrap_or_default().lines().any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns.get(2) == Some(&pid.as_str()) && columns.get(3).is_some_and(|groups| *groups != "00000000")
    })
}
