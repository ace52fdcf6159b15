//! The guests go, then the networks, and what is left is compared with what was there before.

use super::fabric::{Fabric, Host};
use super::guests::{RunningContainer, RunningVm};
use super::story::row;
use super::timeline::{Mark, after};
use super::{GREEN, RED, Stage};

const LOOK: [(&str, &str); 4] = [
    ("network devices", "ls /sys/class/net"),
    // FRR 10 keeps an empty `vrf X` of a VRF that is gone.
    ("FRR's running configuration", r"vtysh -c 'show running-config' | sed '/^vrf /{N;/\nexit-vrf$/{N;d}}'"),
    // The kernel adds its l3mdev rule with the first VRF and keeps it for ever (drivers/net/vrf.c `vrf_add_fib_rules`).
    ("routing rules", "(ip rule; ip -6 rule) | grep -v l3mdev"),
    ("routes", "ip route show table all proto bgp; ip route show table all type unreachable"),
];

/// What each hypervisor looked like before the first tenant.
pub struct Before(Vec<[String; 4]>);

fn look(host: &Host) -> [String; 4] {
    LOOK.map(|(_, command)| host.ok(&["sh", "-c", command]))
}

impl Before {
    pub fn of(fabric: &Fabric) -> Before {
        Before(fabric.hypervisors().map(look).to_vec())
    }
}

pub fn all(stage: &mut Stage, vms: Vec<RunningVm>, containers: Vec<RunningContainer>, before: &Before) {
    let (comp1, comp2) = (stage.fabric.comp1(), stage.fabric.comp2());
    stage.story.chapter("They leave");
    destroy(stage, &vms[0]);
    stage.story.run(comp2, "ip neigh show vrf red; ip route show vrf red");
    stage.story.say("");
    stage.story.run(comp1, &format!("virsh destroy {}", vms[1].guest.name));
    for container in &containers {
        stage.story.run(comp2, &format!("lxc-stop --kill --name {}", container.guest.name));
    }
    for tenant in [&RED, &GREEN] {
        stage.story.run(comp1, &format!("virsh net-destroy {}", tenant.name));
        stage.story.run(comp1, &format!("virsh net-undefine {}", tenant.name));
    }
    stage.story.run(comp2, "evpn-hook network down --all");
    drop((vms, containers));

    stage.story.chapter("What is left");
    stage.story.run(comp1, "evpn-hook status");
    stage.story.say("Two routing rules stay until they are asked for: the one that asks VRFs first, and one against guests at FRR's port 179.");
    for host in [comp1, comp2] {
        stage.story.run(host, "evpn-hook uninstall");
    }
    stage.story.say("\nCompared with the moment before the first net-start:\n");
    let mut rows = vec![row(["", "comp1", "comp2"])];
    let now: Vec<_> = [comp1, comp2].map(look).to_vec();
    for (number, (what, command)) in LOOK.iter().enumerate() {
        let mut cells = row([&format!("{what}: {command}")]);
        for (was, is) in before.0.iter().zip(&now) {
            cells.push(if was[number] == is[number] { "as before" } else { "DIFFERS" }.into());
        }
        rows.push(cells);
    }
    let files = [comp1, comp2]
        .map(|host| host.ok(&["sh", "-c", "find /run/evpn-hook ! -path '*/hints/*' -name '*.json' -o -type l | sort"]));
    rows.push(row(["records in /run/evpn-hook", &count(&files[0]), &count(&files[1])]));
    stage.story.table(&rows);
    for (number, (what, _)) in LOOK.iter().enumerate() {
        for (host, name) in ["comp1", "comp2"].iter().enumerate() {
            let (was, is) = (&before.0[host][number], &now[host][number]);
            stage.story.check(was == is, || format!("{name}'s {what} were:\n{was}and are:\n{is}"));
        }
    }
    for (files, name) in files.iter().zip(["comp1", "comp2"]) {
        stage.story.check(files.is_empty(), || format!("{name} still has {files}"));
    }
}

fn count(files: &str) -> String {
    match files.lines().count() {
        0 => "none".to_owned(),
        many => format!("{many}"),
    }
}

fn destroy(stage: &mut Stage, vm: &RunningVm) {
    let guest = &vm.guest;
    let mark = Mark::now(stage);
    let running = stage.story.begin(stage.fabric.comp1(), &format!("virsh destroy {}", guest.name));
    let end = mark.goes(stage, guest);
    stage.story.end(running);
    let mut rows = vec![row(["gone", "after the command was typed", "after comp1's first entry went"])];
    for moment in &end.moments {
        let at = moment.line.at;
        rows.push(row([moment.what, &after(end.typed, at), &after(end.first(), at)]));
    }
    stage.story.table(&rows);
}
