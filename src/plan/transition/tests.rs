//! One host, one guest, and what becomes of it: each test is a line of the table. `A` and `B` are
//! MACs, `red` is the bridge red-l2 with the tunnel vxlan20.

use super::*;
use crate::config::PortSecurity;
use crate::model::Source;
use crate::plan::fixture::{bridge, link, mac, name, vxlan};
use crate::plan::record::{Hook, Taken};
use crate::plan::seen::{Fdb, Link, LinkKind, Neigh};
use std::cell::RefCell;
use std::collections::HashMap;

const A: &str = "52:54:00:00:00:0a";
const B: &str = "52:54:00:00:00:0b";
const NOW: u64 = 10_000;

/// A host, a guest's record, and what is wished for.
#[derive(Clone)]
struct Case {
    before: Option<GuestRecord>,
    wish: GuestRecord,
    mode: Mode,
    looked: Option<&'static str>,
    stands: Option<Stands>,
    hurried: bool,
    links: Vec<Link>,
    fdb: Vec<(u32, Fdb)>,
    neighs: Vec<(u32, Neigh)>,
    guards: HashMap<u32, Guard>,
    fabric: Vec<Address>,
    owner: Option<Guest>,
    duplicates: Vec<Duplicate>,
    refuses: bool,
    asked: RefCell<Vec<&'static str>>,
}

impl Eyes for &Case {
    type Error = Infallible;

    fn index(&mut self, device: &IfName) -> Result<Option<u32>, Infallible> {
        Whole(&self.world()).index(device)
    }
    // As the kernel's eyes do: one question, whether the port lets all of it in, and only where
    // something may have been changed.
    fn port(&mut self, want: &Wanted) -> Result<Seen, Infallible> {
        let Ok(seen) = Whole(&self.world()).port(want);
        let lets = want.mend && want.guard.is_subset(&seen.guard);
        Ok(Seen { guard: if lets { want.guard.clone() } else { Guard::new() }, ..seen })
    }
    fn fabric(&mut self, _: &IfName, _: Mac) -> Result<Vec<Address>, Infallible> {
        self.asked.borrow_mut().push("fabric");
        Ok(self.fabric.clone())
    }
    fn owner(&mut self, _: &IfName, _: &Guest) -> Option<Guest> {
        self.asked.borrow_mut().push("owner");
        self.owner.clone()
    }
    fn duplicates(&mut self, _: &Guest, want: &Wanted, _: &Seen) -> Result<Vec<Duplicate>, Infallible> {
        Ok(if want.device.as_str() == "vnet0" { self.duplicates.clone() } else { Vec::new() })
    }
    fn refuses_duplicates(&mut self) -> bool {
        self.asked.borrow_mut().push("policy");
        self.refuses
    }
    fn now(&mut self) -> u64 {
        NOW
    }
}

fn guest(kind: GuestKind) -> Guest {
    Guest::new(kind, "vm1", "id1").unwrap()
}

fn ip(text: &str) -> Address {
    Address::new(text.parse().unwrap(), Source::Metadata)
}

fn learned(text: &str) -> Address {
    Address::new(text.parse().unwrap(), Source::Neighbour)
}

fn nic(device: &str, of: &str, ips: &[Address]) -> Endpoint {
    Endpoint {
        network: "red".parse().unwrap(),
        bridge: name("red"),
        device: name(device),
        mac: Some(mac(of)),
        ips: ips.to_vec(),
        enslaved: false,
        stage: Stage::Pending,
        port_security: PortSecurity::Off,
        index: None,
        taken: Vec::new(),
        slowed: Vec::new(),
        beside: Vec::new(),
    }
}

fn one() -> Endpoint {
    nic("vnet0", A, &[ip("10.1.0.1")])
}

fn record(endpoints: &[Endpoint]) -> GuestRecord {
    let mut record = GuestRecord { endpoints: endpoints.to_vec(), ..GuestRecord::new(guest(GuestKind::Libvirt)) };
    record.know_ports();
    record
}

