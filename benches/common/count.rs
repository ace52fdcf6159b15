//! What a call costs in numbers that do not hang on the machine's speed: each is taken from a run of its own, outside any timing.

use super::figures;
use super::must;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// System calls of the command and all that it starts, exec(2) included (strace).
pub fn system_calls(command: &Command, input: &[u8]) -> u64 {
    const OUT: &str = "/run/strace";
    run(&mut under(&["strace", "-f", "-c", "-U", "calls,name", "-o", OUT], command), input);
    let text = fs::read_to_string(OUT).unwrap();
    let total = text.lines().find_map(|line| line.strip_suffix(" total")).expect("strace tells the total");
    total.trim().parse().unwrap()
}

/// Instructions in user space, of the command alone (callgrind). The same on any processor, but for what glibc makes of it: which of its string
/// functions it takes changes a hook's count by less than 1 % (as GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2 shows).
pub fn instructions(command: &Command, input: &[u8]) -> u64 {
    const OUT: &str = "/run/callgrind";
    let log = format!("--log-file={OUT}");
    run(&mut under(&["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", &log], command), input);
    let text = fs::read_to_string(OUT).unwrap();
    let count = text.lines().find_map(|line| line.split_once("Collected : ")).expect("callgrind tells the sum").1;
    count.trim().parse().unwrap()
}

/// The largest resident memory of the command and of each that it starts, KiB. Not as wait4(2) tells it to this process: to the kernel a child
/// begins with what its parent has, so the parent has to be next to nothing.
pub fn peak_memory(command: &Command, input: &[u8]) -> u64 {
    const OUT: &str = "/run/memory";
    let launch = compile("launch", include_str!("launch.c"));
    run(&mut under(&[launch.to_str().unwrap(), OUT], command), input);
    fs::read_to_string(OUT).unwrap().trim().parse().unwrap()
}

/// The smallest program that there is: what any exec costs.
pub fn noop() -> PathBuf {
    compile("noop", "int main(void) { return 0; }\n")
}

fn compile(name: &str, source: &str) -> PathBuf {
    let program = Path::new("/run").join(name);
    if !program.exists() {
        let file = program.with_extension("c");
        fs::write(&file, source).unwrap();
        must(Command::new("cc").args(["-O2", "-static", "-o"]).arg(&program).arg(&file));
    }
    program
}

/// The same command as the argument of another, with the environment that it was given and nothing else.
fn under(prefix: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(prefix[0]);
    outer.args(&prefix[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
    let set = |(key, value): (&OsStr, Option<&OsStr>)| Some((key.to_owned(), value?.to_owned()));
    outer.envs(command.get_envs().filter_map(set));
    outer
}

/// With all of its input there before it starts: how often it has to read must not be chance.
fn run(command: &mut Command, input: &[u8]) {
    assert!(input.len() <= 65536, "what a pipe holds");
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(input).unwrap();
    drop(writer);
    let done = command.stdin(reader).stdout(Stdio::null()).output().expect("strace and valgrind (tests/lab/deps.sh)");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Page faults that read nothing from a disk: the least of a few runs, since the kernel may be in the middle of something else.
pub fn page_faults(mut once: impl FnMut() -> figures::Sample) -> u64 {
    let faults: Vec<f64> = (0..5).map(|_| once().faults).collect();
    figures::quantile(&faults, 0.0) as u64
}
