//! A hook's call, kept for a bug report: one file with its words, its environment, its stdin without secrets, all that it asked of the host and was
//! told, and what came of it. `evpn-hook replay` plans it again, elsewhere and without root.
//!
//! Nothing of this may keep a hook from its work: what cannot be kept is told and left.

use crate::cli::HookCall;
use crate::input::redact;
use crate::tape::{self, Tape};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, fstat, mkdir, open, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// A directory of this name in the state directory switches it on for every hook: libvirt and LXC call with words of their own.
pub const SWITCH: &str = "record";
/// So many calls are kept in one directory, the latest,
const MOST: usize = 64;
/// and so many bytes.
const MOST_BYTES: u64 = 32 << 20;
/// So many are read of one, whoever wrote them.
const MOST_READ: usize = 1000;
/// Of one call. A domain with 100 devices has 60 KiB, and a host's 1,000 guests' records 600.
const LARGEST: u64 = 8 << 20;
/// The tape's name for what libvirt gives on stdin.
pub const STDIN: &str = "stdin";

/// One call, as it is in its file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Whose version this is.
    pub evpn_hook: String,
    /// What was called.
    pub call: HookCall,
    /// Seconds since 1970.
    pub at: f64,
    /// How long it took, in µs.
    pub took: u64,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// A part of stdin was not kept: it does not parse there, so that nobody can tell a secret from the rest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin_cut: bool,
    /// What it asked, and was told.
    pub observed: Tape,
}

/// Where a call is kept that is being made.
pub struct Recorder {
    dir: OwnedFd,
    path: PathBuf,
    began: Instant,
}

impl Recorder {
    /// Begins to keep what is asked from now on. `None` where there is no such directory and none is to be made.
    pub fn begin(path: &Path, make: bool) -> Result<Option<Recorder>, String> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let wrong = |why: &str| Err(format!("nothing is recorded: {}: {why}", path.display()));
        let dir = match open(path, flags, Mode::empty()) {
            // A user, whose containers' hooks are its own, has no say in it.
            Err(Errno::NOENT | Errno::ACCESS) if !make => return Ok(None),
            Err(Errno::NOENT) => mkdir(path, Mode::RWXU).and_then(|()| open(path, flags, Mode::empty())),
            opened => opened,
        };
        let dir = match dir {
            Ok(dir) => dir,
            Err(Errno::NOTDIR | Errno::LOOP) => return wrong("it is no directory (nor may it be a symlink)"),
            Err(error) => return wrong(&error.to_string()),
        };
        let stat = match fstat(&dir) {
            Ok(stat) => stat,
            Err(error) => return wrong(&error.to_string()),
        };
        // What is in it tells who runs where.
        if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
            return wrong("it must be the caller's own and nobody else's: chmod 700");
        }
        tape::record();
        Ok(Some(Recorder { dir, path: path.to_owned(), began: Instant::now() }))
    }

    /// Keeps the call, and no more than there is room for.
    pub fn keep(self, call: &HookCall, error: Option<&str>) -> Result<(), String> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (observed, whole) = without_secrets(tape::stop());
        let kept = Kept {
            evpn_hook: env!("CARGO_PKG_VERSION").to_owned(),
            call: call.clone(),
            at: since.as_secs_f64(),
            took: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
            error: error.map(str::to_owned),
            stdin_cut: !whole,
            observed,
        };
        let name = format!("{:010}.{:06}-{}.json", since.as_secs(), since.subsec_micros(), harmless(&call.title()));
        let text = serde_json::to_vec_pretty(&kept).map_err(|e| e.to_string());
        let written = text.and_then(|text| match text.len() as u64 > LARGEST {
            true => Err(format!("it has over {} MiB", LARGEST >> 20)),
            false => self.write(&name, &text).map_err(|e| e.to_string()),
        });
        written.map_err(|why| format!("not recorded: {}: {why}", self.path.join(name).display()))
    }

    fn write(&self, name: &str, text: &[u8]) -> Result<(), io::Error> {
        self.make_room(text.len() as u64)?;
        let unfinished = format!(".{name}.{}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.dir, &unfinished, flags, Mode::RUSR | Mode::WUSR)?);
        let written = file.write_all(text).and_then(|()| Ok(renameat(&self.dir, &unfinished, &self.dir, name)?));
        if written.is_err() {
            let _ = unlinkat(&self.dir, &unfinished, AtFlags::empty());
        }
        written
    }

    /// The oldest of ours go first; what else is there stays.
    fn make_room(&self, coming: u64) -> Result<(), Errno> {
        let mut ours = Vec::new();
        for entry in Dir::read_from(&self.dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if is_ours(&name)
                && let Ok(stat) = statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW)
            {
                ours.push((name, u64::try_from(stat.st_size).unwrap_or(0)));
            }
        }
        ours.sort();
        let mut bytes: u64 = ours.iter().map(|(_, size)| size).sum();
        let mut count = ours.len();
        for (name, size) in ours {
            if count < MOST && bytes + coming <= MOST_BYTES {
                break;
            }
            unlinkat(&self.dir, &name, AtFlags::empty())?;
            (count, bytes) = (count - 1, bytes - size);
        }
        Ok(())
    }
}

fn without_secrets(mut tape: Tape) -> (Tape, bool) {
    let Some(Value::String(xml)) = tape.get(STDIN).map(|kept| kept["is"].clone()) else { return (tape, true) };
    let (text, whole) = redact(&xml);
    tape.insert(STDIN.to_owned(), json!({ "is": text }));
    (tape, whole)
}

