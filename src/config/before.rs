//! What a network changes on its bridge, and how that was before: what is put back when the network goes down.

use crate::model::Mac;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Of a bridge that is not ours: each setting as it was before it was changed for the first time; what was not changed is left out. Of any bridge:
/// what was put on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Before {
    /// It was put into its VRF; one that was there before stays there.
    #[serde(skip_serializing_if = "is_false")]
    pub entered: bool,
    /// The addresses that were put on it: those that it may lose again. What else it has is somebody's own.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub addresses: BTreeSet<IpNet>,
    /// Its MTU in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Its MAC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Its `vlan_default_pvid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_pvid: Option<u16>,
    /// It learned any number of MACs.
    #[serde(skip_serializing_if = "is_false")]
    pub unbounded: bool,
    /// It made link-local addresses by itself.
    #[serde(skip_serializing_if = "is_false")]
    pub addrgen: bool,
    /// It was down.
    #[serde(skip_serializing_if = "is_false")]
    pub down: bool,
    /// Its settings, by their path below /proc/sys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
}

fn is_false(value: &bool) -> bool {
    !value
}
