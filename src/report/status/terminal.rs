//! What stdout is: a terminal, how wide, and what it can show.

use std::io::{IsTerminal, stdout};

/// What may be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The terminal's columns; none where no line is to be broken.
    pub width: Option<usize>,
    /// Box characters, and names as they are.
    pub utf8: bool,
    /// In colour.
    pub colour: bool,
}

impl Look {
    /// As stdout is now: a file, or another program, is given whole lines without colour.
    pub fn of_stdout() -> Look {
        let is_terminal = stdout().is_terminal();
        let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Look {
            width: size().filter(|_| is_terminal).map(|(columns, _)| columns),
            utf8: is_utf8(env),
            colour: is_terminal && wants_colour(env),
        }
    }
}

/// The terminal's columns and rows; none where stdout is none, or does not know.
pub fn size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// What this host is called, as uname(2) tells it.
pub fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or("this host".to_owned(), |name| name.trim().to_owned())
}

/// The locale's encoding, by the first of the variables that says something (POSIX.1 XBD 8.2).
fn is_utf8(env: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &&str| env(name).filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// <https://no-color.org>: set and not empty.
fn wants_colour(env: impl Fn(&str) -> Option<String>) -> bool {
    env("NO_COLOR").is_none_or(|value| value.is_empty()) && env("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(set: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn the_locale_says_whether_it_is_utf8() {
        assert!(is_utf8(env(&[("LANG", "de_DE.UTF-8")])));
        assert!(is_utf8(env(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8"), ("LANG", "C")])));
        assert!(!is_utf8(env(&[("LC_ALL", "C"), ("LANG", "C.UTF-8")])));
        assert!(!is_utf8(env(&[("LANG", "de_DE.ISO-8859-1")])));
        assert!(!is_utf8(env(&[])));
    }

    #[test]
    fn colour_is_refused_by_any_word() {
        assert!(wants_colour(env(&[("TERM", "xterm-256color")])));
        assert!(wants_colour(env(&[("NO_COLOR", "")])));
        assert!(!wants_colour(env(&[("NO_COLOR", "0")])));
        assert!(!wants_colour(env(&[("TERM", "dumb")])));
    }
}
