//! What may stand in config.toml only once, across all its sections.

use crate::model::{IfName, NetName, TableId, Vni};
use std::collections::{HashMap, HashSet};
use toml::Spanned;

/// What is wrong, and at which byte.
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) text: String,
}

impl Fault {
    pub(super) fn new<T>(at: &Spanned<T>, text: impl Into<String>) -> Fault {
        Fault { at: at.span().start, text: text.into() }
    }
}

/// Values that may stand once in the file, and what has them. Kernel device names are one space: bridges, VRFs, `<vrf>-l3`, `vxlan<VNI>`.
#[derive(Default)]
pub(super) struct Taken {
    names: HashSet<NetName>,
    devices: HashMap<IfName, String>,
    tables: HashMap<TableId, String>,
    vnis: HashMap<Vni, String>,
}

impl Taken {
    pub(super) fn device<T>(&mut self, at: &Spanned<T>, device: IfName, owner: String) -> Result<(), Fault> {
        match self.devices.insert(device.clone(), owner.clone()) {
            Some(other) if other == owner => {
                Err(Fault::new(at, format!("{owner} is there twice: rename or remove one")))
            }
            Some(other) => {
                Err(Fault::new(at, format!("{owner} and {other} would both be device {device}: rename one")))
            }
            None => Ok(()),
        }
    }

    pub(super) fn vni(&mut self, at: &Spanned<Vni>, owner: &str) -> Result<(), Fault> {
        let vni = *at.get_ref();
        if let Some(other) = self.vnis.insert(vni, owner.to_owned()) {
            return Err(Fault::new(at, format!("vni {vni} is both {owner}'s and {other}'s: give one of them another")));
        }
        self.device(at, vni.device(), format!("the VXLAN of {owner}"))
    }

    pub(super) fn table(&mut self, at: &Spanned<TableId>, owner: &str) -> Result<(), Fault> {
        let table = *at.get_ref();
        match self.tables.insert(table, owner.to_owned()) {
            Some(other) => {
                Err(Fault::new(at, format!("table {table} is both {owner}'s and {other}'s: give one of them another")))
            }
            None => Ok(()),
        }
    }

    pub(super) fn network(&mut self, at: &Spanned<NetName>, owner: &str) -> Result<(), Fault> {
        match self.names.insert(at.get_ref().clone()) {
            true => Ok(()),
            false => Err(Fault::new(at, format!("{owner} is there twice: rename or remove one"))),
        }
    }
}
