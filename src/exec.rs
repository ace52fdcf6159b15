//! Runs another program with a deadline and keeps its words; used for what has no other interface (vtysh, nft).

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, PipeReader, Read, Seek, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// As much of a program's output as is kept, in bytes; the rest is read and dropped.
pub const MAX_OUTPUT: usize = 16 << 10;

/// What a program that ended in time left behind.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Its stdout and stderr, as they came, at most as much as was asked for.
    pub output: String,
}

/// Runs it to its end without stdin; `None` where the time was up first: it is killed and reaped then.
pub fn run(command: Command, until: Instant) -> io::Result<Option<Ended>> {
    run_up_to(MAX_OUTPUT, command, until)
}

/// The same with so many bytes of output kept.
pub fn run_up_to(max: usize, command: Command, until: Instant) -> io::Result<Option<Ended>> {
    run_with(Stdio::null(), max, command, until)
}

/// The same with these words on its stdin: from a file in memory, for who writes into a pipe may wait for ever.
pub fn run_fed(words: &str, max: usize, command: Command, until: Instant) -> io::Result<Option<Ended>> {
    let mut file = File::from(memfd_create("stdin", MemfdFlags::CLOEXEC)?);
    file.write_all(words.as_bytes())?;
    file.rewind()?;
    run_with(file.into(), max, command, until)
}

fn run_with(stdin: Stdio, max: usize, mut command: Command, until: Instant) -> io::Result<Option<Ended>> {
    // One pipe for both streams. Nothing of it may reach a hook's stdout, which libvirt would take for XML.
    let (output, input) = io::pipe()?;
    command.stdin(stdin).stdout(input.try_clone()?).stderr(input);
    let child = command.spawn();
    // The command holds the writing ends; the pipe ends only when they are closed here, too.
    drop(command);
    let mut child = Running(child?);
    let Some(output) = read(output, max, until)? else { return Ok(None) };
    loop {
        match child.0.try_wait()? {
            Some(status) => return Ok(Some(Ended { status, output })),
            None if Instant::now() >= until => return Ok(None),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// A program that does not outlive us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Everything until the end of the pipe; `None` when the time is up first.
fn read(mut output: PipeReader, max: usize, until: Instant) -> io::Result<Option<String>> {
    let mut words = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait =
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&wait)) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(cause) => return Err(cause.into()),
        }
        match output.read(&mut chunk)? {
            0 => return Ok(Some(String::from_utf8_lossy(&words).into_owned())),
            got => {
                let room = max.saturating_sub(words.len()).min(got);
                words.extend_from_slice(&chunk[..room]);
            }
        }
    }
}
