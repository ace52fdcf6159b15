//! Routing rules. Their order is [`crate::plan::rules`]'s.

use super::Kernel;
use super::apply::{Done, forgive};
use super::error::{KernelError, NetlinkError, is_unsupported};
use crate::fault;
use crate::model::short_line;
use crate::plan::rules::{self, Change, EARLIER_BGP, EARLIER_LOCAL, Kind, Order, Ours, Rule, Rules};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, Nla};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};
use std::fmt::Write as _;

/// `RT_TABLE_DEFAULT`, `_MAIN` and `_LOCAL`, include/uapi/linux/rtnetlink.h.
const TABLES: [(u32, &str); 3] = [(253, "default"), (254, "main"), (LOCAL as u32, "local")];
const LOCAL: u8 = 255;
/// `FRA_SPORT_MASK` and `FRA_DPORT_MASK`, include/uapi/linux/fib_rules.h.
const PORT_MASKS: [u16; 2] = [28, 29];
/// BGP, RFC 4271.
const BGP: u16 = 179;
/// Others may change the rules while we do; then they are read again, so often.
const TRIES: usize = 4;

impl Kernel {
    /// The rules of IPv4 and, where there is IPv6, of IPv6.
    pub fn rules(&mut self) -> Result<Vec<Rules>, KernelError> {
        self.told("routing rules", |kernel| {
            let mut families = Vec::new();
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                match kernel.rules_of(family) {
                    Err(cause) if family == AddressFamily::Inet6 && is_unsupported(&cause) => {}
                    rules => {
                        families.push(rules.map_err(|cause| KernelError::Read { what: "routing rules".into(), cause })?)
                    }
                }
            }
            Ok(families)
        })
    }

    fn rules_of(&mut self, family: AddressFamily) -> Result<Rules, NetlinkError> {
        let mut filter = RuleMessage::default();
        filter.header.family = family;
        let found = self.socket.ask(RouteNetlinkMessage::GetRule(filter), NLM_F_DUMP)?;
        let rule = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewRule(rule) => Some(of(rule)),
            _ => None,
        };
        Ok(found.iter().filter_map(rule).collect())
    }

    /// [`Step::Rules`](crate::plan::Step::Rules)
    pub(super) fn arrange_rules(&mut self, order: Order) -> Done {
        self.arrange_rules_of(AddressFamily::Inet, order)?;
        match self.arrange_rules_of(AddressFamily::Inet6, order) {
            Err(cause) if is_unsupported(&cause) => Ok(()),
            done => done,
        }
    }

    fn arrange_rules_of(&mut self, family: AddressFamily, order: Order) -> Done {
        for _ in 0..TRIES {
            let changes = rules::changes(&self.rules_of(family)?, order);
            if changes.is_empty() {
                break;
            }
            for change in changes {
                self.change_rule(family, change)?;
                fault::point(format_args!("amid the rules of {family:?}, after {change:?}"));
            }
        }
        Ok(())
    }

    /// Without NLM_F_EXCL: the second rule for table local, which then is the last, is added before the first is deleted.
    fn change_rule(&mut self, family: AddressFamily, change: Change) -> Done {
        match change {
            Change::Add(ours) => self.change(RouteNetlinkMessage::NewRule(ours_of(family, ours)), NLM_F_CREATE),
            Change::Del(ours) => {
                let mut rule = ours_of(family, ours);
                if ours == Ours::Local {
                    // Whoever made it: somebody may have put it back by hand.
                    rule.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
                }
                forgive(self.change(RouteNetlinkMessage::DelRule(rule), 0))
            }
            Change::DelEarlierLocal => {
                let mut rule = local(family);
                rule.attributes.push(RuleAttribute::Priority(EARLIER_LOCAL));
                forgive(self.change(RouteNetlinkMessage::DelRule(rule), 0))
            }
            Change::DelEarlierBgp => {
                let (preference, protocol) = EARLIER_BGP;
                let mut rule = bgp(family);
                rule.attributes.push(RuleAttribute::Priority(preference));
                rule.attributes.push(RuleAttribute::Protocol(protocol.into()));
                forgive(self.change(RouteNetlinkMessage::DelRule(rule), 0))
            }
        }
    }
}

fn ours_of(family: AddressFamily, ours: Ours) -> RuleMessage {
    let mut rule = match ours {
        Ours::Bgp => bgp(family),
        Ours::Vrfs => {
            let mut rule = rule(family, RuleAction::ToTable);
            rule.attributes.push(RuleAttribute::L3MDev(true));
            rule
        }
        Ours::Local => local(family),
    };
    rule.attributes.push(RuleAttribute::Priority(0));
    rule.attributes.push(RuleAttribute::Protocol(RouteProtocol::Kernel));
    rule
}

fn rule(family: AddressFamily, action: RuleAction) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.action = action;
    rule
}

fn local(family: AddressFamily) -> RuleMessage {
    let mut rule = rule(family, RuleAction::ToTable);
    rule.header.table = LOCAL;
    rule
}

/// Only on what leaves the host itself (`iif lo`): of what it forwards the kernel need not look at ports (include/net/fib_rules.h,
/// `fib_rule_requires_fldissect`).
fn bgp(family: AddressFamily) -> RuleMessage {
    let mut rule = rule(family, RuleAction::Prohibit);
    rule.attributes = vec![
        RuleAttribute::L3MDev(true),
        RuleAttribute::Iifname("lo".to_owned()),
        RuleAttribute::IpProtocol(IpProtocol::Tcp),
        RuleAttribute::SourcePortRange(RulePortRange { start: BGP, end: BGP }),
    ];
    rule
}

