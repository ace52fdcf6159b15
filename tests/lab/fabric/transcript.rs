//! Lines that some other process writes (a guest's console, a netlink monitor), each with the time it was read. All
//! transcripts share one clock, so a test can say which line came first, and by how much.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct Line {
    pub at: Instant,
    pub text: String,
}

#[derive(Clone, Default)]
pub struct Transcript(Arc<(Mutex<Vec<Line>>, Condvar)>);

impl Transcript {
    /// Reads `source` to its end, in a thread of its own.
    pub fn record(&self, source: impl Read + Send + 'static) {
        let transcript = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(source);
            let mut bytes = Vec::new();
            while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                transcript.0.0.lock().unwrap().push(Line { at: Instant::now(), text });
                transcript.0.1.notify_all();
                bytes.clear();
            }
        });
    }

    pub fn lines(&self) -> Vec<Line> {
        self.0.0.lock().unwrap().clone()
    }

    /// How many lines there are so far: where a later `wait_from` may start.
    pub fn len(&self) -> usize {
        self.0.0.lock().unwrap().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first line, from any time on, that holds all of `parts`.
    pub fn wait(&self, parts: &[&str], timeout: Duration) -> Line {
        self.wait_from(0, parts, timeout).1
    }

    /// The first line at or after index `from` that holds all of `parts`, with its index.
    pub fn wait_from(&self, from: usize, parts: &[&str], timeout: Duration) -> (usize, Line) {
        let end = Instant::now() + timeout;
        let (lock, changed) = &*self.0;
        let mut lines = lock.lock().unwrap();
        let mut next = from;
        loop {
            while next < lines.len() {
                if parts.iter().all(|part| lines[next].text.contains(part)) {
                    return (next, lines[next].clone());
                }
                next += 1;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let tail: Vec<_> =
                    lines[lines.len().saturating_sub(30)..].iter().map(|line| line.text.clone()).collect();
                drop(lines);
                panic!("waited {timeout:?} in vain for a line with {parts:?}; the last lines:\n{}", tail.join("\n"));
            }
            lines = changed.wait_timeout(lines, left).unwrap().0;
        }
    }
}
