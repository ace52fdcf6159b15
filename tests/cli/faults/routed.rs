//! Networks with a VRF, and the host's own settings; these need a kernel that has VRFs.

use super::{OnFailure, Plan, all, call, leave, ok, strangers};
use crate::common::{has_vrf, sh, skip};
use crate::host::{CONFIG, Host};
use crate::on_a_host;

/// Takes down, and puts the host's settings back.
fn leave_host(host: &Host) {
    leave(host);
    host.run(&["uninstall"]).ok();
}

on_a_host!(routed_plans, {
    if !has_vrf() {
        return skip("routed_plans", "this kernel has no VRF");
    }
    let second = "[[network]]\nname = \"second\"\nbridge = \"red2-l2\"\nvni = 31\nvrf = \"red\"\n";
    let host = &Host::new(&format!("{CONFIG}{second}"));
    strangers();
    // `uninstall` is for the real root, of which this test has none.
    sh("mount -t tmpfs none /etc && mount -t tmpfs none /usr/share");
    let first = |host: &Host| ok(host, "network up routed");
    let both = |host: &Host| {
        first(host);
        ok(host, "network up second");
    };
    let out_of_vrf = |host: &Host| {
        first(host);
        sh(
            "ip link set red-l2 nomaster && ip link del red-l3 && ip route del unreachable default table 10 metric 4278198272",
        );
    };
    let without_vrf = |host: &Host| {
        first(host);
        sh("ip link del red");
    };
    let plan = Plan {
        name: "network up in a VRF",
        before: &|_| {},
        command: &|| call("network up routed"),
        on_failure: OnFailure::Undoes(1),
        world: &|| {},
        leave: &leave_host,
    };
    let (down, mend) = (|| call("network down routed"), || call("sync"));
    all(
        "routed",
        host,
        &[
            Plan {
                name: "network up, second in its VRF",
                before: &first,
                command: &|| call("network up second"),
                ..plan
            },
            Plan {
                name: "network down, VRF and all",
                before: &first,
                command: &down,
                on_failure: OnFailure::GoesOn,
                ..plan
            },
            Plan {
                name: "network down, not the last in its VRF",
                before: &both,
                command: &down,
                on_failure: OnFailure::GoesOn,
                ..plan
            },
            Plan {
                name: "sync: bridges out of their VRF",
                before: &out_of_vrf,
                command: &mend,
                on_failure: OnFailure::GoesOn,
                ..plan
            },
            Plan {
                name: "sync: VRF deleted",
                before: &without_vrf,
                command: &mend,
                on_failure: OnFailure::GoesOn,
                ..plan
            },
            plan,
        ],
    );
});
