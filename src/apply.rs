//! Walks a plan: one step after the other, each timed; on failure what was done is undone, last first.

use crate::config::Vrf;
use crate::fault;
use crate::guard::{self, GuardError};
use crate::kernel::{Kernel, KernelError};
use crate::plan::{Plan, Step};
use crate::speaker::{Added, Frr, SpeakerError};
use crate::tape;
use std::time::{Duration, Instant};

/// The two rooms that steps reach, and what the speaker took.
pub struct Hands<'a> {
    /// The kernel of this host.
    pub kernel: &'a mut Kernel,
    /// FRR, where it is managed.
    pub frr: Option<&'a mut Frr>,
    /// What the speaker was given, now or earlier: what `SpeakerDelVrf` takes back.
    pub added: Option<Added>,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The kernel's no.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// FRR's no, or its silence.
    #[error(transparent)]
    Speaker(#[from] SpeakerError),
    /// nft's no.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// What happens again elsewhere is planned and not done.
    #[error("{0}: not while a tape plays")]
    Played(String),
    /// A test's no.
    #[error("{0}: injected fault")]
    Injected(String),
}

/// A plan that was not walked to its end; everything that it had done was undone, but for `left`.
#[derive(Debug, thiserror::Error)]
#[error("{source}{}", left_words(left))]
pub struct ApplyError {
    /// Why.
    pub source: StepError,
    /// What could not be undone.
    pub left: Vec<String>,
}

fn left_words(left: &[String]) -> String {
    if left.is_empty() { String::new() } else { format!("; could not undo: {}", left.join("; ")) }
}

/// What was done, for the log.
#[derive(Debug)]
pub struct Done<'a> {
    /// The step.
    pub step: &'a Step,
    /// How long it took.
    pub took: Duration,
    /// Set where it failed and the plan went on.
    pub failed: Option<StepError>,
}

