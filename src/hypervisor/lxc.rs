//! Which containers run: each has an abstract socket `@LXCPATH/NAME/command` as long as its monitor lives (liblxc's af_unix.c
//! `lxc_abstract_unix_open`). What only the monitor knows is asked with `lxc-info`, which hangs while the container is in a hook: it has a deadline.

use crate::exec;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// For one lxc-info. It takes some 10 ms where the monitor listens.
const DEADLINE: Duration = Duration::from_secs(2);

/// The containers that run, by name, each with its LXCPATH.
pub fn running() -> BTreeMap<String, String> {
    sockets(&fs::read_to_string("/proc/net/unix").unwrap_or_default())
}

fn sockets(text: &str) -> BTreeMap<String, String> {
    let container = |line: &str| {
        let path = line.split_once(" @")?.1.strip_suffix("/command")?;
        let (lxcpath, name) = path.rsplit_once('/')?;
        Some((name.to_owned(), format!("/{}", lxcpath.trim_start_matches('/'))))
    };
    text.lines().filter_map(container).collect()
}

/// The container's first process, seen from here; `None` while its monitor does not say.
pub fn pid(lxcpath: &str, name: &str) -> Option<u32> {
    info(lxcpath, name, &["--pid"])?.trim().parse().ok()
}

/// Does the container call us when it starts and stops?
pub fn has_our_hooks(lxcpath: &str, name: &str) -> bool {
    ["lxc.hook.start-host", "lxc.net.0.script.up"]
        .iter()
        .any(|key| info(lxcpath, name, &["--config", key]).is_some_and(|value| value.contains("evpn-hook")))
}

fn info(lxcpath: &str, name: &str, what: &[&str]) -> Option<String> {
    let mut command = Command::new("lxc-info");
    command.args(["--lxcpath", lxcpath, "--name", name, "--no-humanize"]).args(what);
    let ended = exec::run(command, Instant::now() + DEADLINE).ok()??;
    ended.status.success().then_some(ended.output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_socket_is_a_container() {
        let text = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 21 @/var/lib/lxc/c1/command\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 22 /run/frr/zebra.vty\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 23 @/home/a b/lxc/c2/command\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 24\n";
        let expected = [("c1", "/var/lib/lxc"), ("c2", "/home/a b/lxc")];
        assert_eq!(sockets(text), expected.map(|(name, path)| (name.into(), path.into())).into());
    }
}
