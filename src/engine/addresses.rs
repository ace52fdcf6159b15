//! The gateway's addresses, as FRR knows them.

use super::{Engine, EngineError};
use crate::config::Network;
use crate::journal::Message;
use crate::kernel::Kernel;
use crate::plan::Step;
use crate::speaker::Frr;
use std::time::{Duration, Instant};

/// zebra reads links on one thread and addresses on another, and forgets what it heard of an interface before it heard of its VRF.
/// A healthy one knows within some 20 ms; no guest waits for this, but `virsh net-start` does.
const LIMIT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);

impl Engine {
    /// Tells the kernel the addresses of a bridge that has just entered its VRF again, until FRR has them there. FRR 8.4 misses them on most
    /// starts of a bridge that is some milliseconds old (14 of 20, though told twice within the plan): the subnet is then not advertised
    /// from here, and the peer's route to it is installed beside our own. An FRR that does not answer reads them when it starts.
    pub(super) fn make_addresses_known(&mut self, frr: &mut Frr, network: &Network) -> Result<(), EngineError> {
        let Some(vrf) = &network.vrf else { return Ok(()) };
        let kernel = self.kernel()?;
        let Some(bridge) = kernel.link(&network.bridge)? else { return Ok(()) };
        let until = Instant::now() + LIMIT;
        loop {
            let Ok(known) = frr.addresses(&network.bridge, &vrf.name) else { return Ok(()) };
            let unknown: Vec<_> = global_addresses(kernel, bridge.index)?.filter(|net| !known.contains(net)).collect();
            if unknown.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                let what = format!(
                    "FRR does not take the address of {0} in VRF {1}: see 'show interface {0}' in vtysh; 'ip address replace' tells it again",
                    network.bridge, vrf.name
                );
                self.journal.say(&Message::Warning(&what));
                return Ok(());
            }
            for address in unknown {
                kernel.apply(&Step::AddAddress { dev: network.bridge.clone(), address })?;
            }
            std::thread::sleep(POLL);
        }
    }
}

fn global_addresses(kernel: &mut Kernel, index: u32) -> Result<impl Iterator<Item = ipnet::IpNet>, EngineError> {
    Ok(kernel.addresses(Some(index))?.into_iter().filter(|address| address.global).map(|address| address.net))
}
