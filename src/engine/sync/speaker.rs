//! The speaker: does it advertise what the kernel holds? FRR versions that drop events are told again.

use super::{Look, Synced};
use crate::config::Vrf;
use crate::engine::guest::{observe, wanted};
use crate::engine::{Engine, EngineError};
use crate::model::{Guest, IfName, Mac, NetName};
use crate::plan::guest::tell;
use crate::register::{Endpoint, GuestRecord, NetworkRecord, Stage};
use crate::speaker::{Frr, SpeakerError};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a healthy FRR needs at most to advertise what the kernel got just now; its own floor is 60 ms.
const ADVERTISED: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

type Missed = (Guest, Endpoint, String);

impl Engine {
    /// Asks the speaker whether it advertises these guests, and tells the kernel's entries again where it does not though they are right
    /// (FRR versions that drop events). Returns those that were not advertised, with why; `None` where the speaker is silent or missing.
    pub fn verify(&mut self, guests: &[Guest]) -> Result<Option<Vec<(Guest, String)>>, EngineError> {
        let mut records = Vec::new();
        for guest in guests {
            records.extend(self.register.guest(guest)?);
        }
        let Some(mut frr) = self.frr()? else { return Ok(None) };
        let Ok(missed) = self.missed(&mut frr, &records) else { return Ok(None) };
        for (guest, endpoint, _) in &missed {
            self.tell_again(guest, endpoint)?;
        }
        Ok(Some(missed.into_iter().map(|(guest, _, why)| (guest, why)).collect()))
    }

    /// Does the speaker advertise all of this guest by now? Single questions, and nothing is told again; `None` where it does not say.
    pub fn is_advertised(&mut self, guest: &Guest) -> Result<Option<bool>, EngineError> {
        let (Some(mut frr), Some(record)) = (self.frr()?, self.register.guest(guest)?) else { return Ok(None) };
        for endpoint in record.endpoints.iter().filter(|e| e.stage == Stage::Registered) {
            let (Some(mac), Some(network)) = (endpoint.mac, self.register.network_of_bridge(&endpoint.bridge)?) else {
                continue;
            };
            match frr.advertised(network.network.vni, mac, &endpoint.addresses()) {
                Ok(look) if look.complete() => {}
                Ok(_) => return Ok(Some(false)),
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(true))
    }

    /// The networks whose VRF's part FRR lacks, one for each VRF; `None` where no network has one that is ours to put there.
    pub fn lacks_stanzas(&mut self) -> Option<Vec<NetName>> {
        let managed = self.config().is_ok_and(|config| config.speaker.manage_vrfs);
        let mut frr = self.frr().ok().flatten().filter(|_| managed)?;
        let mut vrfs = BTreeMap::new();
        for NetworkRecord { network, .. } in self.register.networks().into_iter().flatten() {
            if let Some(vrf) = network.vrf.filter(|vrf| vrf.vni.is_some()) {
                vrfs.entry(vrf.name.clone()).or_insert((vrf, network.name));
            }
        }
        if vrfs.is_empty() {
            return None;
        }
        // One that does not answer is told all when it comes back.
        let Ok(whole) = frr.whole() else { return Some(Vec::new()) };
        let lacks = |vrf: &Vrf| whole.missing(vrf).is_ok_and(|missing| !missing.is_empty());
        Some(vrfs.into_values().filter(|(vrf, _)| lacks(vrf)).map(|(_, name)| name).collect())
    }

    /// All guests: as `look` has them, or where something was changed since, as they are now, and then they get their time.
    pub(super) fn sync_speaker(&mut self, look: Option<Look>, out: &mut Synced) -> Result<(), EngineError> {
        let Some(mut frr) = self.frr()? else { return Ok(()) };
        let changed = look.is_none();
        let records = match look {
            Some(look) => look.guests,
            None => self.register.guests().into_iter().flatten().collect(),
        };
        if records.is_empty() || self.register.networks().is_empty() {
            return Ok(());
        }
        let mut missed = self.missed_after(&mut frr, &records, changed);
        if let Ok(missed) = &mut missed
            && !missed.is_empty()
        {
            for (guest, endpoint, _) in missed.iter() {
                self.tell_again(guest, endpoint)?;
            }
            if !self.dry_run {
                *missed = self.missed_after(&mut frr, &records, true).unwrap_or_default();
            }
        }
        match missed {
            Ok(missed) => {
                out.problems.extend(missed.iter().map(|(guest, e, why)| format!("{guest}: {}: {why}", e.device)))
            }
            Err(error) => out.problems.push(error.to_string()),
        }
        Ok(())
    }

    fn missed_after(
        &mut self,
        frr: &mut Frr,
        records: &[GuestRecord],
        wait: bool,
    ) -> Result<Vec<Missed>, SpeakerError> {
        let until = Instant::now() + if wait { ADVERTISED } else { Duration::ZERO };
        loop {
            let missed = self.missed(frr, records)?;
            if missed.is_empty() || Instant::now() >= until || self.dry_run {
                return Ok(missed);
            }
            std::thread::sleep(POLL);
        }
    }

    /// The registered endpoints that the speaker does not advertise, network by network.
    fn missed(&mut self, frr: &mut Frr, records: &[GuestRecord]) -> Result<Vec<Missed>, SpeakerError> {
        let mut by_bridge: BTreeMap<&IfName, Vec<(&Guest, &Endpoint, Mac)>> = BTreeMap::new();
        for (record, endpoint) in records.iter().flat_map(|r| r.endpoints.iter().map(move |e| (r, e))) {
            if let (Stage::Registered, Some(mac)) = (endpoint.stage, endpoint.mac) {
                by_bridge.entry(&endpoint.bridge).or_default().push((&record.guest, endpoint, mac));
            }
        }
        let mut missed = Vec::new();
        for (bridge, endpoints) in by_bridge {
            let Ok(Some(network)) = self.register.network_of_bridge(bridge) else { continue };
            let wanted: Vec<_> = endpoints.iter().map(|(_, endpoint, mac)| (*mac, endpoint.addresses())).collect();
            let said = frr.advertised_all(network.network.vni, &wanted)?;
            for ((guest, endpoint, _), said) in endpoints.into_iter().zip(said) {
                missed.extend(said.problem().map(|why| (guest.clone(), endpoint.clone(), why)));
            }
        }
        Ok(missed)
    }

    /// Under its lock, and as it is now: the guest may be ending, and what is told again would be left behind.
    fn tell_again(&mut self, guest: &Guest, missed: &Endpoint) -> Result<(), EngineError> {
        let _lock = if self.dry_run { None } else { Some(self.register.lock_guest(guest)?) };
        let Some(record) = self.register.guest(guest)? else {
            // The lock was made for a record that is not there.
            return if self.dry_run { Ok(()) } else { Ok(self.register.remove_guest(guest)?) };
        };
        let is_it = |e: &&Endpoint| (&e.device, e.mac, e.stage) == (&missed.device, missed.mac, Stage::Registered);
        let Some(endpoint) = record.endpoints.iter().find(is_it) else { return Ok(()) };
        let who = guest.to_string();
        let want = wanted(&who, endpoint);
        let seen = observe(self.kernel()?, &want)?;
        self.journal.object.clone_from(&guest.name);
        self.do_most(tell(&want, &seen));
        Ok(())
    }
}
