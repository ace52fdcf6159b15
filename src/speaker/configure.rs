//! Puts a VRF into the running FRR and takes it out again: only what is missing, only what was ours.

use super::render::{self, Added};
use super::running::Running;
use super::whose::{contains, identified, is_ours};
use super::{Frr, SpeakerError, VrfLists, show, vtysh};
use crate::config::Vrf;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How often a state that another daemon is about to reach is asked for.
const POLL: Duration = Duration::from_millis(20);

/// How long zebra's message to bgpd may take before we take it for lost, and a committed line before it must show.
const SETTLE: Duration = Duration::from_secs(1);

impl Frr {
    /// What the running FRR lacks of this VRF: what [`Frr::configure`] would add. Empty for a VRF without L3VNI, without asking.
    pub fn missing(&mut self, vrf: &Vrf) -> Result<Added, SpeakerError> {
        Ok(self.lacks(vrf)?.0)
    }

    /// Puts this VRF into the running FRR; returns what it added, to be kept for [`Frr::unconfigure`] together with what an earlier call
    /// added ([`Added::with`]). Asks first: where nothing is missing no vtysh runs. Not written to frr.conf.
    pub fn configure(&mut self, vrf: &Vrf) -> Result<Added, SpeakerError> {
        let (missing, asn) = self.lacks(vrf)?;
        if missing.is_empty() {
            return Ok(missing);
        }
        let lines = render::add(vrf, asn, &missing);
        let result = self
            .vtysh(&lines)
            .and_then(|words| self.until_settled(&lines, words, |frr| Ok(frr.lacks(vrf)?.0.is_empty())));
        match result {
            Ok(()) => Ok(missing),
            Err(error) => {
                // vtysh stops at the first line that fails: what went in before it would be nobody's. A frozen FRR cannot be asked.
                if !error.is_absence()
                    && let Ok((still, _)) = self.lacks(vrf)
                {
                    let _ = self.unconfigure(vrf, &missing.without(&still));
                }
                Err(error)
            }
        }
    }

