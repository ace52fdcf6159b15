//! The state directory is full or read-only.

use super::{EVENTS, Event, Scene, injected, plainly};
use crate::common::sh;
use crate::faults::look::Look;
use crate::host::{CONFIG, Host};
use crate::on_a_host;
use rustix::fs::statvfs;

const STATE: &str = "/run/evpn-hook";

/// The state on a file system of its own, with all the room that it wants.
fn on_its_own() -> Host {
    let host = Host::new(CONFIG);
    std::fs::create_dir_all(STATE).unwrap();
    sh(&format!("mount -t tmpfs -o mode=700,size=1m,nr_inodes=1000 state {STATE}"));
    // A limit of no page would be none.
    std::fs::write(format!("{STATE}/ballast"), "x").unwrap();
    host.run(&["network", "up", "flat"]).ok();
    host
}

/// What is left there.
#[derive(Debug, Clone, Copy)]
enum Room {
    Inodes(u64),
    Pages(u64),
}

fn leave_only(room: Room) {
    let now = statvfs(STATE).unwrap();
    let limit = match room {
        Room::Inodes(left) => format!("nr_inodes={}", now.f_files - now.f_ffree + left),
        Room::Pages(left) => format!("size={}", (now.f_blocks - now.f_bfree + left) * now.f_frsize),
    };
    sh(&format!("mount -o remount,{limit} {STATE}"));
}

fn make_room() {
    sh(&format!("mount -o remount,size=1m,nr_inodes=1000 {STATE}"));
}

fn rooms() -> impl Iterator<Item = Room> {
    (0..6).map(Room::Inodes).chain((0..4).map(Room::Pages))
}

on_a_host!(a_guest_and_a_full_disk, {
    let mut scene = Scene::new("disk-full", on_its_own());
    for event in EVENTS {
        for room in rooms() {
            scene.event(event, || leave_only(room), plainly, make_room);
        }
    }
});

// What was claimed and done is not refused because the last word about it cannot be written.
on_a_host!(a_record_that_cannot_be_settled, {
    let mut scene = Scene::new("disk-full", on_its_own());
    for call in ["rename", "mkdir", "symlink", "unlink"] {
        for event in EVENTS {
            for at in 1.. {
                let mut hit = false;
                let run = |command| {
                    let (run, injected) = injected(&format!("/^{call}"), "error=ENOSPC", at, &command);
                    hit = injected;
                    run
                };
                scene.event(event, || {}, run, || {});
                if !hit {
                    break;
                }
            }
        }
    }
});

on_a_host!(a_network_and_a_full_disk, {
    let host = on_its_own();
    let mut table = crate::table::Table::of(&std::env::var("EVPN_TEST_INSIDE").unwrap());
    host.run(&["network", "down", "flat"]).ok();
    let without = Look::now();
    for kind in [Room::Inodes as fn(u64) -> Room, Room::Pages] {
        for left in 0.. {
            sh(&format!("rm -rf {STATE}/hints {STATE}/names"));
            leave_only(kind(left));
            let up = host.run(&["network", "up", "flat"]);
            make_room();
            let came = up.status == 0;
            if !came {
                up.says(1, &["cannot ", STATE, "No space left on device", "not full"]);
                // A directory is no state.
                assert!(Look::now() == without, "{}", Look::now().against(&without));
            }
            let healed = host.run(&["sync"]).ok().stdout;
            let healed = if healed == "nothing to do\n" { "nothing to heal" } else { "sync" };
            table.add("disk-full", "network up", if came { "network runs" } else { "network refused" }, healed);
            if came {
                leave_only(kind(0));
                host.run(&["network", "down", "flat"]).ok();
                make_room();
                assert!(Look::now() == without, "{}", Look::now().against(&without));
                table.add("disk-full", "network down", "network gone", "nothing to heal");
                break;
            }
        }
    }
});

on_a_host!(a_guest_and_a_read_only_run, {
    let mut scene = Scene::new("read-only", on_its_own());
    let set = |how: &str| drop(sh(&format!("mount -o remount,{how} {STATE}")));
    for event in EVENTS {
        scene.event(event, || set("ro"), plainly, || set("rw"));
    }
    // What needs no record goes on: an entry that was lost comes back.
    scene.begin(Event::Reconnect);
    set("ro");
    let sync = scene.host.run(&["sync"]);
    assert!(super::is_registered(), "{sync:?}");
    // By hand it is refused, or the next sync would bring it back.
    scene.host.refuses(&["detach", "vnet0"], 1, &["cannot write to /run/evpn-hook: Read-only file system"]);
    set("rw");
    crate::faults::leave_guest(&scene.host);
    set("ro");
    scene.host.refuses(&["network", "down", "flat"], 1, &["cannot write to /run/evpn-hook: Read-only file system"]);
    set("rw");
});

on_a_host!(a_full_directory_of_recorded_calls, {
    let mut scene = Scene::new("record-full", Host::flat());
    let comes =
        || drop(sh(&format!("mkdir {STATE}/record && mount -t tmpfs -o mode=700,nr_inodes=1 full {STATE}/record")));
    let goes = || drop(sh(&format!("umount {STATE}/record && rmdir {STATE}/record")));
    for event in EVENTS {
        let run = |command| {
            let run = plainly(command);
            run.tells(&["not recorded: ", "No space left on device"]);
            run
        };
        scene.event(event, comes, run, goes);
    }
});
