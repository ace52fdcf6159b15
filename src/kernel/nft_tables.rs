//! The tables of nftables that the kernel has, for where there is no `nft` to list them.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use std::io;
use std::time::Duration;

/// `NFNL_SUBSYS_NFTABLES`, include/uapi/linux/netfilter/nfnetlink.h: the upper byte of a message's type.
const SUBSYSTEM: u16 = 10 << 8;
/// `NFT_MSG_NEWTABLE`, `NFT_MSG_GETTABLE`, include/uapi/linux/netfilter/nf_tables.h.
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
/// `NFTA_TABLE_NAME`, likewise: the first attribute.
const NAME: u16 = 1;
/// `sizeof(struct nlmsghdr)`, `sizeof(struct nfgenmsg)`.
const HEADER: usize = 16;
const NFGENMSG: usize = 4;
/// The kernel answers at once.
const PATIENCE: Duration = Duration::from_millis(500);

/// A table of nftables.
#[derive(Debug, PartialEq, Eq)]
pub struct NftTable {
    /// As nft(8) calls it: `ip`, `inet`.
    pub family: String,
    /// Its name.
    pub name: String,
}

/// Those that look at IP packets, in this thread's network namespace; none where the kernel has no nftables.
pub fn nft_tables() -> io::Result<Vec<NftTable>> {
    let socket = match Socket::new(NETLINK_NETFILTER) {
        // A kernel without any netfilter.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::PROTONOSUPPORT) => return Ok(Vec::new()),
        socket => socket?,
    };
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))?;
    let mut question = Vec::from(((HEADER + NFGENMSG) as u32).to_ne_bytes());
    question.extend([GET.to_ne_bytes(), (NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes()].concat());
    question.extend([0; 8 + NFGENMSG]);
    socket.send_to(&question, &SocketAddr::new(0, 0), 0)?;
    let mut tables = Vec::new();
    loop {
        let mut answer = Vec::with_capacity(32 << 10);
        socket.recv_from(&mut answer, 0)?;
        if read(&answer, &mut tables)? {
            return Ok(tables);
        }
    }
}

/// Was that the last of them?
fn read(mut rest: &[u8], tables: &mut Vec<NftTable>) -> io::Result<bool> {
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest).map_err(|_| io::ErrorKind::InvalidData)?;
        let payload = message.payload();
        match message.message_type() {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = payload.first_chunk().map_or(0, |code| -i32::from_ne_bytes(*code));
                // A kernel without nf_tables has none of its tables (net/netfilter/nfnetlink.c `nfnetlink_rcv_msg`).
                return if code == Errno::INVAL.raw_os_error() {
                    Ok(true)
                } else {
                    Err(io::Error::from_raw_os_error(code))
                };
            }
            NEW => tables.extend(table(payload)),
            _ => {}
        }
        rest = rest.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn table(payload: &[u8]) -> Option<NftTable> {
    // `NFPROTO_INET` and so on, include/uapi/linux/netfilter.h.
    let family = match payload.first()? {
        1 => "inet",
        2 => "ip",
        5 => "netdev",
        10 => "ip6",
        _ => return None,
    };
    let half = |at: usize| payload.get(at..at + 2).map(|two| u16::from_ne_bytes([two[0], two[1]]));
    let (length, kind) = (half(NFGENMSG)?, half(NFGENMSG + 2)?);
    let name = payload.get(NFGENMSG + 4..NFGENMSG + usize::from(length)).filter(|_| kind == NAME)?;
    let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
    Some(NftTable { family: family.into(), name })
}