    /// Takes out what `added` says that we put in, and is still there as we put it. An instance that has got other lines since is the
    /// operator's: it stays, without ours. Must come before the VRF's devices are deleted; the reason is in the room's laws (`speaker`).
    pub fn unconfigure(&mut self, vrf: &Vrf, added: &Added) -> Result<(), SpeakerError> {
        let until = Instant::now() + self.config_deadline;
        let mut toggled = false;
        loop {
            let (todo, asn) = self.ours(vrf, added)?;
            if todo.is_empty() {
                return Ok(());
            }
            let lines = render::remove(vrf, asn, &todo);
            match self.vtysh(&lines) {
                Ok(words) => self.until_settled(&lines, words, |frr| Ok(frr.ours(vrf, added)?.0 != todo))?,
                Err(SpeakerError::Refused { words, .. }) if holds_l3vni(&words) && Instant::now() < until => {
                    self.release(vrf, &mut toggled)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// vtysh said yes to these lines: waits until `done` sees it, or says that FRR did not do it. In 8.4.4 the first look sees it; from FRR 10
    /// mgmtd stands between vtysh and zebra.
    fn until_settled(
        &mut self,
        lines: &[String],
        words: String,
        done: impl Fn(&mut Frr) -> Result<bool, SpeakerError>,
    ) -> Result<(), SpeakerError> {
        let until = Instant::now() + SETTLE;
        while !done(self)? {
            if Instant::now() >= until {
                let command = lines.join(" / ");
                return Err(match words.is_empty() {
                    true => SpeakerError::NoEffect { command },
                    false => SpeakerError::Refused { command, words },
                });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until bgpd has let go of the VRF's L3VNI. vtysh had zebra's answer to `no vni` before it asked bgpd, but zebra's message to
    /// bgpd takes its own way: seen late in 1 of 12. Where it does not come at all, bgpd missed it once (the VRF's device went first) and
    /// holds it for ever; with the device there again, setting and unsetting the VNI sends it anew.
    fn release(&mut self, vrf: &Vrf, toggled: &mut bool) -> Result<(), SpeakerError> {
        let until = Instant::now() + SETTLE;
        let held = loop {
            let info = self.vrf(&vrf.name)?;
            if info.bgp_vni == 0 {
                return Ok(());
            }
            if Instant::now() >= until {
                break info;
            }
            std::thread::sleep(POLL);
        };
        if held.vni != 0 || *toggled {
            return Err(SpeakerError::Stale { vrf: vrf.name.clone(), vni: held.bgp_vni });
        }
        *toggled = true;
        let vni = held.bgp_vni;
        self.vtysh(&[format!("vrf {}", vrf.name), format!("vni {vni}"), format!("no vni {vni}"), "exit-vrf".into()])?;
        Ok(())
    }

    /// What is missing, and the AS to put it under.
    fn lacks(&mut self, vrf: &Vrf) -> Result<(Added, u32), SpeakerError> {
        match vrf.vni {
            Some(_) => self.whole()?.lacks(vrf),
            None => Ok((Added::default(), 0)),
        }
    }

    /// What of `added` is still there, and the AS that it is under. The instance is whole ours where it has nothing but our lines by now, whoever
    /// put them there.
    fn ours(&mut self, vrf: &Vrf, added: &Added) -> Result<(Added, u32), SpeakerError> {
        let Some(vni) = vrf.vni.filter(|_| !added.is_empty()) else {
            return Ok((Added::default(), 0));
        };
        let running = match self.running() {
            // With bgpd its instances went, too; zebra's line may still be there.
            Err(SpeakerError::NotRunning { .. }) => Running::default(),
            running => running?,
        };
        let VrfLists { zebra, bgpd } = self.vrf_lists()?;
        let has = show::vrf(&zebra, &bgpd, vrf.name.as_str()).vni;
        let mut todo = Added { vni: added.vni && has == vni.get(), ..Added::default() };
        let instance = running.vrf(vrf.name.as_str());
        if let Some(instance) = instance {
            let own = running.evpn().and_then(|evpn| show::router_id(&bgpd, evpn.vrf.as_deref()));
            let ids: Vec<Ipv4Addr> = own.into_iter().chain(added.router_id).collect();
            todo.bgp = added.bgp && is_ours(instance, &running, &ids);
            if !todo.bgp {
                todo.router_id = added.router_id.filter(|id| identified(instance, *id));
                todo.lines = added.lines.iter().copied().filter(|line| contains(instance, *line)).collect();
            }
        }
        Ok((todo, instance.map_or(0, |instance| instance.asn)))
    }

    /// Runs vtysh; again where another vtysh holds FRR's configuration lock at the moment (two networks that start together).
    fn vtysh(&self, lines: &[String]) -> Result<String, SpeakerError> {
        let until = Instant::now() + self.config_deadline;
        loop {
            match vtysh::configure(&self.vtysh, &self.dir, lines, until, self.config_deadline) {
                Err(SpeakerError::Refused { words, .. })
                    if words.to_ascii_lowercase().contains("lock") && Instant::now() + 5 * POLL < until =>
                {
                    std::thread::sleep(5 * POLL);
                }
                result => return result,
            }
        }
    }
}

/// bgpd will not let an instance go that holds an L3VNI: "Please unconfigure l3vni 10"; 10.3 and 10.4 also, for 20 ms, "L3VNI 10 is scheduled to
/// be deleted. Please give it few secs and retry the command" (bgp_vty.c `no_router_bgp`).
fn holds_l3vni(words: &str) -> bool {
    words.to_ascii_lowercase().contains("l3vni")
}

#[cfg(test)]
mod tests {
    use super::holds_l3vni;

    #[test]
    fn an_l3vni_that_is_about_to_go_is_waited_for() {
        assert!(holds_l3vni("% Please unconfigure l3vni 10"));
        assert!(holds_l3vni("% L3VNI 10 is scheduled to be deleted. Please give it few secs and retry the command"));
        assert!(!holds_l3vni("% Can't find BGP instance"));
    }
}
