//! Runs vtysh, for configuration only: `vrf` and `router bgp` belong to different daemons (and `vrf` to mgmtd from FRR 10), and vtysh knows which.

use super::SpeakerError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{PipeReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// As much of vtysh's output as we keep, in bytes; the rest is read and dropped.
const MAX_WORDS: usize = 16 << 10;

/// Runs `configure terminal` and the lines, each as a `-c`: vtysh stops at the first that fails, where `-f FILE` would go on in a wrong node.
/// Returns what it printed; an exit status of 0 does not mean that FRR obeyed ("VNI 11 doesn't exist in VRF: red" exits 0).
/// `within` is only for the message.
pub(super) fn configure(
    program: &Path,
    dir: &Path,
    lines: &[String],
    until: Instant,
    within: Duration,
) -> Result<String, SpeakerError> {
    let absent = |cause| SpeakerError::NotRunning { daemon: "vtysh", path: program.to_owned(), cause };
    // One pipe for both streams: the daemons' refusals come on stdout, vtysh's own on stderr. Nothing of it may reach a hook's stdout,
    // which libvirt would take for XML.
    let (output, input) = std::io::pipe().map_err(absent)?;
    let mut command = Command::new(program);
    command
        .arg("--vty_socket")
        .arg(dir)
        .args(["-c", "configure terminal"])
        .args(lines.iter().flat_map(|line| ["-c", line]))
        // No VTYSH_PAGER, VTYSH_LOG or HOME of whoever started the hook.
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        // Else it adds our lines to the administrator's ~/.history_frr.
        .env("VTYSH_HISTFILE", "/dev/null")
        .stdin(Stdio::null())
        .stdout(input.try_clone().map_err(absent)?)
        .stderr(input);
    let child = command.spawn();
    // The command holds the writing ends; the pipe ends only when they are closed here, too.
    drop(command);
    let mut child = Running(child.map_err(absent)?);
    let timeout = || SpeakerError::Timeout { daemon: "vtysh", command: lines.join(" / "), within };
    let words = read(output, until).map_err(absent)?.ok_or_else(timeout)?;
    let status = loop {
        match child.0.try_wait().map_err(absent)? {
            Some(status) => break status,
            None if Instant::now() >= until => return Err(timeout()),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    if status.success() {
        return Ok(words);
    }
    let words = if words.is_empty() { format!("vtysh ended with {status}") } else { words };
    Err(SpeakerError::Refused { command: lines.join(" / "), words })
}

/// A vtysh that does not outlive us: killed and reaped if still running.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Everything until the end of the pipe, on one line; none when the time is up first.
fn read(mut output: PipeReader, until: Instant) -> std::io::Result<Option<String>> {
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
            0 => return Ok(Some(one_line(&String::from_utf8_lossy(&words)))),
            got => {
                let room = MAX_WORDS.saturating_sub(words.len()).min(got);
                words.extend_from_slice(&chunk[..room]);
            }
        }
    }
}

/// FRR's words without line breaks and without vtysh's remark on a missing vtysh.conf, which says nothing about the command.
fn one_line(text: &str) -> String {
    let remark = |line: &str| line.contains("vtysh.conf");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !remark(line));
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod test {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    /// A shell script in the place of vtysh.
    fn fake(name: &str, body: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("evpn-hook-vtysh-{}-{name}", std::process::id()));
        // Written under another name and moved: another test's fork could hold the file open for writing (ETXTBSY).
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        path
    }

    fn run(name: &str, body: &str, within: Duration) -> Result<String, SpeakerError> {
        let program = fake(name, body);
        let lines = ["vrf red".to_owned(), "vni 10".to_owned()];
        let result = loop {
            match configure(&program, Path::new("/run/frr"), &lines, Instant::now() + within, within) {
                Err(SpeakerError::NotRunning { cause, .. }) if cause.raw_os_error() == Some(26) => {}
                result => break result,
            }
        };
        std::fs::remove_file(program).unwrap();
        result
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn each_line_is_an_argument_of_its_own() {
        let words = run("args", r#"for a in "$@"; do echo "$a"; done"#, LONG).unwrap();
        assert_eq!(words, "--vty_socket; /run/frr; -c; configure terminal; -c; vrf red; -c; vni 10");
    }

    #[test]
    fn the_remark_on_vtysh_conf_is_no_word_of_frr() {
        let remark =
            "echo \"% Can't open configuration file /etc/frr/vtysh.conf due to 'No such file or directory'.\" >&2";
        assert_eq!(run("remark", remark, LONG).unwrap(), "");
    }

    #[test]
    fn a_refusal_carries_the_words_of_both_streams() {
        let result = run("words", "echo '% Configuration failed.'; echo 'Error type: validation' >&2; exit 1", LONG);
        let Err(SpeakerError::Refused { command, words }) = result else { panic!("{result:?}") };
        assert_eq!(
            (command.as_str(), words.as_str()),
            ("vrf red / vni 10", "% Configuration failed.; Error type: validation")
        );
    }

    #[test]
    fn silence_is_killed_at_the_deadline() {
        let begun = Instant::now();
        let result = run("hang", "exec sleep 30", Duration::from_millis(300));
        assert!(matches!(result, Err(SpeakerError::Timeout { daemon: "vtysh", .. })), "{result:?}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_child_that_keeps_the_pipe_does_not_hold_us() {
        let begun = Instant::now();
        let result = run("child", "sleep 3 &", Duration::from_millis(300));
        assert!(matches!(result, Err(SpeakerError::Timeout { .. })), "{result:?}");
        assert!(begun.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn babble_is_bounded() {
        let words = run("babble", "head -c 10000000 /dev/zero | tr '\\0' x", LONG).unwrap();
        assert_eq!(words.len(), MAX_WORDS);
    }

    #[test]
    fn no_vtysh_is_not_running() {
        let result =
            configure(Path::new("/nonexistent/vtysh"), Path::new("/run/frr"), &[], Instant::now() + LONG, LONG);
        assert!(matches!(result, Err(SpeakerError::NotRunning { daemon: "vtysh", .. })), "{result:?}");
    }
}
