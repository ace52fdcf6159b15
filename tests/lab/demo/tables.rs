//! What the fabric knows once all guests run, and who reaches whom.

use serde_json::Value;

use super::fabric::Host;
use super::guests::{RunningContainer, RunningVm};
use super::story::row;
use super::timeline::{after, span};
use super::{GREEN, Guest, RED, Stage};

pub fn all(stage: &mut Stage, vms: &mut [RunningVm], containers: &[RunningContainer]) {
    pings(stage, vms, containers);
    let guests: Vec<&Guest> = vms.iter().zip(containers).flat_map(|(vm, c)| [&vm.guest, &c.guest]).collect();
    type_2(stage, &guests);
    kernels(stage, &guests);
    routes(stage, &guests);
    lead(stage, vms);
    status(stage);
}

/// Pings all these addresses at once.
fn ping_script(targets: &[&str]) -> String {
    format!("for a in {}; do ping -c 2 -W 1 $a 2>&1 | sed \"s/^/to $a: /\" & done; wait", targets.join(" "))
}

fn answered(output: &str, target: &str) -> bool {
    output.lines().any(|line| line.starts_with(&format!("to {target}: ")) && line.contains("min/avg/max"))
}

/// A guest, and how to run a shell command in it.
struct Player<'a> {
    guest: &'a Guest,
    ask: Box<dyn FnMut(&str) -> String + 'a>,
}

