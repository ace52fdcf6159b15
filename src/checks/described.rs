//! What the networks' descriptions say that works badly: the same table as at their start and in `status`.

use super::{Facts, Finding, Severity};
use crate::advice;

pub fn check(facts: &Facts) -> Vec<Finding> {
    let of = |record: &crate::register::NetworkRecord| {
        let network = &record.network;
        let advice = advice::of(network, facts.host.world.link(&network.bridge), &record.made);
        let finding = |said: advice::Advice| {
            let severity = if said.costs { Severity::Warning } else { Severity::Hint };
            Finding::new(severity, said.check, &network.name, said.evidence).by(said.mend)
        };
        advice.into_iter().map(finding).collect::<Vec<_>>()
    };
    facts.host.networks.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::facts;
    use super::*;
    use crate::config::{Described, Forward, Origin};

    #[test]
    fn advice_is_a_warning_where_it_costs_traffic_and_else_a_hint() {
        let mut facts = facts();
        assert_eq!(check(&facts), []);
        facts.host.networks[0].network.origin = Origin::Libvirt;
        facts.host.networks[0].network.described =
            Some(Described { forward: Forward::Nat, stp: true, mtu_told: true, ..Described::default() });
        let found = check(&facts);
        let told: Vec<_> = found.iter().map(|f| (f.check, f.severity, f.object.as_str())).collect();
        let object = "red";
        assert_eq!(told, [("forward-mode", Severity::Warning, object), ("stp", Severity::Hint, object)]);
        assert!(found.iter().all(|f| !f.mend.is_empty() && !f.runnable && f.fix.is_none()), "{found:?}");
    }
}
