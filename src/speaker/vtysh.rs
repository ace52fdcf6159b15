//! Runs vtysh, for configuration only: `vrf` and `router bgp` belong to different daemons (and `vrf` to mgmtd from FRR 10), and vtysh knows which.

use super::SpeakerError;
use crate::exec;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

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
    let absent = |cause| SpeakerError::NoVtysh { path: program.to_owned(), cause };
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
        .env("VTYSH_HISTFILE", "/dev/null");
    let timeout = || SpeakerError::Timeout { daemon: "vtysh", command: lines.join(" / "), within };
    let ended = exec::run(command, until).map_err(absent)?.ok_or_else(timeout)?;
    let words = one_line(&ended.output);
    if ended.status.success() {
        return Ok(words);
    }
    let words = if words.is_empty() { format!("vtysh ended with {}", ended.status) } else { words };
    Err(SpeakerError::Refused { command: lines.join(" / "), words })
}

/// FRR's words without line breaks and without vtysh's remark on a missing vtysh.conf, which says nothing about the command. From FRR 10 on
/// it has a second line.
fn one_line(text: &str) -> String {
    let remark = |line: &str| {
        line.contains("vtysh.conf") || line.starts_with("Configuration file[") && line.contains("] processing failure")
    };
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
                Err(SpeakerError::NoVtysh { cause, .. }) if cause.raw_os_error() == Some(26) => {}
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
            "echo \"% Can't open configuration file /etc/frr/vtysh.conf due to 'No such file or directory'.\" >&2
             echo 'Configuration file[/etc/frr/frr.conf] processing failure: 11' >&2";
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
        assert_eq!(words.len(), exec::MAX_OUTPUT);
    }

    #[test]
    fn no_vtysh_is_told() {
        let result =
            configure(Path::new("/nonexistent/vtysh"), Path::new("/run/frr"), &[], Instant::now() + LONG, LONG);
        let told = result.unwrap_err().to_string();
        let wanted = "cannot run vtysh (/nonexistent/vtysh: No such file or directory (os error 2)): install FRR's vtysh, or say where it is: [speaker] vtysh in config.toml";
        assert_eq!(told, wanted);
    }
}