/// The same further on.
fn at(stage: Stage, endpoint: Endpoint) -> Endpoint {
    Endpoint { stage, ..endpoint }
}

fn here(endpoint: Endpoint) -> Endpoint {
    at(Stage::Registered, endpoint)
}

fn tap(device: &str, index: u32, master: Option<u32>) -> Link {
    Link { master, ours: false, ..link(device, index, LinkKind::Other("tun".into())) }
}

fn neigh(text: &str, of: &str, ext_learned: bool) -> Neigh {
    let (ip, mac) = (text.parse().unwrap(), Some(mac(of)));
    Neigh { ip, mac, permanent: true, ext_learned, ours: !ext_learned, router: false }
}

fn somewhere(ip: Option<&str>, of: &str, holder: Holder) -> Duplicate {
    Duplicate { ip: ip.map(|ip| ip.parse().unwrap()), mac: mac(of), holder }
}

fn vtep() -> Holder {
    Holder::Vtep("10.0.0.9".parse().ok())
}

/// vm1 starts with one NIC; nothing of it is there but its taps on their bridge.
fn start(endpoints: &[Endpoint]) -> Case {
    Case {
        before: None,
        wish: record(endpoints),
        mode: Mode::Start,
        looked: None,
        stands: None,
        hurried: false,
        links: vec![
            bridge("red", 7),
            vxlan(20, 8, Some(7)),
            bridge("blue", 9),
            tap("vnet0", 12, Some(7)),
            tap("vnet1", 13, Some(7)),
        ],
        fdb: Vec::new(),
        neighs: Vec::new(),
        guards: HashMap::new(),
        fabric: Vec::new(),
        owner: None,
        duplicates: Vec::new(),
        refuses: false,
        asked: RefCell::default(),
    }
}

/// It runs as its record says, and is looked at again.
fn mend(endpoints: &[Endpoint]) -> Case {
    let record = record(&endpoints.iter().cloned().map(here).collect::<Vec<_>>());
    let case = Case { before: Some(record.clone()), mode: Mode::Mend, ..start(endpoints) };
    Case { wish: record, ..case }.all_there()
}

/// It comes from another host.
fn comes(endpoints: &[Endpoint]) -> Case {
    let case = Case { mode: Mode::Incoming, ..start(endpoints) };
    Case { wish: GuestRecord { incoming_since: Some(NOW), ..case.wish }, ..case }
}

/// It came from another host, and runs here by now.
fn arrives(endpoints: &[Endpoint]) -> Case {
    let wired = record(&endpoints.iter().cloned().map(|e| at(Stage::Incoming, e)).collect::<Vec<_>>());
    let before = GuestRecord { incoming_since: Some(NOW), ..wired.clone() };
    Case { before: Some(before), wish: wired, mode: Mode::Mend, ..start(&[]) }
}

impl Case {
    fn world(&self) -> World {
        World::new(self.links.clone(), Vec::new())
            .with_entries(self.fdb.clone(), self.neighs.clone())
            .with_guards(Some(self.guards.clone()))
    }

    /// The kernel holds all that its record says.
    fn all_there(mut self) -> Case {
        for e in self.before.iter().flat_map(|b| &b.endpoints) {
            let device = self.links.iter_mut().find(|l| l.name == e.device).unwrap();
            if !e.guard().is_empty() {
                (device.port.locked, device.port.learning) = (Some(true), Some(false));
                self.guards.insert(device.index, e.guard());
            }
            let mac = e.mac.unwrap();
            self.fdb.push((7, Fdb { mac, port: device.index, is_static: true, ext_learned: false }));
            let held = |a: &Address| Neigh { router: a.router, ..neigh(&a.ip.to_string(), &mac.to_string(), false) };
            self.neighs.extend(e.ips.iter().map(|a| (7, held(a))));
        }
        self
    }

    /// The kernel has this neighbour, whatever it had before.
    fn has(mut self, entry: Neigh) -> Case {
        self.neighs.retain(|(_, n)| n.ip != entry.ip);
        self.neighs.push((7, entry));
        self
    }

