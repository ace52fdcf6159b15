//! One rtnetlink request and its answer: sequence numbers, multi-part answers, interrupted dumps, the kernel's own words.

use super::error::{KernelError, NetlinkError, is_shortage};
use crate::model::short_line;
use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_MULTIPART,
    NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// `MSG_TRUNC`, include/linux/socket.h (the same on every architecture): `recv` returns the message's true length.
const MSG_TRUNC: i32 = 0x20;
/// `MSG_DONTWAIT`, likewise. rtnetlink queues the answer before `send` returns, so an empty queue is an error, not a wait.
const MSG_DONTWAIT: i32 = 0x40;
/// `NLMSGERR_ATTR_MSG`, include/uapi/linux/netlink.h.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Message types below are control messages, include/uapi/linux/netlink.h.
const NLMSG_MIN_TYPE: u16 = 0x10;
/// How often an interrupted or truncated answer is asked for: a host that boots makes devices all the time.
const TRIES: u32 = 16;
/// How long the kernel is given to find memory, doubled five times: 400 ms in all.
const SHORTAGE: Duration = Duration::from_millis(1);
/// The kernel fills at most 32 KiB a datagram when it dumps (net/netlink/af_netlink.c, `netlink_dump`).
const BUFFER: usize = 32 * 1024;
/// No single link has more: an attribute is at most 64 KiB, and the long one (virtual functions) is never asked for.
const BUFFER_MAX: usize = 1024 * 1024;
/// Datagrams of one answer; at 16 KiB and more each that is a gigabyte.
const DATAGRAMS_MAX: usize = 1 << 16;

/// A NETLINK_ROUTE socket (rtnetlink(7)) with strict checking, extended ACKs and capped ACKs.
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
    undecoded: usize,
}

impl Socket {
    /// Opens one in the calling thread's network namespace.
    pub fn open() -> Result<Socket, NetlinkError> {
        // Neither bind nor connect: the kernel binds at the first send, and port 0, itself, is where a send goes by default.
        let inner = netlink_sys::Socket::new(NETLINK_ROUTE)?;
        inner.set_netlink_get_strict_chk(true)?;
        inner.set_ext_ack(true)?;
        inner.set_cap_ack(true)?;
        Ok(Socket { inner, sequence: 0, buffer: Vec::with_capacity(BUFFER), undecoded: 0 })
    }

