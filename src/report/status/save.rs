//! A file that others read while it is written anew: beside it, then renamed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why it was not written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Something else is there.
    #[error("cannot write {}: it is {what}: name a regular file, or one that is not there yet", path.display())]
    Kind {
        /// Which file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The file system said no.
    #[error("cannot write {}: {source}: name a file in a directory that is there, writable and not full", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The kernel's words.
        source: io::Error,
    },
}

/// Writes it, whole or not at all. Whoever else may write to the directory, root follows no link of theirs.
pub fn save(path: &Path, text: &str) -> Result<(), SaveError> {
    let failed = |source| SaveError::Io { path: path.to_owned(), source };
    let what = match fs::symlink_metadata(path).map(|there| there.file_type()) {
        Ok(kind) if kind.is_symlink() => Some("a symbolic link"),
        Ok(kind) if kind.is_dir() => Some("a directory"),
        Ok(kind) if !kind.is_file() => Some("a device, pipe or socket"),
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    if let Some(what) = what {
        return Err(SaveError::Kind { path: path.to_owned(), what });
    }
    let temporary = path.with_file_name(format!(".evpn-hook-{}.tmp", std::process::id()));
    // What a killed run of this number left.
    let _ = fs::remove_file(&temporary);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_whole_or_refused_and_nothing_is_left_beside_it() {
        let dir = std::env::temp_dir().join(format!("evpn-save-{}", std::process::id()));
        fs::create_dir_all(dir.join("sub")).unwrap();
        let file = dir.join("status.svg");
        save(&file, "one").unwrap();
        save(&file, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");

        std::os::unix::fs::symlink(&file, dir.join("link")).unwrap();
        let said = |name: &str| save(&dir.join(name), "three").unwrap_err().to_string();
        assert!(said("link").contains("link: it is a symbolic link: name a regular file"), "{}", said("link"));
        assert!(said("sub").contains("sub: it is a directory"), "{}", said("sub"));
        assert!(said("none/x.svg").contains("x.svg: No such file or directory"), "{}", said("none/x.svg"));
        assert!(save(Path::new("/dev/null"), "three").unwrap_err().to_string().contains("a device"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["link", "status.svg", "sub"]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
