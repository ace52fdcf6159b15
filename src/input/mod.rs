//! The input adapters: what libvirt, LXC and Proxmox VE hand to a hook (argv, environment, stdin) → one [`Event`](crate::event::Event), or none.
//!
//! Nothing else is touched: no file, no netlink, no call back into libvirt (it would hang, its locks are held while a hook runs).
//! What is libvirt's own and strange to us is not ours and never an error; what stands in *our* metadata is taken strictly. What is wrong with a guest
//! is no error here but a [`Flaw`](crate::event::Flaw): only the engine knows whether the guest is on a network of ours.

mod hints;
pub mod inspect;
pub mod libvirt_network;
pub mod libvirt_qemu;
pub mod libvirt_status;
pub mod lxc;
pub mod proxmox;
mod redact;
mod xml;

pub use lxc::{LxcHook, LxcPhase};
pub use redact::redact;
pub use xml::MAX_XML;

use crate::model::{BadValue, quoted, short_line};
use crate::tape::Untold;
use std::io::Read;

/// Why an input was not taken: one line with the object's name and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct InputError {
    text: String,
    may_refuse: bool,
}

impl InputError {
    pub(crate) fn new(text: &str, may_refuse: bool) -> InputError {
        InputError { text: short_line(text), may_refuse }
    }

    /// May the exit status tell the caller (the law of [`Event::may_refuse`](crate::event::Event::may_refuse), for events that never came to be)?
    /// Where false, the hook reports this line and exits 0.
    pub fn may_refuse(&self) -> bool {
        self.may_refuse
    }
}

impl From<Untold> for InputError {
    fn from(untold: Untold) -> InputError {
        InputError::new(&untold.0, false)
    }
}

/// Reads libvirt's XML from stdin, at most one byte more than [`MAX_XML`], by which the readers know that it was too long.
/// A pipe that breaks is never a reason to refuse: which operation this is has not been looked at yet.
pub fn read_stdin(stdin: impl Read) -> Result<Vec<u8>, InputError> {
    let mut xml = Vec::with_capacity(16 << 10);
    match stdin.take(MAX_XML as u64 + 1).read_to_end(&mut xml) {
        Ok(_) => Ok(xml),
        Err(e) => Err(InputError::new(&format!("cannot read stdin ({e}): libvirt gives the XML there"), false)),
    }
}

/// More addresses than one guest's NIC, or a bridge, is ever given: each is looked for among those before it, and becomes an entry in the kernel.
const MAX_ADDRESSES: usize = 1024;

/// Splits a hook's words into the object's name and the operation; `SUBOP` and `EXTRA` say nothing that the operation does not.
fn name_and_op<S: AsRef<str>>(args: &[S]) -> Result<(&str, &str), InputError> {
    match args {
        [name, op, ..] => Ok((name.as_ref(), op.as_ref())),
        _ => Err(InputError::new(
            "the hook was called without NAME and OPERATION: libvirt gives NAME OP SUBOP EXTRA",
            false,
        )),
    }
}

/// A name for the front of a message: as it is where that is harmless, else quoted and cut.
fn label(name: &str) -> String {
    let plain = !name.is_empty() && name.len() <= 64 && name.chars().all(|c| !c.is_control() && !c.is_whitespace());
    if plain { name.to_owned() } else { quoted(name) }
}

/// A UUID as libvirt prints it, in lower case.
fn uuid(text: &str) -> Result<String, String> {
    let groups: Vec<&str> = text.split('-').collect();
    let fits = groups.iter().map(|g| g.len()).eq([8, 4, 4, 4, 12]);
    if fits && groups.iter().all(|g| g.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("<uuid> {} is no UUID: libvirt gives one as 11111111-2222-3333-4444-555555555501", quoted(text)))
}

/// A bad value's text with the element that it stands in.
fn inside<T>(element: &str, value: Result<T, BadValue>) -> Result<T, String> {
    value.map_err(|e| format!("<{element}>: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_checked_and_folded() {
        assert_eq!(uuid("0042C036-a8f5-49ca-befe-1317a489deb6").unwrap(), "0042c036-a8f5-49ca-befe-1317a489deb6");
        for wrong in
            ["", "x", "../../../etc/passwd", "0042c036-a8f5-49ca-befe-1317a489deb", "0042c036a8f549cabefe1317a489deb6"]
        {
            assert!(uuid(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn stdin_stops_one_byte_after_the_bound() {
        assert_eq!(read_stdin(std::io::repeat(b' ')).unwrap().len(), MAX_XML + 1);
        assert_eq!(read_stdin(&b"<a/>"[..]).unwrap(), b"<a/>");
    }

    #[test]
    fn what_is_not_understood_is_not_repeated_at_length() {
        let line = InputError::new(&"\nä".repeat(1 << 20), true).to_string();
        assert!(line.starts_with("\\nä\\nä") && line.ends_with('…') && line.chars().count() == 601, "{line}");
    }

    #[test]
    fn labels_cannot_forge_lines() {
        assert_eq!(label("red"), "red");
        assert_eq!(label("a\nb"), "'a\\nb'");
        assert_eq!(label(""), "''");
        assert!(label(&"x".repeat(5000)).len() < 80);
    }
}
