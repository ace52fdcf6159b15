//! What goes is withdrawn, as much of it as can be; what is refused is remembered for the next
//! `sync`.

use crate::plan::guest::{Seen, Wanted, withdraw};
use crate::plan::record::{Endpoint, GuestRecord};
use crate::plan::{Plan, Step};

/// Those endpoints of a guest that go, with what an earlier run could not withdraw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goes(GuestRecord);

/// What was seen of one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gone {
    /// The port, its bridge and their entries.
    pub port: Seen,
    /// Its network has port security: asked where the port is locked.
    pub secured: bool,
}

/// The way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parting {
    /// The steps.
    pub plan: Plan,
    /// What the record says once all is done; none where the guest is forgotten.
    pub after: Option<GuestRecord>,
    /// What it says where something was refused.
    pub left: GuestRecord,
}

impl Gone {
    /// Has its network to be known as well? Most often not: one file less to read.
    pub fn asks_network(&self) -> bool {
        self.port.device.as_ref().is_some_and(|d| d.port.locked == Some(true) || d.port.learning == Some(false))
    }
}

impl Goes {
    /// Those that `goes` names; all of a guest, and it is forgotten.
    pub fn of(mut record: GuestRecord, goes: impl Fn(&Endpoint) -> bool) -> Goes {
        let (go, stay) = record.endpoints.drain(..).partition::<Vec<_>, _>(goes);
        record.endpoints = stay;
        record.know_ports();
        record.leaving.extend(go);
        Goes(record)
    }

    /// The endpoints.
    pub fn leaving(&self) -> &[Endpoint] {
        &self.0.leaving
    }

    /// The steps of one of them.
    fn withdrawn(who: &str, endpoint: &Endpoint, gone: &Gone) -> Plan {
        let want = Wanted::of(who, endpoint);
        let mut plan = withdraw(&want, &gone.port);
        // Left on the bridge it is nobody's, and held as such.
        plan.retain(|p| !(gone.secured && matches!(p.step, Step::LockPort { locked: false, .. })));
        plan
    }

    /// `seen` is what was seen of each.
    pub fn plan(self, seen: &[Gone]) -> Parting {
        let Goes(left) = self;
        let who = left.guest.to_string();
        let plan = left.leaving.iter().zip(seen).flat_map(|(e, gone)| Goes::withdrawn(&who, e, gone)).collect();
        let after = GuestRecord { leaving: Vec::new(), ..left.clone() };
        let stays = !after.endpoints.is_empty() || after.incoming_since.is_some();
        Parting { plan, after: stays.then_some(after), left }
    }
}
