//! What was read amiss of a guest counts where the guest is on a network of ours: there it is refused before it runs, elsewhere it is nobody's business.

use super::{Engine, EngineError};
use crate::event::{Flaw, GuestPhase, Nic};
use crate::journal::Message;
use crate::model::Guest;
use crate::register::NetworkRecord;

impl Engine {
    /// Refuses what must not start as it is, and tells the rest. A guest that runs is never refused for what it is called or for a NIC's device; for
    /// what stands in our metadata it is left as it is.
    pub(super) fn weigh(
        &mut self,
        phase: &GuestPhase,
        guest: &Guest,
        nics: &[Nic],
        flaw: Option<&Flaw>,
        notes: &[String],
    ) -> Result<(), EngineError> {
        if matches!(phase, GuestPhase::Start | GuestPhase::Reconnect) {
            for note in notes {
                self.journal.say(&Message::Warning(&format!("{guest}: {note}")));
            }
        }
        let of_nics = nics.iter().filter_map(|nic| Some((nic.flaw.as_ref()?, std::slice::from_ref(nic))));
        for (flaw, nics) in flaw.map(|flaw| (flaw, nics)).into_iter().chain(of_nics) {
            let mut is_ours = false;
            for nic in nics {
                // Which network a tap of nobody's is for only our metadata could have said.
                is_ours |= flaw.in_metadata && nic.enslave || self.network_of(nic)?.is_some();
            }
            let why = format!("{guest}: {}", flaw.why);
            match phase {
                GuestPhase::Prepare | GuestPhase::Start if is_ours => return EngineError::refused(why),
                GuestPhase::Reconnect if is_ours && flaw.in_metadata => return EngineError::refused(why),
                GuestPhase::Reconnect if is_ours => self.journal.say(&Message::Warning(&why)),
                GuestPhase::Start if flaw.in_metadata => self.journal.say(&Message::Warning(&why)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The network of ours that this NIC is on, or is to be.
    pub(super) fn network_of(&self, nic: &Nic) -> Result<Option<NetworkRecord>, EngineError> {
        Ok(match (&nic.bridge, &nic.network) {
            (Some(bridge), _) => self.register.network_of_bridge(bridge)?,
            (None, Some(name)) => self.register.network(name)?,
            (None, None) => None,
        })
    }
}
