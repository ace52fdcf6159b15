//! Every reader of this room at once, for [`crate::untrusted`]: the netlink crates' types stay in here.

use super::netlink::Answer;
use super::{Event, decode, events, hears, nftables, routing, rules};
use crate::plan::rules::Rules;
use crate::plan::seen::{Address, Fdb, Link, Neigh, Remote, Route};
use netlink_packet_core::NetlinkDeserializable;
use netlink_packet_route::RouteNetlinkMessage;
use std::collections::VecDeque;
use std::net::IpAddr;

/// All that a datagram could be taken for.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) links: Vec<Link>,
    pub(crate) neighs: Vec<Neigh>,
    pub(crate) fdb: Vec<(u32, Fdb, u16)>,
    pub(crate) remotes: Vec<Remote>,
    pub(crate) vteps: Vec<IpAddr>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Route>,
    pub(crate) rules: Rules,
    pub(crate) filters: usize,
    pub(crate) lost: bool,
    pub(crate) events: VecDeque<Event>,
    pub(crate) errors: Vec<String>,
}

/// Reads a datagram as an answer to a request with these flags, in both ways that this room has, and as events.
pub(crate) fn read(datagram: &[u8], flags: u16) -> Read {
    let mut read = Read::default();
    // Whatever was asked last: an answer with another number is nobody's.
    let sequence = datagram.get(8..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_ne_bytes(*four));

    let mut answer = Answer::new(sequence, flags);
    let ended = answer.take(datagram, |_, body| Ok(Some((decode::link(body), decode::link_netns(body)))));
    read.errors.extend(ended.err().map(|error| error.to_string()));
    read.links.extend(answer.found.into_iter().filter_map(|(link, _)| link));

    let mut answer = Answer::new(sequence, flags);
    let ended = answer.take(datagram, |header, body| RouteNetlinkMessage::deserialize(header, body).map(Some));
    read.errors.extend(ended.err().map(|error| error.to_string()));
    for message in answer.found {
        match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => {
                read.neighs.extend(decode::neigh(neighbour.clone()));
                read.fdb.extend(decode::fdb(neighbour.clone()));
                read.vteps.extend(decode::remote(neighbour.clone()));
                read.remotes.extend(decode::remote_entry(neighbour));
            }
            RouteNetlinkMessage::NewAddress(address) => read.addresses.extend(decode::address(address)),
            RouteNetlinkMessage::NewRoute(route) => read.routes.extend(routing::leaves_by(&route)),
            RouteNetlinkMessage::NewRule(rule) => read.rules.push(rules::of(&rule)),
            RouteNetlinkMessage::NewTrafficFilter(filter) => {
                read.filters += usize::from(hears::of(&filter).is_some());
            }
            _ => {}
        }
    }
    read.lost = nftables::loses(datagram, "evpn-hook");
    events::parse(datagram, &mut read.events);
    read
}
