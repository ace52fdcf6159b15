//! Doing: one [`Step`] is one change, refused with the kernel's own words or done.
//!
//! Adding what is there already is an error (the planner looked before); removing what is gone is not. `replace` steps
//! (FDB entry, neighbour, address) and the host-wide ones (routing rule, unreachable routes) may be applied again.

use super::error::{KernelError, NetlinkError, is_gone, is_shortage, is_unsupported};
use super::{ALIAS, Kernel, decode};
use crate::fault;
use crate::model::{IfName, Mac};
use crate::plan::bridge::MAX_LEARNED;
use crate::plan::seen::PortFlags;
use crate::plan::{Hears, Step};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoKind,
    InfoPortData, InfoPortKind, InfoVrf, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rustix::io::Errno;
use std::net::IpAddr;

/// The kernel's MTU for a new bridge or VXLAN device, bytes (`ETH_DATA_LEN`).
const DEFAULT_MTU: u32 = 1500;

pub(super) type Done = Result<(), NetlinkError>;

impl Kernel {
    /// Does one step. Needs CAP_NET_ADMIN.
    pub fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        let done = match step {
            Step::AddVrf { name, table } => self
                .new_link(name, None, None, InfoKind::Vrf, InfoData::Vrf(vec![InfoVrf::TableId(table.get())]))
                .and_then(|()| self.finish_new(name, vec![alias()])),
            Step::AddBridge { name, mac, mtu } => self.add_bridge(name, *mac, *mtu),
            Step::AddVxlan { vni, local, port, mtu } => {
                let options = vec![
                    InfoVxlan::Id(vni.get()),
                    match local {
                        IpAddr::V4(ip) => InfoVxlan::Local(*ip),
                        IpAddr::V6(ip) => InfoVxlan::Local6(*ip),
                    },
                    InfoVxlan::Port(*port),
                    InfoVxlan::Learning(false),
                ];
                let name = vni.device();
                self.new_link(&name, None, *mtu, InfoKind::Vxlan, InfoData::Vxlan(options))
                    .and_then(|()| self.finish_new(&name, vec![alias(), no_addrgen()]))
            }
            Step::DelLink { name } => {
                self.observed.remove(name);
                forgive(self.change(RouteNetlinkMessage::DelLink(named(name)), 0))
            }
            Step::SetMaster { dev, master } => {
                let index = match master {
                    Some(master) => self.index(step, master)?.ok_or_else(|| KernelError::no_device(step, master))?,
                    None => 0,
                };
                let done = self.set_link(dev, vec![LinkAttribute::Controller(index)]);
                if master.is_none() { forgive(done) } else { done }
            }
            Step::SetUp { dev, up } => self.set_up(dev, *up),
            Step::PartSvi { bridge, .. } => forgive(self.set_up(bridge, false)),
            Step::SetMtu { dev, mtu } => self.set_link(dev, vec![LinkAttribute::Mtu(*mtu)]),
            Step::SetMac { dev, mac } => self.set_link(dev, vec![LinkAttribute::Address(mac.octets().to_vec())]),
            Step::SetVxlanPort { dev } => return self.set_vxlan_port(step, dev),
            // A kernel without CONFIG_BRIDGE_VLAN_FILTERING ignores this attribute, rightly.
            Step::ClearDefaultPvid { bridge } => self.set_bridge(bridge, InfoBridge::VlanDefaultPvid(0)),
            Step::SetDefaultPvid { bridge, pvid } => self.set_bridge(bridge, InfoBridge::VlanDefaultPvid(*pvid)),
            Step::SetStp { bridge, on } => {
                let state = if *on { BridgeStpState::KernelStp } else { BridgeStpState::Disabled };
                self.set_bridge(bridge, InfoBridge::StpState(state))
            }
            Step::SetMaxLearned { bridge, most } => self.set_bridge(bridge, InfoBridge::FdbMaxLearned(*most)),
            Step::Mark { dev } => self.set_link(dev, vec![alias()]),
            // The kernel says EAFNOSUPPORT for a device without IPv6 (no module, MTU below 1280): it generates no address either.
            Step::NoAddrGen { dev } => forgive_unsupported(self.set_link(dev, vec![addrgen(In6AddrGenMode::None)])),
            Step::AddrGen { dev } => forgive_unsupported(self.set_link(dev, vec![addrgen(In6AddrGenMode::Eui64)])),
            Step::AddAddress { dev, address } => {
                let dev = self.need(step, dev)?;
                self.add_address(dev, *address)
            }
            Step::DelAddress { dev, address } => match self.index(step, dev)? {
                Some(index) => forgive(self.del_address(index, *address)),
                None => Ok(()),
            },
            Step::Sysctl { path, value } => return self.write_sysctl(step, path, value),
            Step::AddUnreachable { table } => self.unreachable_routes(*table, true),
            Step::DelUnreachable { table } => self.unreachable_routes(*table, false),
            Step::Rules { order } => self.arrange_rules(*order),
            Step::Hear { dev, hears } => match (self.index(step, dev)?, hears) {
                (Some(index), hears) => self.hear(index, *hears),
                (None, Hears::All) => Ok(()),
                (None, _) => return Err(KernelError::no_device(step, dev)),
            },
            Step::AddFdb { dev, mac } => {
                let port = self.need(step, dev)?;
                self.add_fdb(port, *mac)
            }
            Step::DelFdb { dev, mac } => match self.index(step, dev)? {
                Some(index) => match self.del_fdb(index, *mac) {
                    // Out of its bridge a device has no entries, and the kernel answers EINVAL or EOPNOTSUPP, by its kind.
                    Err(cause) if (cause.is(Errno::INVAL) || is_unsupported(&cause)) && !self.is_port(step, dev)? => {
                        Ok(())
                    }
                    done => forgive(done),
                },
                None => Ok(()),
            },
            Step::AddNeigh { bridge, ip, mac, router } => {
                let bridge = self.need(step, bridge)?;
                self.add_neigh(bridge, *ip, *mac, *router)
            }
            Step::TellFdb { dev, mac } => {
                let port = self.need(step, dev)?;
                let gone = forgive(self.del_fdb(port, *mac));
                fault::point(format_args!("amid {step}"));
                gone.and_then(|()| self.add_fdb(port, *mac))
            }
            Step::EndFdb { vxlan, mac, vtep } => match self.index(step, vxlan)? {
                Some(index) => {
                    let added = match self.add_remote(index, *mac, *vtep) {
                        // zebra leaves the entry of the VTEP from which a guest came; or nobody knows whether there is one.
                        Err(cause) if cause.is(Errno::EXIST) || is_shortage(&cause) => {
                            // Where another VTEP has it by now, the speaker knows.
                            if self.is_behind(index, *mac)? {
                                return Ok(());
                            }
                            self.put_remote(index, *mac, *vtep)
                        }
                        done => done,
                    };
                    added.and_then(|()| forgive(self.del_remote(index, *mac, *vtep)))
                }
                None => Ok(()),
            },
            Step::TellNeigh { bridge, ip, mac, router } => {
                let bridge = self.need(step, bridge)?;
                self.tell_neigh(bridge, *ip, *mac, *router)
            }
            Step::DelNeigh { bridge, ip } => match self.index(step, bridge)? {
                Some(index) => match self.del_neigh(index, *ip) {
                    Err(cause) if is_unsupported(&cause) => Ok(()),
                    done => forgive(done),
                },
                None => Ok(()),
            },
            Step::HoldPort { index, held, .. } => {
                let mut message = LinkMessage::default();
                message.header.index = *index;
                // What it taught the bridge before would be let through still.
                let flush = held.then_some(InfoBridgePort::Flush);
                match self.set_port(message, lock(*held).into_iter().chain(flush).collect()) {
                    // It has left its bridge, or is gone.
                    Err(_) if self.link_by_index(*index)?.is_none_or(|link| link.master.is_none()) => Ok(()),
                    done => done,
                }
            }
            Step::LockPort { dev, locked } => {
                match self.set_port(named(dev), lock(*locked)) {
                    // Out of its bridge it is no port that could be locked.
                    Err(_) if !locked && !self.is_port(step, dev)? => Ok(()),
                    done => done,
                }
            }
            Step::IsolateTunnel { dev } => self.set_port(named(dev), vec![InfoBridgePort::Isolated(true)]),
            Step::LayGuards
            | Step::LiftGuards
            | Step::GuardBridge { .. }
            | Step::Guard { .. }
            | Step::AwaitVrf { .. }
            | Step::AwaitPort { .. }
            | Step::AwaitGone { .. }
            | Step::SpeakerAddVrf { .. }
            | Step::SpeakerDelVrf { .. } => {
                return Err(KernelError::NotOurs { step: step.to_string() });
            }
        };
        done.map_err(|cause| KernelError::step(step, cause))
    }

    fn add_bridge(&mut self, name: &IfName, mac: Mac, mtu: Option<u32>) -> Done {
        let options = vec![
            InfoBridge::ForwardDelay(0),
            InfoBridge::StpState(BridgeStpState::Disabled),
            // Ignored by a kernel without CONFIG_BRIDGE_VLAN_FILTERING, where there is none to clear.
            InfoBridge::VlanDefaultPvid(0),
            // Ignored by kernels before 6.7.
            InfoBridge::FdbMaxLearned(MAX_LEARNED),
        ];
        // An MTU given at creation is lost when the first port joins: only a *change* marks it as somebody's wish
        // (net/bridge/br_device.c, `br_change_mtu`; BROPT_MTU_SET_BY_USER), so the new bridge starts with another.
        let start = mtu.map(|mtu| if mtu == DEFAULT_MTU { DEFAULT_MTU - 1 } else { DEFAULT_MTU });
        self.new_link(name, Some(mac), start, InfoKind::Bridge, InfoData::Bridge(options))?;
        let mtu = mtu.map(LinkAttribute::Mtu);
        self.finish_new(name, mtu.into_iter().chain([alias(), no_addrgen()]).collect())
    }

    /// What RTM_NEWLINK does not take for a new device (`addrgenmode` is refused with EAFNOSUPPORT, an alias not looked at) or forgets (a
    /// bridge's MTU). The device is still down, so no address was generated. If this fails the device goes again: a step is done or not done.
    fn finish_new(&mut self, name: &IfName, attributes: Vec<LinkAttribute>) -> Done {
        fault::point(format_args!("amid the making of {name}"));
        let done = match self.set_link(name, attributes.clone()) {
            Err(cause) if is_unsupported(&cause) => {
                let rest = attributes.into_iter().filter(|a| !matches!(a, LinkAttribute::AfSpecUnspec(_)));
                self.set_link(name, rest.collect())
            }
            done => done,
        };
        done.inspect_err(|_| {
            // The first error is the one to tell; the device may stay if even this fails, and the next observation shows it.
            let _ = self.change(RouteNetlinkMessage::DelLink(named(name)), 0);
        })
    }

    fn new_link(&mut self, name: &IfName, mac: Option<Mac>, mtu: Option<u32>, kind: InfoKind, data: InfoData) -> Done {
        self.observed.remove(name);
        let mut message = named(name);
        message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
        message.attributes.extend(mtu.map(LinkAttribute::Mtu));
        message.attributes.push(link_info(kind, data));
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn set_vxlan_port(&mut self, step: &Step, dev: &IfName) -> Result<(), KernelError> {
        let seen = self
            .set_port(named(dev), vec![InfoBridgePort::Learning(false), InfoBridgePort::NeighSupress(true)])
            .and_then(|()| self.link_by_name(dev, decode::link))
            .map_err(|cause| KernelError::step(step, cause))?
            .ok_or_else(|| KernelError::no_device(step, dev))?;
        // Attributes that a kernel does not know it acknowledges all the same.
        let missing = match seen.port {
            PortFlags { learning: Some(false), neigh_suppress: Some(true), .. } => return Ok(()),
            PortFlags { learning: Some(false), .. } => "neigh_suppress on",
            _ => "learning off",
        };
        Err(KernelError::Ignored { step: step.to_string(), missing })
    }

    /// The flags of a bridge's port. One that the kernel does not know it takes all the same.
    fn set_port(&mut self, mut message: LinkMessage, flags: Vec<InfoBridgePort>) -> Done {
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(flags)),
        ]));
        self.change(RouteNetlinkMessage::NewLink(message), 0)
    }

    fn set_up(&mut self, dev: &IfName, up: bool) -> Done {
        let mut message = named(dev);
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// RTM_SETLINK would acknowledge this and ignore it: only RTM_NEWLINK looks into IFLA_LINKINFO.
    fn set_bridge(&mut self, bridge: &IfName, option: InfoBridge) -> Done {
        let mut message = named(bridge);
        message.attributes.push(link_info(InfoKind::Bridge, InfoData::Bridge(vec![option])));
        self.change(RouteNetlinkMessage::NewLink(message), 0)
    }

    fn set_link(&mut self, dev: &IfName, attributes: Vec<LinkAttribute>) -> Done {
        let mut message = named(dev);
        message.attributes.extend(attributes);
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    pub(super) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> Done {
        self.socket.ask(message, NLM_F_ACK | flags).map(drop)
    }

    /// Whether its bridge sends a MAC's frames to this port.
    fn is_behind(&mut self, port: u32, mac: Mac) -> Result<bool, KernelError> {
        let Some(bridge) = self.link_by_index(port)?.and_then(|link| link.master) else { return Ok(false) };
        Ok(self.fdb(bridge, mac)?.is_some_and(|entry| entry.port == port))
    }

    fn is_port(&mut self, step: &Step, dev: &IfName) -> Result<bool, KernelError> {
        let found = self.link_by_name(dev, decode::link).map_err(|cause| KernelError::step(step, cause))?;
        Ok(found.is_some_and(|link| link.master.is_some()))
    }

    fn index(&mut self, step: &Step, dev: &IfName) -> Result<Option<u32>, KernelError> {
        if let Some(index) = self.observed.get(dev) {
            return Ok(Some(*index));
        }
        let found = self.link_by_name(dev, decode::link).map_err(|cause| KernelError::step(step, cause))?;
        Ok(found.map(|link| link.index))
    }

    fn need(&mut self, step: &Step, dev: &IfName) -> Result<u32, KernelError> {
        self.index(step, dev)?.ok_or_else(|| KernelError::no_device(step, dev))
    }
}

fn lock(locked: bool) -> Vec<InfoBridgePort> {
    vec![InfoBridgePort::Locked(locked), InfoBridgePort::Learning(!locked)]
}

/// A link request by name: the kernel looks the index up itself (net/core/rtnetlink.c, `rtnl_dev_get`), in the same system call.
fn named(name: &IfName) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    message
}

fn link_info(kind: InfoKind, data: InfoData) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)])
}

fn alias() -> LinkAttribute {
    LinkAttribute::IfAlias(ALIAS.to_owned())
}

fn no_addrgen() -> LinkAttribute {
    addrgen(In6AddrGenMode::None)
}

fn addrgen(mode: In6AddrGenMode) -> LinkAttribute {
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode)])])
}

fn forgive_unsupported(done: Done) -> Done {
    match done {
        Err(cause) if is_unsupported(&cause) => Ok(()),
        done => done,
    }
}

/// Gone already is as good as deleted.
pub(super) fn forgive(done: Done) -> Done {
    match done {
        Err(cause) if cause.errno().is_some_and(is_gone) => Ok(()),
        done => done,
    }
}
