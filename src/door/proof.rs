//! Whose a process's network namespace is, and who a user is: from /proc, /etc/passwd and /etc/subuid alone.

use rustix::fs::{Mode, OFlags, open, openat, statat};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

/// The most that is read of any of these files, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The network namespace of a container's first process, if both are this user's. Two proofs, each of which fails for what another
/// user or root has started:
///
/// - The process's parent is the container's monitor, and runs as this user, in all its ids.
/// - The namespace was made in a user namespace whose root is one of this user's ids: what lies in /proc/PID/net belongs to that
///   root (fs/proc/proc_net.c `proc_net_ns_init`). Only its own id and its ranges of /etc/subuid can a user map there
///   (user_namespaces(7)), and newuidmap(1) gives nobody another's. LXC makes the network namespace after the mapping is written,
///   so that its owner is known.
///
/// The first alone would take a namespace that the user's process was put into; the second alone, a container that root has
/// started with this user's ids. A process can change its namespace meanwhile, but only for one that this user owns.
pub(super) fn namespace(uid: u32, pid: u32) -> Result<File, String> {
    // Bound to this process for good: the number may come back, the directory does not.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let process = open(format!("/proc/{pid}"), flags | OFlags::DIRECTORY, Mode::empty())
        .map_err(|_| format!("there is no process {pid}"))?;
    let gone = |e| format!("process {pid}: {e}");
    let parent = || field(&process, "PPid:").and_then(|text| text.parse::<u32>().ok());
    let monitor = parent().ok_or_else(|| format!("process {pid} has ended"))?;
    let ids = open(format!("/proc/{monitor}"), flags | OFlags::DIRECTORY, Mode::empty())
        .ok()
        .and_then(|directory| field(&directory, "Uid:"));
    let all_his = ids.is_some_and(|ids| ids.split_whitespace().all(|id| id.parse() == Ok(uid)));
    if !all_his || parent() != Some(monitor) {
        return Err(format!("process {pid} is not the first of a container that user {uid} started"));
    }
    let root = statat(&process, "net/dev", rustix::fs::AtFlags::empty()).map_err(gone)?.st_uid;
    if !owns(uid, root) {
        return Err(format!(
            "the network namespace of process {pid} is user {root}'s, who is none of user {uid}'s ids (see /etc/subuid)"
        ));
    }
    openat(&process, "ns/net", flags, Mode::empty()).map(File::from).map_err(gone)
}

/// Is this id the user's own, or in a range of /etc/subuid (subuid(5)) for the user's name or number? Root's never is.
fn owns(uid: u32, id: u32) -> bool {
    id != 0 && (id == uid || in_ranges(&read("/etc/subuid"), &names(uid), uid, id))
}

fn in_ranges(subuid: &str, names: &[String], uid: u32, id: u32) -> bool {
    subuid.lines().filter_map(|line| line.split_once(':')).any(|(owner, range)| {
        let his = owner.parse() == Ok(uid) || names.iter().any(|name| name == owner);
        let range = range.split_once(':').and_then(|(start, count)| Some((start.parse().ok()?, count.parse().ok()?)));
        his && range.is_some_and(|(start, count): (u32, u32)| id >= start && id - start < count)
    })
}

/// The user's names in /etc/passwd. A user from elsewhere (LDAP) has none here, and is written as a number.
pub(super) fn names(uid: u32) -> Vec<String> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    read("/etc/passwd").lines().filter_map(entry).collect()
}

fn read(path: &str) -> String {
    File::open(path).map(text_of).unwrap_or_default()
}

fn text_of(file: File) -> String {
    let mut bytes = Vec::new();
    let _ = file.take(MAX_FILE).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A line of a process's `status` (proc_pid_status(5)), without its name.
fn field(process: &OwnedFd, name: &str) -> Option<String> {
    let status = openat(process.as_fd(), "status", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    text_of(status.into()).lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_by_name_or_number_and_end_where_they_end() {
        let text = "alice:100000:65536\nbob:165536:65536\n1000:300000:10\nalice:x:1\nalice:5\n:1:1\nalice:4294967295:4294967295\n";
        let his = |id| in_ranges(text, &["alice".to_owned()], 1000, id);
        assert!([100_000, 165_535, 300_009, u32::MAX].into_iter().all(his));
        assert!(![0, 1, 5, 99_999, 165_536, 300_010, u32::MAX - 1].into_iter().any(his));
    }

    #[test]
    fn root_owns_nothing_of_a_users() {
        assert!(!owns(1000, 0) && owns(1000, 1000));
        assert!(names(0).contains(&"root".to_owned()));
    }
}