    fn without(mut self, what: &str) -> Case {
        self.neighs.retain(|(_, n)| n.ip.to_string() != what);
        self.fdb.retain(|(_, f)| f.mac.to_string() != what);
        self.links.retain(|l| l.name.as_str() != what);
        self
    }

    fn on(mut self, device: &str, master: Option<u32>) -> Case {
        self.links.iter_mut().find(|l| l.name.as_str() == device).unwrap().master = master;
        self
    }

    fn of(mut self, kind: GuestKind) -> Case {
        for record in self.before.iter_mut().chain([&mut self.wish]) {
            record.guest = guest(kind);
        }
        self
    }

    fn wishes(self, endpoints: &[Endpoint]) -> Case {
        let wish = GuestRecord { guest: self.wish.guest.clone(), ..record(endpoints) };
        Case { wish, ..self }
    }

    fn again(self, endpoints: &[Endpoint]) -> Case {
        Case { mode: Mode::Start, ..self.wishes(endpoints) }
    }

    fn change(&self) -> Change<'_> {
        let which = |e: &Endpoint| self.looked.is_none_or(|looked| e.device.as_str() == looked);
        Change::new(self.before.as_ref(), self.wish.clone(), self.mode, which)
            .standing(self.stands)
            .hurried(self.hurried)
    }

    /// What comes of it, a line each: what is claimed, the steps, the record, what is told.
    fn comes_to(&self) -> String {
        let change = self.change();
        let Ok(seen) = look(&change, &mut &*self);
        let mut lines = Vec::new();
        let tell = match transition(&change, &seen) {
            Ok(Transition { claim, plan, after, tell, gave_up }) => {
                let leaving = claim.iter().flat_map(|c| &c.leaving).map(|e| format!(" -{}", e.device));
                lines.push(match &claim {
                    Some(_) => format!("claim{}", leaving.collect::<String>()),
                    None => "no claim".to_owned(),
                });
                lines.extend(plan.iter().map(|p| p.step.to_string()));
                lines.extend(after.endpoints.iter().map(told));
                lines.extend(gave_up.iter().map(|a| format!("gave up {}", a.ip)));
                assert!(after.leaving.is_empty(), "what went is forgotten once all is done");
                tell
            }
            Err(Refused { why, tell, may_go }) => {
                lines.push(format!("no: {why}"));
                lines.extend(may_go.map(|nic| format!("what is in the way of NIC {nic} may go")));
                tell
            }
        };
        lines.extend(tell.iter().map(|tell| match tell {
            Tell::Note(what) => format!("note: {what}"),
            Tell::Warning(what) => format!("warning: {what}"),
        }));
        short(&lines.join("\n"))
    }
}

fn short(text: &str) -> String {
    text.replace(A, "A").replace(B, "B").replace(" nud permanent", "")
}

fn told(e: &Endpoint) -> String {
    let mut line = format!("{} {:?}", e.device, e.stage).to_lowercase();
    for a in &e.ips {
        line += &format!(" {}", a.ip);
    }
    line += if e.enslaved { ", ours to release" } else { "" };
    line += &e.index.map(|index| format!(", guarded as {index}")).unwrap_or_default();
    line += &e.beside.iter().map(|dev| format!(", beside {dev}")).collect::<String>();
    for taken in &e.taken {
        let what = taken.ip.map_or("the MAC".to_owned(), |ip| ip.to_string());
        line += &format!(", took {what} from {} at {}", taken.mac, taken.since);
    }
    line
}

/// A test for each row: the case, and what comes of it.
macro_rules! table {
    ($($(#[$why:meta])* $name:ident: $case:expr => $expected:expr;)+) => {$(
        $(#[$why])*
        #[test]
        fn $name() {
            let expected: Vec<&str> = $expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            assert_eq!($case.comes_to(), expected.join("\n"));
        }
    )+};
}

mod changes;
mod learns;
mod parts;
mod wishes;