    /// Opens one in another network namespace. setns(2) moves the calling thread there and back; a socket stays where it was made.
    pub fn open_in(netns: BorrowedFd<'_>) -> Result<Socket, KernelError> {
        let enter = |fd: BorrowedFd<'_>| move_into_link_name_space(fd, Some(LinkNameSpaceType::Network));
        let here = rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| KernelError::Namespace { cause: e.into() })?;
        enter(netns).map_err(|e| KernelError::Namespace { cause: e.into() })?;
        let socket = Socket::open();
        enter(here.as_fd()).map_err(|e| KernelError::Stranded { cause: e.into() })?;
        socket.map_err(KernelError::Open)
    }

    /// How many entries of dumps were left out because the decoder did not know their shape.
    pub fn undecoded(&self) -> usize {
        self.undecoded
    }

    /// Sends one request (NLM_F_REQUEST is added) and returns its whole answer, without ACK and Done.
    ///
    /// With NLM_F_DUMP it reads to the end of the dump, and again if the kernel flags it as inconsistent; with NLM_F_ACK to the
    /// ACK; else one message.
    pub fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.exchange(message, flags, |header, body| RouteNetlinkMessage::deserialize(header, body).map(Some))
    }

    /// Asks for a whole listing and keeps of each message what is wanted of it, as it is read.
    pub fn list<T>(
        &mut self,
        message: RouteNetlinkMessage,
        keep: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        self.exchange(message, NLM_F_DUMP, |header, body| RouteNetlinkMessage::deserialize(header, body).map(&keep))
    }

    /// Asks, and picks what is wanted out of each message's bytes: the library decodes all of it, to some 15 KiB for a link.
    pub fn pick<T>(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        pick: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        self.exchange(message, flags, |_, body| Ok(pick(body)))
    }

    fn exchange<T>(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        decode: impl Fn(&NetlinkHeader, &[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
        request.header.flags = NLM_F_REQUEST | flags;
        request.finalize();
        let mut short = None;
        for tried in 0..TRIES {
            self.sequence = self.sequence.wrapping_add(1);
            request.header.sequence_number = self.sequence;
            // Zeroed, for the encoder skips the final zero of names.
            let mut bytes = vec![0; request.buffer_len()];
            request.serialize(&mut bytes);
            let sent = self.inner.send(&bytes, 0).map_err(NetlinkError::from);
            match sent.and_then(|_| self.answer(flags, &decode)) {
                Err(NetlinkError::Interrupted(_)) => self.drain(),
                // Whether it was done nobody knows. What is there when it is made once more could be somebody else's; all else may be said twice.
                Err(error) if is_shortage(&error) && !is_exclusive(flags) => {
                    self.drain();
                    std::thread::sleep(SHORTAGE * (1 << tried.min(5)));
                    short = Some(error);
                }
                // Only answers to questions are long; an ACK of a change is 36 bytes and some words, so no change is sent twice.
                Err(NetlinkError::TooLong(length)) if length <= BUFFER_MAX => {
                    self.drain();
                    self.buffer = Vec::with_capacity(length);
                }
                Err(error @ NetlinkError::Kernel { .. }) => return Err(error),
                Err(error) => {
                    self.drain();
                    return Err(error);
                }
                Ok(found) => return Ok(found),
            }
        }
        Err(short.unwrap_or(NetlinkError::Interrupted(TRIES)))
    }

    fn answer<T>(
        &mut self,
        flags: u16,
        decode: impl Fn(&NetlinkHeader, &[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut answer = Answer::new(self.sequence, flags);
        for _ in 0..DATAGRAMS_MAX {
            self.receive()?;
            let ended = answer.take(&self.buffer, &decode);
            self.undecoded += std::mem::take(&mut answer.undecoded);
            if ended? {
                return Ok(answer.found);
            }
        }
        Err(NetlinkError::NoAnswer)
    }

    /// Takes one datagram from the kernel into the buffer.
    fn receive(&mut self) -> Result<(), NetlinkError> {
        for _ in 0..DATAGRAMS_MAX {
            self.buffer.clear();
            match self.inner.recv_from(&mut self.buffer, MSG_DONTWAIT | MSG_TRUNC) {
                Ok((_, from)) if from.port_number() != 0 => {} // another process's, which only root can send
                Ok((length, _)) if length > self.buffer.len() => {
                    return Err(NetlinkError::TooLong(length));
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(NetlinkError::NoAnswer);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(NetlinkError::NoAnswer)
    }

    /// Reads what is left of an answer: the kernel refuses a second dump (EBUSY) until the first is read to its end.
    fn drain(&mut self) {
        for _ in 0..DATAGRAMS_MAX {
            self.buffer.clear();
            if self.inner.recv_from(&mut self.buffer, MSG_DONTWAIT).is_err() {
                return;
            }
        }
    }
}

/// A change that is refused where something is there. In a question for a list the same bit says something else (linux/netlink.h: NLM_F_MATCH).
fn is_exclusive(flags: u16) -> bool {
    flags & NLM_F_DUMP != NLM_F_DUMP && flags & NLM_F_EXCL != 0
}

/// An answer as it comes, datagram by datagram. Pure: what the bytes are is nobody's promise.
pub(super) struct Answer<T> {
    sequence: u32,
    flags: u16,
    interrupted: bool,
    pub(super) found: Vec<T>,
    pub(super) undecoded: usize,
}

impl<T> Answer<T> {
    /// To the request of this number that was sent with these flags.
    pub(super) fn new(sequence: u32, flags: u16) -> Answer<T> {
        Answer { sequence, flags, interrupted: false, found: Vec::new(), undecoded: 0 }
    }

    /// Takes what is in one datagram; true where that is the end.
    pub(super) fn take(
        &mut self,
        mut rest: &[u8],
        decode: impl Fn(&NetlinkHeader, &[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<bool, NetlinkError> {
        let dump = self.flags & NLM_F_DUMP == NLM_F_DUMP;
        while !rest.is_empty() {
            let packet = NetlinkBuffer::new_checked(rest).map_err(|e| undecodable(&e))?;
            let length = packet.length() as usize;
            let (sequence, reply) = (packet.sequence_number(), packet.flags());
            let bytes = &rest[..length];
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            if sequence != self.sequence {
                continue; // the tail of an answer that we gave up
            }
            self.interrupted |= reply & NLM_F_DUMP_INTR != 0;
            if packet.message_type() >= NLMSG_MIN_TYPE {
                let mut header = NetlinkHeader::default();
                header.message_type = packet.message_type();
                match decode(&header, packet.payload()) {
                    Ok(one) => self.found.extend(one),
                    // One device of an unknown shape must not hide the others.
                    Err(_) if dump => self.undecoded += 1,
                    Err(error) => return Err(undecodable(&error)),
                }
                if !dump && self.flags & NLM_F_ACK == 0 && reply & NLM_F_MULTIPART == 0 {
                    return Ok(true);
                }
                continue;
            }
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map_err(|e| undecodable(&e))?;
            match message.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    let text = words(&error.header, reply);
                    return Err(NetlinkError::Kernel { errno: error.raw_code().saturating_abs(), text });
                }
                NetlinkPayload::Done(done) if done.code < 0 => {
                    let text = (reply & NLM_F_ACK_TLVS != 0).then(|| extack(&done.extended_ack)).flatten();
                    return Err(NetlinkError::Kernel { errno: done.code.saturating_abs(), text });
                }
                NetlinkPayload::Done(_) if self.interrupted => {
                    return Err(NetlinkError::Interrupted(1));
                }
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// The library's words have all bytes of what it could not decode in them.
fn undecodable(error: &DecodeError) -> NetlinkError {
    NetlinkError::Decode(short_line(&error.to_string()))
}

/// The extended ACK's text in an NLMSG_ERROR: behind the request's header, or behind the whole request if that is not capped.
fn words(echo: &[u8], flags: u16) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request =
        if flags & NLM_F_CAPPED != 0 { 16 } else { u32::from_ne_bytes(echo.get(..4)?.try_into().ok()?) as usize };
    extack(echo.get(request.next_multiple_of(4)..)?)
}

fn extack(attributes: &[u8]) -> Option<String> {
    let nla = NlasIterator::new(attributes).filter_map(Result::ok).find(|nla| nla.kind() == NLMSGERR_ATTR_MSG)?;
    let text = String::from_utf8_lossy(nla.value());
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn what_does_not_decode_is_told_in_a_line() {
        // A link whose IFLA_VF_PORTS (24) is not what the library expects there.
        let body = [vec![0; 16], attribute(24, &[0xff; 3000])].concat();
        let mut message = (16 + body.len() as u32).to_ne_bytes().to_vec();
        message.extend(16u16.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        let mut answer = Answer::new(0, 0);
        let told = answer.take(&message, |header, body| RouteNetlinkMessage::deserialize(header, body).map(Some));
        let told = told.unwrap_err().to_string();
        assert!(told.contains("does not parse") && told.chars().count() < 700, "{told}");
    }

    #[test]
    fn the_kernels_words_are_found_behind_a_capped_and_a_whole_request() {
        let tail = [attribute(2, &[0; 4]), attribute(1, b"VNI exists\0")].concat();
        let capped = [vec![0; 16], tail.clone()].concat();
        assert_eq!(words(&capped, NLM_F_CAPPED | NLM_F_ACK_TLVS).as_deref(), Some("VNI exists"));
        let mut request = vec![0; 24];
        request[..4].copy_from_slice(&22u32.to_ne_bytes()); // unaligned length: the attributes begin at 24
        let whole = [request, tail].concat();
        assert_eq!(words(&whole, NLM_F_ACK_TLVS).as_deref(), Some("VNI exists"));
        assert_eq!(words(&whole, 0), None);
    }

    #[test]
    fn nonsense_in_place_of_words_is_no_words_and_no_panic() {
        for echo in [&[][..], &[0; 3], &[0xff; 16], &[0xff; 64]] {
            assert_eq!(words(echo, NLM_F_ACK_TLVS), None);
            assert_eq!(words(echo, NLM_F_ACK_TLVS | NLM_F_CAPPED), None);
        }
        let rude = attribute(1, b"a\n\x1b[31mb\0");
        assert_eq!(extack(&rude).as_deref(), Some("a[31mb"));
    }

    #[test]
    fn an_answer_longer_than_the_buffer_is_asked_for_again_with_a_larger_one() {
        let mut socket = Socket::open().unwrap();
        socket.buffer = Vec::with_capacity(64);
        let message = RouteNetlinkMessage::GetLink(Default::default());
        let links = socket.ask(message, NLM_F_DUMP).unwrap();
        assert!(!links.is_empty());
        assert!(socket.buffer.capacity() > 64);
    }
}
