//! What a bridge hands up to the host: a filter in its way. What goes from port to port does not pass there. Its program is a classic one, which needs
//! cls_bpf alone: no action's module, and no bpf(2).

use super::Kernel;
use super::apply::Done;
use super::error::KernelError;
use crate::plan::Hears;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Nla};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use rustix::io::Errno;

/// The filter's preference, by which it is known: an administrator's own with a smaller one comes first.
const PREFERENCE: u32 = 69;
/// `ETH_P_ALL` as `tcm_info` has it, in network byte order.
const EVERY_PROTOCOL: u32 = (0x0003_u16.to_be()) as u32;
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };

/// include/uapi/linux/pkt_cls.h
const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;
const TCA_BPF_FLAGS: u16 = 8;
/// The program's return value is the verdict: no action is needed beside it.
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const TC_ACT_SHOT: u32 = 2;
/// The next filter decides; without one the packet passes.
const TC_ACT_UNSPEC: u32 = u32::MAX;
/// Where there is no such device, no filter, or no place for one.
const NO_FILTERS: [Errno; 4] = [Errno::NODEV, Errno::NOENT, Errno::OPNOTSUPP, Errno::INVAL];

/// `struct sock_filter` of a classic program: code, jump if true, jump if false, operand (include/uapi/linux/filter.h). A load behind the
/// packet's end ends the program with 0, TC_ACT_OK; such a packet is no IPv6 either.
type Instruction = (u16, u8, u8, u32);
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Nothing passes.
const NOTHING: [Instruction; 1] = [(RETURN, 0, 0, TC_ACT_SHOT)];
/// To fe80::/10 UDP and ICMPv6 pass, and nothing else: no TCP, and none behind an extension header either.
const NO_LINK_LOCAL_SERVICE: [Instruction; 10] = [
    (LOAD_HALF, 0, 0, 12), // the Ethernet type
    (IF_EQUAL, 0, 7, 0x86dd),
    (LOAD_HALF, 0, 0, 14 + 24), // the destination
    (AND, 0, 0, 0xffc0),
    (IF_EQUAL, 0, 4, 0xfe80),
    (LOAD_BYTE, 0, 0, 14 + 6), // the next header
    (IF_EQUAL, 2, 0, 17),
    (IF_EQUAL, 1, 0, 58),
    (RETURN, 0, 0, TC_ACT_SHOT),
    (RETURN, 0, 0, TC_ACT_UNSPEC),
];

fn program(hears: Hears) -> &'static [Instruction] {
    match hears {
        Hears::All => &[],
        Hears::NoLinkLocalService => &NO_LINK_LOCAL_SERVICE,
        Hears::Nothing => &NOTHING,
    }
}

impl Kernel {
    /// What of this bridge's packets reaches the host, by the filter of [`Step::Hear`](crate::plan::Step::Hear).
    pub fn hears(&mut self, index: u32) -> Result<Hears, KernelError> {
        self.told(format_args!("what is heard of index {index}"), |kernel| {
            let mut question = filter(index);
            question.header.info = 0;
            let found = kernel.socket.ask(RouteNetlinkMessage::GetTrafficFilter(question), NLM_F_DUMP);
            let found = match found {
                // No such device any more, or a kernel without filters.
                Err(cause) if NO_FILTERS.iter().any(|errno| cause.is(*errno)) => return Ok(Hears::All),
                found => {
                    found.map_err(|cause| KernelError::Read { what: format!("filters of index {index}"), cause })?
                }
            };
            let ours = found.iter().find_map(|message| match message {
                RouteNetlinkMessage::NewTrafficFilter(found) => of(found),
                _ => None,
            });
            Ok(ours.unwrap_or_default())
        })
    }

    pub(super) fn hear(&mut self, index: u32, hears: Hears) -> Done {
        if hears == Hears::All {
            return self.hear_all(index);
        }
        let mut place = message(index, TcHandle::CLSACT);
        place.header.handle = TcHandle { major: 0xffff, minor: 0 };
        place.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        match self.change(RouteNetlinkMessage::NewQueueDiscipline(place), NLM_F_CREATE | NLM_F_EXCL) {
            // Somebody has one there already, which serves as well.
            Err(cause) if cause.is(Errno::EXIST) => {}
            done => done?,
        }
        let program = program(hears);
        let mut drops = filter(index);
        // With a number of its own it is refused where there is one; without, it would be a second one.
        drops.header.handle = TcHandle { major: 0, minor: 1 };
        let length = u16::try_from(program.len()).expect("a short program");
        let options = [
            attribute(TCA_BPF_OPS_LEN, &length.to_ne_bytes()),
            attribute(TCA_BPF_OPS, &bytes(program)),
            attribute(TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes()),
        ];
        drops.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
        drops.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options.concat())));
        let mut add = || self.change(RouteNetlinkMessage::NewTrafficFilter(drops.clone()), NLM_F_CREATE | NLM_F_EXCL);
        match add() {
            // One filter is not changed into another.
            Err(cause) if cause.is(Errno::EXIST) => {
                self.hear_all(index)?;
                self.change(RouteNetlinkMessage::NewTrafficFilter(drops), NLM_F_CREATE | NLM_F_EXCL)
            }
            done => done,
        }
    }

    fn hear_all(&mut self, index: u32) -> Done {
        match self.change(RouteNetlinkMessage::DelTrafficFilter(filter(index)), 0) {
            Err(cause) if NO_FILTERS.iter().any(|errno| cause.is(*errno)) => Ok(()),
            done => done,
        }
    }
}

/// What is heard behind this filter, where it is ours.
pub(super) fn of(filter: &TcMessage) -> Option<Hears> {
    let ours = filter.header.info >> 16 == PREFERENCE;
    [Hears::Nothing, Hears::NoLinkLocalService].into_iter().find(|hears| ours && runs(filter, program(*hears)))
}

/// Does this filter run this program?
fn runs(found: &TcMessage, program: &[Instruction]) -> bool {
    let options = found.attributes.iter().flat_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.as_slice(),
        _ => &[],
    });
    options.into_iter().any(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::Other(other)) if other.kind() == TCA_BPF_OPS => {
            let mut value = vec![0; other.value_len()];
            other.emit_value(&mut value);
            value == bytes(program)
        }
        _ => false,
    })
}

fn bytes(program: &[Instruction]) -> Vec<u8> {
    let instruction = |(code, yes, no, k): &Instruction| {
        let mut bytes = code.to_ne_bytes().to_vec();
        bytes.extend([*yes, *no]);
        bytes.extend(k.to_ne_bytes());
        bytes
    };
    program.iter().flat_map(instruction).collect()
}

const TCA_OPTIONS: u16 = 2;

fn message(index: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = parent;
    message
}

fn filter(index: u32) -> TcMessage {
    let mut message = message(index, INGRESS);
    message.header.info = PREFERENCE << 16 | EVERY_PROTOCOL;
    message
}

/// One netlink attribute, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a few bytes");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
