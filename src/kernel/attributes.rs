//! A message's attributes as bytes (`struct rtattr`, rtnetlink(7)): for messages of which little is wanted.

use netlink_packet_core::NLA_TYPE_MASK;

/// The attributes behind a header of so many bytes; what is cut off ends them.
pub(super) fn attributes(body: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(header..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(half(rest, 0)?), half(rest, 2)?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & NLA_TYPE_MASK, value))
    })
}

/// 32 bits in the host's order.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// 16 bits in the host's order.
pub(super) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A name, up to its final zero.
pub(super) fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().map(|text| text.trim_end_matches('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_ends_the_attributes() {
        assert_eq!(attributes(&[3, 0, 1, 0], 0).count(), 0, "shorter than its own header");
        assert_eq!(attributes(&[8, 0, 1, 0, 1, 2, 3], 0).count(), 0, "longer than what is there");
        assert_eq!(attributes(&[5, 0, 1, 0x80, 7, 0, 0, 0, 9], 0).collect::<Vec<_>>(), [(1, &[7][..])]);
        assert_eq!(attributes(&[], 16).count(), 0);
    }
}