/// `1795444501.123456-…json`
fn is_ours(name: &str) -> bool {
    let digits = |text: Option<&str>| text.is_some_and(|t| t.bytes().all(|b| b.is_ascii_digit()));
    digits(name.get(..10))
        && name.get(10..11) == Some(".")
        && digits(name.get(11..17))
        && name.get(17..18) == Some("-")
        && name.ends_with(".json")
}

/// A part of a file's name, whoever chose it.
fn harmless(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    text.chars().take(64).map(plain).collect()
}

/// A kept call, or all of a directory's, the oldest first, each with its file's name.
pub fn read(path: &Path) -> Result<Vec<(String, Kept)>, String> {
    let failed = |path: &Path, why: &dyn std::fmt::Display| {
        format!("{}: {why}: give a file or directory that --record wrote", path.display())
    };
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| failed(path, &e))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).filter(|name| is_ours(name));
        files = names.take(MOST_READ).map(|name| path.join(name)).collect();
        files.sort();
        if files.is_empty() {
            return Err(failed(path, &"there is no recorded call in it"));
        }
    }
    let mut left = 2 * MOST_BYTES;
    files
        .iter()
        .map(|file| {
            let mut text = Vec::new();
            File::open(file).and_then(|f| f.take(LARGEST).read_to_end(&mut text)).map_err(|e| failed(file, &e))?;
            let Some(rest) = left.checked_sub(text.len() as u64) else {
                return Err(failed(path, &format!("it has over {} MiB, more than is ever kept", MOST_BYTES >> 19)));
            };
            left = rest;
            let kept = serde_json::from_slice(&text).map_err(|e| failed(file, &e))?;
            Ok((file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(), kept))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("evpn-hook-record-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        dir
    }

    fn call() -> HookCall {
        HookCall::Qemu(["../../vm 1\n", "start", "begin", "-"].map(str::to_owned).to_vec())
    }

    fn keep(dir: &Path) {
        let recorder = Recorder::begin(dir, true).unwrap().unwrap();
        let xml = "<domain><name>vm1</name><secret>sesame</secret></domain>";
        tape::told(STDIN, || Some(xml.to_owned()));
        recorder.keep(&call(), Some("no")).unwrap();
    }

    #[test]
    fn a_call_is_kept_for_its_owner_alone_and_without_secrets() {
        let dir = scratch("kept");
        keep(&dir);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&dir), 0o700);
        let [(name, kept)] = <[_; 1]>::try_from(read(&dir).unwrap()).unwrap();
        assert!(name.ends_with("-qemu______vm_1__start.json") || name.contains("vm_1"), "{name}");
        assert_eq!(mode(&dir.join(&name)), 0o600);
        let text = std::fs::read_to_string(dir.join(&name)).unwrap();
        assert!(text.contains("<name>vm1</name>") && !text.contains("sesame"), "{text}");
        assert_eq!((kept.call, kept.error.as_deref(), kept.stdin_cut), (call(), Some("no"), false));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_place_that_others_reach_is_refused() {
        let dir = scratch("places");
        assert!(Recorder::begin(&dir, false).unwrap().is_none(), "off");
        std::fs::create_dir(&dir).unwrap();
        let refused = |path: &Path, why: &str| {
            let error = Recorder::begin(path, true).err().unwrap_or_else(|| panic!("{} was taken", path.display()));
            assert!(error.contains(why) && !tape::plays(), "{error}");
        };
        for mode in [0o777, 0o770, 0o755, 0o701] {
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
            refused(&dir, "chmod 700");
        }
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        symlink(&dir, dir.join("link")).unwrap();
        refused(&dir.join("link"), "symlink");
        std::fs::write(dir.join("file"), "").unwrap();
        refused(&dir.join("file"), "no directory");
        refused(Path::new("/nonexistent/dir"), "No such file");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn no_more_is_read_than_was_ever_kept() {
        let dir = scratch("large");
        keep(&dir);
        let one = std::fs::read(read_name(&dir)).unwrap();
        let padded = [one, vec![b' '; 7 << 20]].concat();
        for n in 0..10 {
            std::fs::write(dir.join(format!("00000000{n:02}.000000-x.json")), &padded).unwrap();
        }
        assert!(read(&dir).unwrap_err().contains("over 64 MiB"));
        let file = dir.join("0000000000.000000-x.json");
        File::options().append(true).open(&file).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(read(&file).is_err(), "cut at its bound, it does not parse");
        std::fs::remove_dir_all(dir).unwrap();
    }

    fn read_name(dir: &Path) -> PathBuf {
        std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path()
    }

    #[test]
    fn the_latest_are_kept_and_nothing_else_is_touched() {
        let dir = scratch("many");
        keep(&dir);
        std::fs::write(dir.join("notes.json"), "mine").unwrap();
        for n in 0..MOST + 3 {
            std::fs::write(dir.join(format!("00000000{n:02}.000000-old.json")), "{}").unwrap();
        }
        keep(&dir);
        let names: Vec<String> =
            std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(names.iter().filter(|n| is_ours(n)).count(), MOST, "{names:?}");
        assert_eq!(names.iter().filter(|n| n.contains("vm_1")).count(), 2);
        assert!(names.contains(&"notes.json".to_owned()));
        let big = File::create(dir.join("0000000099.000000-big.json")).unwrap();
        big.set_len(MOST_BYTES).unwrap();
        keep(&dir);
        assert!(!dir.join("0000000099.000000-big.json").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