/// What chooses packets, without what says whose it is and what it leads to.
fn selectors(rule: &RuleMessage) -> Vec<&RuleAttribute> {
    let chooses = |attribute: &&RuleAttribute| {
        !matches!(
            attribute,
            RuleAttribute::Priority(_)
                | RuleAttribute::Protocol(_)
                | RuleAttribute::Table(_)
                | RuleAttribute::Goto(_)
                | RuleAttribute::Realm(_)
                | RuleAttribute::SuppressPrefixLen(u32::MAX)
                | RuleAttribute::SuppressIfGroup(u32::MAX)
                | RuleAttribute::L3MDev(false)
        ) && !is_whole_port(attribute)
    };
    rule.attributes.iter().filter(chooses).collect()
}

/// From Linux 6.15 on a port is shown with its mask, which is all of it where nobody gave another (net/core/fib_rules.c `fib_nl_fill_rule`).
fn is_whole_port(attribute: &RuleAttribute) -> bool {
    match attribute {
        RuleAttribute::Other(other) if PORT_MASKS.contains(&other.kind()) => {
            let mut mask = vec![0; other.value_len()];
            other.emit_value(&mut mask);
            mask == u16::MAX.to_ne_bytes()
        }
        _ => false,
    }
}

pub(super) fn of(rule: &RuleMessage) -> Rule {
    let preference = preference(rule);
    let protocol = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Protocol(protocol) => Some(u8::from(*protocol)),
        _ => None,
    });
    let header = &rule.header;
    let chooses = selectors(rule);
    let all = (header.dst_len, header.src_len, header.tos) == (0, 0, 0) && !header.flags.contains(RuleFlags::Invert);
    let to_table = header.action == RuleAction::ToTable;
    let to_local = to_table && table(rule) == u32::from(LOCAL);
    let is_bgp = || {
        let wanted = bgp(header.family).attributes;
        all && header.action == RuleAction::Prohibit
            && chooses.len() == wanted.len()
            && wanted.iter().all(|attribute| chooses.contains(&attribute))
    };
    let kind = match chooses[..] {
        [RuleAttribute::L3MDev(true)] if all && to_table => Kind::Vrfs,
        [] if all && to_local => Kind::Local,
        _ if is_bgp() => Kind::Bgp,
        _ if to_local => Kind::SomeLocal(words(rule)),
        _ => Kind::Other(words(rule)),
    };
    Rule { preference, protocol: protocol.unwrap_or_default(), kind }
}

/// Preference 0 is shown by leaving it out (net/core/fib_rules.c, `fib_nl_fill_rule`).
fn preference(rule: &RuleMessage) -> u32 {
    let found = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(preference) => Some(*preference),
        _ => None,
    });
    found.unwrap_or(0)
}

fn table(rule: &RuleMessage) -> u32 {
    let found = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    found.unwrap_or(rule.header.table.into())
}

/// As `ip rule` shows it, so that its owner knows it again.
fn words(rule: &RuleMessage) -> String {
    let (mut from, mut to, mut more) = ("all".to_owned(), String::new(), String::new());
    let mut mask = None;
    for attribute in &rule.attributes {
        let _ = match attribute {
            RuleAttribute::Source(ip) => {
                from = format!("{ip}/{}", rule.header.src_len);
                Ok(())
            }
            RuleAttribute::Destination(ip) => write!(to, " to {ip}/{}", rule.header.dst_len),
            RuleAttribute::Iifname(name) => write!(more, " iif {}", short_line(name)),
            RuleAttribute::Oifname(name) => write!(more, " oif {}", short_line(name)),
            RuleAttribute::FwMark(mark) => write!(more, " fwmark {mark:#x}"),
            RuleAttribute::FwMask(found) => {
                mask = Some(*found);
                Ok(())
            }
            RuleAttribute::UidRange(range) => write!(more, " uidrange {}-{}", range.start, range.end),
            RuleAttribute::L3MDev(true) => write!(more, " l3mdev"),
            RuleAttribute::IpProtocol(protocol) => write!(more, " ipproto {}", i32::from(*protocol)),
            RuleAttribute::SourcePortRange(ports) => write!(more, " sport {}-{}", ports.start, ports.end),
            RuleAttribute::DestinationPortRange(ports) => write!(more, " dport {}-{}", ports.start, ports.end),
            _ => Ok(()),
        };
    }
    if let Some(mask) = mask.filter(|mask| *mask != u32::MAX) {
        more = more.replacen(" fwmark", &format!(" fwmask {mask:#x} fwmark"), 1);
    }
    let number = table(rule);
    let action = match rule.header.action {
        RuleAction::ToTable => {
            let name = TABLES.iter().find(|(known, _)| *known == number);
            format!("lookup {}", name.map_or(number.to_string(), |(_, name)| (*name).to_owned()))
        }
        other => format!("{other:?}").to_lowercase(),
    };
    let not = if rule.header.flags.contains(RuleFlags::Invert) { "not " } else { "" };
    format!("{}: {not}from {from}{to}{more} {action}", preference(rule))
}
