//! Scenarios on the real thing: FRR, libvirtd, QEMU and LXC in the reference fabric. They run inside the lab machine
//! (`make test-lab`); a plain `cargo test` shows them as ignored.

mod fabric;
#[path = "../common/forge.rs"]
mod forge;

/// A test that gets the running fabric, and whose failure leaves a dump of every node.
macro_rules! lab_test {
    ($(#[$about:meta])* fn $name:ident($fabric:ident) $body:block) => {
        $(#[$about])*
        #[test]
        #[ignore = "runs inside the lab machine: make test-lab"]
        fn $name() {
            crate::fabric::scenario(stringify!($name), |$fabric| $body);
        }
    };
    // The same with a third hypervisor, which is there before the scenario begins.
    ($(#[$about:meta])* fn $name:ident($fabric:ident, $comp3:ident) $body:block) => {
        $(#[$about])*
        #[test]
        #[ignore = "runs inside the lab machine: make test-lab"]
        fn $name() {
            let $comp3 = crate::fabric::Fabric::get().comp3();
            crate::fabric::scenario(stringify!($name), |$fabric| $body);
        }
    };
}

mod apparmor;
mod bare;
mod boot;
mod byhand;
mod containers;
mod doctor;
mod duplicates;
mod explain;
mod faults;
mod figures;
mod frr_down;
mod frr_lives;
mod guests;
mod hostile;
mod hotplug;
mod incus;
mod ipv6;
mod isolation;
mod kinds;
mod late;
mod managers;
mod migration;
mod moves;
mod neighbourhood;
mod networks;
mod package;
mod plot;
mod restarts;
mod scan;
mod security;
mod silent;
mod suppression;
#[path = "../common/table.rs"]
mod table;
mod tenant;
mod told;
mod trouble;
mod underlay;
mod vip;
mod vtep6;