impl Hands<'_> {
    fn take(&mut self, step: &Step) -> Result<(), StepError> {
        if tape::plays() {
            return Err(StepError::Played(step.to_string()));
        }
        fault::point(format_args!("before {step}"));
        if fault::fails() {
            return Err(StepError::Injected(step.to_string()));
        }
        let done = self.carry_out(step);
        fault::point(format_args!("after {step}"));
        done
    }

    fn carry_out(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::AwaitVrf { name } => self.wait_for_frr(|frr| frr.await_vrf(name)),
            Step::AwaitPort { dev, bridge } => self.wait_for_frr(|frr| frr.await_port(dev, bridge)),
            Step::AwaitGone { dev } => self.wait_for_frr(|frr| frr.await_gone(dev)),
            Step::SpeakerAddVrf { vrf } => self.speak(vrf),
            Step::SpeakerDelVrf { vrf } => {
                if let (Some(frr), Some(added)) = (self.frr.as_deref_mut(), self.added.clone()) {
                    frr.unconfigure(vrf, &added)?;
                    self.added = None;
                }
                Ok(())
            }
            Step::LayGuards => Ok(guard::lay()?),
            Step::LiftGuards => Ok(guard::lift()?),
            Step::GuardBridge { bridge, on } => Ok(guard::secure(bridge, *on)?),
            Step::Guard { index, more, less, .. } => Ok(guard::change(*index, more, less)?),
            kernel => Ok(self.kernel.apply(kernel)?),
        }
    }

    fn wait_for_frr(&mut self, wait: impl FnOnce(&mut Frr) -> Result<(), SpeakerError>) -> Result<(), StepError> {
        match self.frr.as_deref_mut() {
            Some(frr) => Ok(wait(frr)?),
            None => Ok(()),
        }
    }

    fn speak(&mut self, vrf: &Vrf) -> Result<(), StepError> {
        if let Some(frr) = self.frr.as_deref_mut() {
            // What an earlier run put there is still ours, though this one found it in place.
            let earlier = self.added.take().unwrap_or_default();
            let taken = match frr.configure(vrf) {
                Err(SpeakerError::Conflict { found, wanted }) => match leftover(self.kernel, frr, vrf) {
                    Some(left) => frr
                        .unconfigure(&left, &Added { vni: true, bgp: true, ..Added::default() })
                        .and_then(|()| frr.configure(vrf)),
                    None => Err(SpeakerError::Conflict { found, wanted }),
                },
                result => result,
            };
            match taken {
                Ok(added) => self.added = Some(added.with(&earlier)),
                Err(error) => {
                    self.added = Some(earlier);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }
}

/// What stands in a VRF's way in FRR and serves nobody: a stanza of ours for a VRF that has no device, or another VNI for one whose device is ours.
fn leftover(kernel: &mut Kernel, frr: &mut Frr, vrf: &Vrf) -> Option<Vrf> {
    let left = frr.whole().ok()?.in_the_way(vrf)?;
    let device = kernel.link(&left.name).ok()?;
    device.is_none_or(|link| link.ours && left.name == vrf.name).then_some(left)
}

/// All or nothing: the first failure undoes what was done. Only a speaker that is silent or will not is passed over, because
/// neither a network nor a guest may wait for it, and the caller hears of it through `note`; a VNI that it has given to
/// another VRF is a contradiction like any other.
pub fn all(plan: &Plan, hands: &mut Hands, note: &mut dyn FnMut(Done)) -> Result<(), ApplyError> {
    let earlier = hands.added.clone();
    for (index, planned) in plan.iter().enumerate() {
        let start = Instant::now();
        let result = hands.take(&planned.step);
        let took = start.elapsed();
        match result {
            Ok(()) => note(Done { step: &planned.step, took, failed: None }),
            Err(error @ StepError::Speaker(_))
                if !matches!(error, StepError::Speaker(SpeakerError::Conflict { .. })) =>
            {
                note(Done { step: &planned.step, took, failed: Some(error) })
            }
            Err(source) => {
                let mut left = Vec::new();
                // What an earlier run put into the speaker another network needs, also where this run found it gone and put it back.
                if let (Some(added), Some(earlier)) = (&mut hands.added, &earlier) {
                    *added = added.without(earlier);
                }
                // The failed step first: it may have done a part of its work. But what it would have made and found there
                // is somebody else's.
                let found = matches!(&source, StepError::Kernel(error) if error.exists());
                let done = if found { &plan[..index] } else { &plan[..=index] };
                for step in done.iter().rev().flat_map(|p| &p.undo) {
                    if let Err(error) = hands.take(step) {
                        left.push(error.to_string());
                    }
                }
                return Err(ApplyError { source, left });
            }
        }
    }
    Ok(())
}

/// As much as possible: for taking down, where what cannot be done must not keep the rest from being done. Was it all?
pub fn most(plan: &Plan, hands: &mut Hands, note: &mut dyn FnMut(Done)) -> bool {
    let mut whole = true;
    let mut held: Option<&Vrf> = None;
    for planned in plan {
        // bgpd would hold the L3VNI for ever (docs/architecture.md, laws of order): the device waits for the next who tries.
        if held.is_some_and(|vrf| ends(&planned.step, vrf)) {
            continue;
        }
        let start = Instant::now();
        let failed = hands.take(&planned.step).err();
        if let (Step::SpeakerDelVrf { vrf }, Some(why)) = (&planned.step, &failed) {
            // A speaker that is gone holds nothing; one that nobody can configure does.
            held = Some(vrf).filter(|_| !matches!(why, StepError::Speaker(SpeakerError::NotRunning { .. })));
        }
        whole &= failed.is_none();
        note(Done { step: &planned.step, took: start.elapsed(), failed });
    }
    whole
}

/// Does this step take the VRF itself down?
fn ends(step: &Step, vrf: &Vrf) -> bool {
    match step {
        Step::DelLink { name } => *name == vrf.name,
        Step::DelUnreachable { table } => *table == vrf.table,
        _ => false,
    }
}
