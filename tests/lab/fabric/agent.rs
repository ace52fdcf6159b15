//! evpn-agent on a node, as systemd would run it.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::Host;

const NOTIFY: &str = "/run/agent-notify";

pub struct Agent {
    child: Child,
}

impl Agent {
    /// Returns when it has looked at everything: it says READY=1 before, and what it watches then.
    pub fn start(host: &Host) -> Agent {
        let _ = std::fs::remove_file(host.path(NOTIFY));
        let notify = UnixDatagram::bind(host.path(NOTIFY)).expect("notify socket");
        notify.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(host.path("/var/log/evpn-agent.log"));
        let mut command = host.command(&["evpn-agent", "-v"]);
        command.env("NOTIFY_SOCKET", NOTIFY).stdout(Stdio::null()).stderr(log.expect("the agent's log"));
        let agent = Agent { child: command.spawn().expect("evpn-agent starts") };
        let mut buffer = [0; 4096];
        loop {
            let count = notify.recv(&mut buffer).expect("the agent says what it watches");
            if String::from_utf8_lossy(&buffer[..count]).lines().any(|line| line.starts_with("STATUS=watching ")) {
                return agent;
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As `kill -9`.
    pub fn kill(self) {}
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
