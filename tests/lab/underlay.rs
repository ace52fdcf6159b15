//! The fabric itself: what every other scenario takes for granted.

use crate::fabric::wait_until;
use std::time::Duration;

lab_test! {
    fn loopbacks_reach_each_other(fabric) {
        let (comp1, comp2) = (fabric.comp1(), fabric.comp2());
        wait_until("comp2's loopback", Duration::from_secs(30), || {
            comp1.run(&["ping", "-c1", "-W1", "-I", "10.0.0.1", "10.0.0.2"]).code == 0
        });
        comp2.ok(&["ping", "-c1", "-W1", "-I", "c0d1::2", "c0d1::1"]);
        comp1.ok(&["ping", "-c1", "-W1", "-M", "do", "-s", "8000", "10.255.255.201"]);
    }
}
