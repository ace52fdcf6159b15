//! Writes the manual pages and the shells' completions of both programs below a directory, from the definition that reads
//! their command lines (`src/cli.rs`), so that neither can say anything else:
//!
//! ```text
//! cargo run --example manual -- DIR      DIR/man/NAME.8  DIR/bash/NAME  DIR/zsh/_NAME  DIR/fish/NAME.fish
//! ```
//!
//! An example and no part of the programs: a hook does not carry what it never runs.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use evpn_hook::cli::{AgentCli, CONFIG, Cli, STATE};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const EXIT_STATUS: [(&str, &str); 4] = [
    ("0", "Done."),
    (
        "1",
        "Failed or refused. What was begun is undone, and one line on standard error says what, on which object, and the way out.",
    ),
    ("2", "Wrong arguments or configuration."),
    ("3", "A check found a problem."),
];

const FILES: [(&str, &str); 5] = [
    (CONFIG, "The configuration. All of it is optional; /usr/share/evpn-hook/config.toml.example shows it."),
    (STATE, "What evpn-hook owns and wants on this host. Lost, 'evpn-hook sync' makes it anew."),
    ("/usr/share/evpn-hook/libvirt-networks", "Tenant networks for 'virsh net-define'."),
    ("/usr/share/evpn-hook/lxc", "What a container's configuration includes."),
    ("/usr/share/evpn-hook/incus", "Profiles for 'incus profile create'."),
];

fn main() -> io::Result<()> {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::other("usage: manual DIR"));
    };
    for (command, name) in [(Cli::command(), "evpn-hook"), (AgentCli::command(), "evpn-agent")] {
        completions(&dir, command.clone(), name)?;
        let mut command = command.disable_help_subcommand(true);
        command.build();
        page(&dir.join("man"), &command, name)?;
    }
    Ok(())
}

fn completions(dir: &Path, command: Command, name: &'static str) -> io::Result<()> {
    let shown: Vec<Command> = command.get_subcommands().filter(|c| !c.is_hide_set()).cloned().collect();
    // A new one, because a command cannot be taken out of another.
    let mut command = Command::new(name).args(command.get_arguments().cloned()).subcommands(shown);
    for (shell, place) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let place = dir.join(place);
        fs::create_dir_all(&place)?;
        let file = clap_complete::generate_to(shell, &mut command, name, &place)?;
        if shell == Shell::Bash {
            // bash-completion finds a command's file by the command's name.
            fs::rename(file, place.join(name))?;
        }
    }
    Ok(())
}

/// The page of a command, and those of its commands.
fn page(dir: &Path, command: &Command, name: &str) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let commands: Vec<&Command> = command.get_subcommands().filter(|c| !c.is_hide_set()).collect();
    let man = Man::new(command.clone())
        .title(name)
        .section("8")
        .source(concat!("evpn-hook ", env!("CARGO_PKG_VERSION")))
        .manual("evpn-hook");
    let mut file = File::create(dir.join(format!("{name}.8")))?;
    man.render(&mut file)?;
    let mut more = Roff::new();
    let mut list = |title: &str, entries: &[(&str, &str)]| {
        more.control("SH", [title]);
        for (what, means) in entries {
            more.control("TP", []).text([bold(*what)]).text([roman(*means)]);
        }
    };
    list("EXIT STATUS", &EXIT_STATUS);
    if !commands.is_empty() || name == "evpn-agent" {
        list("FILES", &FILES);
    }
    let mut others =
        vec!["evpn-hook(8)", "evpn-agent(8)", "virsh(1)", "lxc.container.conf(5)", "vtysh(1)", "bridge(8)"];
    others.retain(|other| other.strip_suffix("(8)") != Some(name));
    more.control("SH", ["SEE ALSO"]).text([roman(others.join(", "))]);
    more.to_writer(&mut file)?;
    for inner in commands {
        page(dir, inner, &format!("{name}-{}", inner.get_name()))?;
    }
    Ok(())
}
