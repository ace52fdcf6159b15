//! What passes a device, as tcpdump reads it, each frame with the kernel's own time.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use super::{Host, Transcript};

pub struct Wire {
    transcript: Transcript,
    tcpdump: Child,
}

impl Wire {
    pub fn tap(host: &Host, device: &str, filter: &str) -> Wire {
        let argv = ["tcpdump", "-i", device, "-l", "-n", "-tt", "--immediate-mode", filter];
        let mut tcpdump =
            host.command(&argv).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tcpdump starts");
        let words = Transcript::default();
        words.record(tcpdump.stderr.take().expect("stderr is piped"));
        words.wait(&["listening on"], Duration::from_secs(10));
        let transcript = Transcript::default();
        transcript.record(tcpdump.stdout.take().expect("stdout is piped"));
        Wire { transcript, tcpdump }
    }

    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// When the last frame passed, of those at or after line `from`, that has all of these words; it comes if it has not yet.
    pub fn last(&self, from: usize, parts: &[&str]) -> Instant {
        self.transcript.wait_from(from, parts, Duration::from_secs(20));
        let lines = self.transcript.lines();
        let has = |text: &str| parts.iter().all(|part| text.contains(part));
        let line = lines[from..].iter().rev().find(|line| has(&line.text)).expect("it was there just now");
        let stamp: f64 = line.text.split(' ').next().and_then(|word| word.parse().ok()).expect("tcpdump -tt");
        let (now, clock) = (Instant::now(), SystemTime::now());
        now - clock.duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(stamp)).unwrap_or_default()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}