fn pings(stage: &mut Stage, vms: &mut [RunningVm], containers: &[RunningContainer]) {
    stage.story.chapter("Who reaches whom");
    stage.story.say("Each guest pings all the others and its gateway, twice ('-' where nothing comes back):\n");
    let mut players = Vec::new();
    for (vm, container) in vms.iter_mut().zip(containers) {
        let RunningVm { guest, vm, .. } = vm;
        players.push(Player { guest, ask: Box::new(move |script| vm.exec(script).1) });
        let ask = Box::new(|script: &str| container.container.run(&["sh", "-c", script]).stdout);
        players.push(Player { guest: &container.guest, ask });
    }
    let guests: Vec<&Guest> = players.iter().map(|player| player.guest).collect();
    let mut rows = vec![row(["from", "address"])];
    rows[0].extend(guests.iter().map(|guest| format!("to {}", guest.label)));
    rows[0].push("to its gateway".into());
    for Player { guest, ask } in &mut players {
        let mut targets: Vec<&str> = guests.iter().map(|g| g.ip.as_str()).filter(|ip| *ip != guest.ip).collect();
        targets.push(guest.tenant.gateway);
        let output = ask(&ping_script(&targets));
        let mut cells = row([guest.label, &guest.ip]);
        for target in
            guests.iter().map(|g| (g.tenant.name, g.ip.as_str())).chain([(guest.tenant.name, guest.tenant.gateway)])
        {
            let (tenant, ip) = target;
            let (yes, wanted) = (answered(&output, ip), tenant == guest.tenant.name);
            cells.push(
                if ip == guest.ip {
                    ""
                } else if yes {
                    "yes"
                } else {
                    "-"
                }
                .to_owned(),
            );
            stage.story.check(ip == guest.ip || yes == wanted, || {
                format!("{} reaches {ip}: {yes}, not {wanted}", guest.label)
            });
        }
        rows.push(cells);
    }
    stage.story.table(&rows);
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn type_2(stage: &mut Stage, guests: &[&Guest]) {
    stage.story.chapter("Each guest's type-2 routes, as the other host's bgpd has them");
    let mut rows = vec![row(["guest", "seen by", "MAC", "IP", "VNI", "VTEP", "router MAC", "targets"])];
    let mut wrong = Vec::new();
    for guest in guests {
        let there = guest.other_host(stage.fabric);
        for ip in ["", guest.ip.as_str()] {
            let more = if ip.is_empty() { String::new() } else { format!(" ip {ip}") };
            // FRR 10 keeps a MAC's route in another table than the VNI's; this one has them all in every version.
            let command = format!("show bgp l2vpn evpn route rd all mac {}{more} json", guest.mac);
            let answer = there.show("bgpd", &command);
            let of_rd = answer.as_object().into_iter().flatten().filter_map(|(_, routes)| routes.as_object()).flatten();
            // The other tenant may have the same MAC.
            let is_theirs = |route: &&Value| {
                text(route, "/paths/0/0/extendedCommunity/string").contains(&format!(":{} ", guest.tenant.vni))
            };
            let route = of_rd.map(|(_, route)| route).find(is_theirs).cloned().unwrap_or_default();
            let (vni, vtep) = (text(&route, "/paths/0/0/vni"), text(&route, "/paths/0/0/nexthops/0/ip"));
            let community = text(&route, "/paths/0/0/extendedCommunity/string");
            let of = |prefix: &str| {
                community.split(' ').filter_map(|part| part.strip_prefix(prefix)).collect::<Vec<_>>().join(" ")
            };
            let router = of("Rmac:");
            let (want_vni, want_router) = match ip {
                "" => (guest.tenant.vni.to_string(), ""),
                _ => (guest.tenant.vnis.to_owned(), guest.router_mac()),
            };
            let right = vni == want_vni && vtep == guest.vtep() && router == want_router;
            wrong.push((right, format!("{}: '{command}' has VNI {vni}, VTEP {vtep}, {community}", there.name())));
            let (shown, dash) = (guest.label, "-");
            let or_dash = |text: &str| if text.is_empty() { dash.to_owned() } else { text.to_owned() };
            rows.push(
                [
                    shown,
                    there.name(),
                    guest.mac,
                    &or_dash(ip),
                    &or_dash(vni),
                    &or_dash(vtep),
                    &or_dash(&router),
                    &of("RT:"),
                ]
                .map(str::to_owned)
                .to_vec(),
            );
        }
    }
    stage.story.table(&rows);
    for (right, what) in wrong {
        stage.story.check(right, || what);
    }
}

fn kernels(stage: &mut Stage, guests: &[&Guest]) {
    stage.story.say("\nand as its kernel has them:\n");
    for host in stage.fabric.hypervisors() {
        let remote = || guests.iter().filter(|guest| guest.other_host(stage.fabric).name() == host.name());
        let fdb = stage.story.run(host, "bridge fdb show | grep 'dst .* self extern_learn'");
        for guest in remote() {
            let line =
                [guest.mac, &format!("dev vxlan{}", guest.tenant.vni), &format!("dst {}", guest.vtep())].join(" ");
            stage.story.check(fdb.contains(&line), || format!("{}'s FDB has no '{line}'", host.name()));
        }
        for tenant in [&RED, &GREEN] {
            let neighbours = stage.story.run(host, &format!("ip neigh show vrf {}", tenant.name));
            for guest in remote().filter(|guest| guest.tenant.name == tenant.name) {
                let line =
                    format!("{} dev {} lladdr {} extern_learn NOARP proto zebra", guest.ip, tenant.bridge, guest.mac);
                stage.story.check(neighbours.contains(&line), || format!("{} has no neighbour '{line}'", host.name()));
            }
        }
    }
}

fn routes(stage: &mut Stage, guests: &[&Guest]) {
    stage.story.chapter("The VRFs' routes");
    for host in stage.fabric.hypervisors() {
        for tenant in [&RED, &GREEN] {
            let routes = stage.story.run(host, &format!("ip route show vrf {}", tenant.name));
            let subnet: Vec<&str> = routes.lines().filter(|line| line.contains("/24 ")).collect();
            stage.story.check(subnet.len() == 1 && subnet[0].contains("proto kernel"), || {
                format!("{}'s subnet in VRF {} is not only connected: {subnet:?}", host.name(), tenant.name)
            });
            for guest in guests {
                let start = format!("{} ", guest.ip);
                let end = format!("via {} dev {}", guest.vtep(), tenant.l3_bridge);
                let found = routes.lines().any(|line| line.starts_with(&start) && line.contains(&end));
                let wanted = guest.tenant.name == tenant.name && guest.other_host(stage.fabric).name() == host.name();
                stage.story.check(found == wanted, || {
                    format!("{}'s route {start}{end} in VRF {}: {found}, not {wanted}", host.name(), tenant.name)
                });
            }
        }
    }
}

fn lead(stage: &mut Stage, vms: &[RunningVm]) {
    stage.story.chapter("From the hook to the far side of the fabric, and to the guest's own first sign of life");
    stage.story.say(
        "Zero is when comp1's kernel announces the guest's FDB entry ('bridge monitor fdb'): the hook's first for it.\n\
         Remote times are when comp2's 'bridge monitor fdb' and 'ip monitor neigh route' told of it; all on one clock.\n\
         Much of the lead is QEMU's own start, which is slow here: in a second kernel, with an emulated processor.\n",
    );
    let mut rows = vec![row(["", vms[0].guest.name, vms[1].guest.name])];
    let mut add = |what: &str, value: &dyn Fn(&RunningVm) -> String| {
        rows.push([vec![what.to_owned()], vms.iter().map(value).collect()].concat());
    };
    add("comp1  'virsh start' typed", &|vm| after(vm.start.first(), vm.start.typed));
    for (number, moment) in vms[0].start.moments.iter().enumerate() {
        let by = if moment.what.starts_with("comp1") { ", by the hook" } else { "" };
        add(&format!("{}{by}", moment.what), &|vm| after(vm.start.first(), vm.start.moments[number].line.at));
    }
    add("comp1  'virsh start' returned", &|vm| after(vm.start.first(), vm.returned));
    add("guest  first line on its console", &|vm| after(vm.start.first(), vm.first_line.at));
    add("lead: comp2 knew all before that line by", &|vm| span(vm.start.last(), vm.first_line.at));
    stage.story.table(&rows);
}

fn status(stage: &mut Stage) {
    stage.story.chapter("evpn-hook's own view");
    for (host, other) in stage.fabric.hypervisors().into_iter().zip(["10.0.0.2", "10.0.0.1"]) {
        let tree = stage.story.run(host, "evpn-hook status --check");
        let elsewhere = format!("elsewhere: 1 MAC at VTEP {other}");
        stage.story.check(tree.matches(&elsewhere).count() == 2, || format!("{}: not '{elsewhere}'", host.name()));
        check_status(stage, host);
    }
    stage.story.say(
        "\nEach address is shown with who told it: the network's <dhcp><host>, a DHCP server's answer, or the guest itself.\n",
    );
    // The picture in docs/.
    let comp1 = stage.fabric.comp1();
    stage.story.run(comp1, "evpn-hook status --svg /tmp/status.svg");
    let picture = std::fs::read_to_string(comp1.path("/tmp/status.svg")).unwrap_or_default();
    stage.story.check(picture.matches(">1 MAC</text>").count() == 2, || format!("not two remote VTEPs in {picture}"));
    let out = std::env::var("EVPN_LAB_OUT").expect("set in the lab machine");
    std::fs::write(format!("{out}/status.svg"), picture).expect("the lab's output directory");
}

fn check_status(stage: &mut Stage, host: &Host) {
    let status = host.json(&["evpn-hook", "status", "--json"]);
    let states = |list: &str| -> Vec<String> {
        status[list].as_array().into_iter().flatten().map(|e| e["state"].as_str().unwrap_or("").to_owned()).collect()
    };
    stage.story.check(states("networks") == ["up", "up"], || {
        format!("{}: networks are {:?}", host.name(), states("networks"))
    });
    stage.story.check(states("endpoints") == ["advertised", "advertised"], || {
        format!("{}: endpoints are {:?}", host.name(), states("endpoints"))
    });
    let v4 = |endpoint: &Value| {
        let ips = endpoint["ips"].as_array().into_iter().flatten().filter_map(Value::as_str);
        ips.into_iter().any(|ip| ip.contains('.'))
    };
    stage.story.check(status["endpoints"].as_array().is_some_and(|all| all.iter().all(v4)), || {
        format!("{}: an endpoint has no IPv4 address: {}", host.name(), status["endpoints"])
    });
}
