//! Many processes at once, and what processes cost.

use crate::common::figures::wait;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

/// A program, its arguments with blanks between them, and the file that it reads.
pub type Call = (PathBuf, String, String);

/// What came of it.
#[derive(Debug, Default)]
pub struct Burst {
    pub failed: usize,
    /// Seconds.
    pub wall: f64,
    /// Their user and system time together, seconds.
    pub cpu: f64,
}

pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Spawns them all as fast as can be, and only then looks how they ended.
pub fn at_once(calls: &[Call]) -> Burst {
    let words = File::create("/run/words").unwrap();
    let begin = Instant::now();
    let ends: Vec<(i32, f64)> = thread::scope(|scope| {
        let parts = calls.chunks(calls.len().div_ceil(cores()));
        let threads: Vec<_> = parts.map(|part| scope.spawn(|| run(part, &words))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let wall = begin.elapsed().as_secs_f64();
    let failed = ends.iter().filter(|(status, _)| *status != 0).count();
    if failed > 0 {
        eprint!("{}", fs::read_to_string("/run/words").unwrap());
    }
    Burst { failed, wall, cpu: ends.iter().map(|(_, cpu)| cpu).sum() }
}

fn run(calls: &[Call], words: &File) -> Vec<(i32, f64)> {
    let spawn = |(program, arguments, input): &Call| {
        let mut command = Command::new(program);
        command.args(arguments.split(' ')).stdin(File::open(input).unwrap()).stdout(Stdio::null());
        command.stderr(words.try_clone().unwrap()).spawn().unwrap()
    };
    let children: Vec<_> = calls.iter().map(spawn).collect();
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    let end = |child: std::process::Child| {
        let (status, usage) = wait(child.id());
        (status, seconds(usage.ru_utime) + seconds(usage.ru_stime))
    };
    children.into_iter().map(end).collect()
}

/// Seconds that a process, all its threads, was on a processor.
pub fn cpu_of(pid: &str) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let time = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    tasks.filter_map(time).sum::<f64>() / 1e9
}
