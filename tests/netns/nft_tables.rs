//! The tables of nftables, as nft(8) makes them.

use crate::*;
use evpn_hook::kernel::nft_tables;

netns!(those_that_look_at_ip_packets_are_told, _kernel, {
    assert_eq!(nft_tables().unwrap(), []);
    if !try_sh("nft 'add table ip6 own; add table bridge own; add table netdev a'").0 {
        return skip("nft_tables::those_that_look_at_ip_packets_are_told", "no nft, or no tables of these families");
    }
    let tables = nft_tables().unwrap();
    let told: Vec<_> = tables.iter().map(|table| (table.family.as_str(), table.name.as_str())).collect();
    assert_eq!(told, [("ip6", "own"), ("netdev", "a")]);
});
