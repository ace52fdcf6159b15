//! Scenarios on the real thing: FRR, libvirtd, QEMU and LXC in the reference fabric. They run inside the lab machine
//! (`make test-lab`); a plain `cargo test` shows them as ignored.

mod fabric;

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
}

mod byhand;
mod faults;
mod frr_down;
mod guests;
mod isolation;
mod kinds;
mod neighbourhood;
mod networks;
mod tenant;
mod underlay;
