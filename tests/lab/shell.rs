//! `make lab`: brings the fabric up and runs a command in it, a shell by default.

mod fabric;

use std::process::{Command, exit};

fn main() {
    let fabric = fabric::Fabric::get();
    let names: Vec<_> = fabric.nodes().iter().map(|host| host.name()).collect();
    eprintln!("lab: up. `host NAME [COMMAND]` runs on a node ({}), `exit` ends the lab.", names.join(", "));
    let mut argv = std::env::args().skip(1).collect::<Vec<_>>();
    if argv.is_empty() {
        argv.push("bash".into());
    }
    let lab = std::env::var("EVPN_LAB_PROJECT").expect("set in the lab machine") + "/tests/lab";
    let path = format!("{lab}:{}", std::env::var("PATH").unwrap_or_default());
    // The directory itself is named again, since the one this process started in may by now be unreachable below the overlay.
    let status = Command::new(&argv[0])
        .current_dir(std::env::var("EVPN_LAB_PROJECT").expect("set in the lab machine"))
        .args(&argv[1..])
        .env("PATH", path)
        .env("PS1", "lab# ")
        .status();
    exit(status.unwrap_or_else(|error| panic!("{argv:?}: {error}")).code().unwrap_or(1));
}
