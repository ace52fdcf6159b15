//! An address that was heard of.

use super::*;
use crate::config::{Network, Origin};
use crate::plan::fixture::red;
use crate::plan::whose::{Answer, Claim, Holder as Has};
use std::net::IpAddr;

/// What is heard on vnet0 of the network red, 10.1.0.1/24.
struct Said {
    record: GuestRecord,
    address: Address,
    claimed: Claimed,
    network: Network,
    is_gateways: bool,
    neigh: Option<Neigh>,
    there: bool,
}

fn says(ip: &str) -> Said {
    Said {
        record: record(&[here(nic("vnet0", A, &[super::ip("10.1.0.60")]))]),
        address: learned(ip),
        claimed: Claimed::new(Claim::Uses),
        network: red(Origin::Config),
        is_gateways: false,
        neigh: None,
        there: true,
    }
}

impl Said {
    /// Another guest of this host has it, who was told of it by this.
    fn by(mut self, source: Source) -> Said {
        let guest = Guest::new(GuestKind::Lxc, "c1", "c1").unwrap();
        self.claimed.here = Some((Has::Here(source), mac(B), guest));
        self
    }

    fn answers(mut self, answer: Answer) -> Said {
        self.claimed.asked = Some((mac(B), answer));
        self
    }

    fn entry(self, ext_learned: bool, ours: bool) -> Said {
        let ip = self.address.ip.to_string();
        Said { neigh: Some(Neigh { ours, ..neigh(&ip, B, ext_learned) }), ..self }
    }

    fn comes_to(&self) -> String {
        let (network, is_gateways, neigh) = (self.network.clone(), self.is_gateways, self.neigh.clone());
        let ground = Ground { network, is_gateways, neigh };
        let ground = |_: &IfName| Ok::<_, Infallible>(Some(ground).filter(|_| self.there));
        let Ok(heard) = learns(&self.record, &name("vnet0"), self.address, &self.claimed, ground);
        short(&match heard {
            Heard::Known => "known".to_owned(),
            Heard::Noted(record) => format!("noted {}", record.endpoints[0].ips.last().unwrap().source),
            Heard::Its { change, taken, whose } => {
                let ips: Vec<IpAddr> = change.nics().flat_map(Endpoint::addresses).collect();
                let from = taken.map_or(String::new(), |_| format!(", before {whose}"));
                format!("its {}{from}", ips.last().unwrap())
            }
            Heard::Ask { mac, .. } => format!("ask {mac}"),
            Heard::Refused(why) => format!("refused: {why}"),
            Heard::Unfit(why) => format!("unfit: {why}"),
        })
    }
}

table! {
    an_address_of_nobody: says("10.1.0.61") => "its 10.1.0.61";
    its_own: says("10.1.0.60") => "known";
    its_own_by_a_better_word: {
        let mut said = says("10.1.0.61");
        said.record.endpoints[0].ips.push(learned("10.1.0.61"));
        Said { address: Address::new(said.address.ip, Source::Lease), ..said }
    } => "noted lease";
    of_a_guest_that_is_on_its_way: {
        let mut said = says("10.1.0.61");
        said.record.endpoints[0].stage = Stage::Incoming;
        said
    } => "known";
    on_a_network_that_is_down: Said { there: false, ..says("10.1.0.61") } => "known";
    outside_of_its_subnets: says("192.0.2.1") => "unfit: 192.0.2.1 is in none of the network's subnets";
    the_networks_gateway: says("10.1.0.1") => "unfit: 10.1.0.1 is the gateway's";
    an_address_of_the_bridge: Said { is_gateways: true, ..says("10.1.0.61") } => "unfit: 10.1.0.61 is the gateway's";
    on_its_own_word_where_that_does_not_count: {
        let mut said = says("10.1.0.61");
        said.network.port_security = Some(PortSecurity::MacIp);
        said
    } => "
        unfit: 10.1.0.61 is not given to it, which port_security = \"mac-ip\" asks for: declare it, or let a DHCP server give it
    ";
    by_a_lease_where_that_counts: {
        let mut said = says("10.1.0.61");
        said.network.port_security = Some(PortSecurity::MacIp);
        Said { address: Address::new(said.address.ip, Source::Lease), ..said }
    } => "its 10.1.0.61";
    what_another_guest_here_has: says("10.1.0.61").by(Source::Neighbour) => "ask B";
    and_answers_for: says("10.1.0.61").by(Source::Neighbour).answers(Answer::Yes) => "refused: 10.1.0.61 is container c1's";
    and_does_not_answer_for: says("10.1.0.61").by(Source::Neighbour).answers(Answer::No) => "its 10.1.0.61, before container c1's";
    what_is_declared_as_anothers: says("10.1.0.61").by(Source::Metadata) => "refused: 10.1.0.61 is container c1's";
    what_is_behind_another_vtep: says("10.1.0.61").entry(true, false) => "ask B";
    and_is_not_answered_for_there: says("10.1.0.61").entry(true, false).answers(Answer::No) => "its 10.1.0.61, before B's behind another VTEP";
    but_a_third_one_was_asked: {
        let mut said = says("10.1.0.61").entry(true, false);
        said.claimed.asked = Some((mac(A), Answer::No));
        said
    } => "ask B";
    what_an_entry_of_ours_says: says("10.1.0.61").entry(false, true).answers(Answer::Yes) => "refused: 10.1.0.61 is B's on this host";
    what_the_operators_entry_says: says("10.1.0.61").entry(false, false) => "refused: 10.1.0.61 is B's by an entry that is not evpn-hook's";
    what_it_asks_for_and_another_has: {
        let said = says("10.1.0.61").entry(true, false).answers(Answer::No);
        Said { claimed: Claimed { claim: Claim::Asks, ..said.claimed }, ..said }
    } => "refused: 10.1.0.61 is B's behind another VTEP";
    what_was_its_own_before: {
        let said = says("10.1.0.61").by(Source::Neighbour).answers(Answer::Yes);
        Said { claimed: Claimed { had_it: true, ..said.claimed }, ..said }
    } => "its 10.1.0.61, before container c1's";
}
