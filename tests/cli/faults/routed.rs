//! Networks with a VRF, and the host's own settings; these need a kernel that has VRFs.

use super::{OnFailure, Plan, all, call, leave, leave_operators, ok, operators_bridge, strangers, without_theirs};
use crate::common::{has_vrf, sh, skip};
use crate::host::{CONFIG, Host};
use crate::on_a_host;

/// Takes down, and puts the host's settings back. Forwarding, which a stranger's bridge may count on, `uninstall` leaves on with what goes with it,
/// and says so.
fn leave_host(host: &Host) {
    leave(host);
    let run = host.run(&["uninstall"]);
    assert!(run.status == 0 && run.stderr.lines().all(|line| line.contains("forward")), "{run:?}");
    sh("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 net.ipv6.conf.theirs1.accept_ra=1");
}

/// The MAC of `routed`'s gateway.
const GATEWAY: &str = "00:00:00:11:11:30";

fn leave_there_before(host: &Host) {
    without_theirs();
    leave_host(host);
    leave_operators("red-l2", GATEWAY);
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
    let there_before = |_: &Host| operators_bridge("red-l2", GATEWAY);
    let is_up_on_it = |host: &Host| {
        there_before(host);
        first(host);
        without_theirs();
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
                name: "network up, on a bridge that was there",
                before: &there_before,
                leave: &leave_there_before,
                ..plan
            },
            Plan {
                name: "network down, on a bridge that was there",
                before: &is_up_on_it,
                command: &down,
                on_failure: OnFailure::GoesOn,
                leave: &leave_there_before,
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
