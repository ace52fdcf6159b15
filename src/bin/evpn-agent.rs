//! evpn-agent: keeps what evpn-hook set up, until it is killed.

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::unwrap_used)]

use clap::Parser;
use evpn_hook::agent::notify::Notify;
use evpn_hook::agent::{AgentError, daemon};
use evpn_hook::cli::{AgentCli, one_sentence};
use evpn_hook::engine::{Engine, EngineError};
use evpn_hook::journal::{Journal, Message};
use evpn_hook::register::Register;
use std::io::Write;
use std::process::ExitCode;

/// As evpn-hook's: 1 failed, 2 wrong arguments or configuration.
const FAILED: u8 = 1;
const WRONG: u8 = 2;

fn main() -> ExitCode {
    let common = match AgentCli::try_parse() {
        Ok(cli) => cli.common(),
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let text = one_sentence("evpn-agent", &error.to_string());
            let _ = writeln!(std::io::stderr(), "evpn-agent: {text}");
            return ExitCode::from(WRONG);
        }
    };
    let journal = || Journal::of("evpn-agent", common.verbose);
    let mut engine = Engine::new(common.config_path(), Register::at(&common.state_dir()), journal());
    engine.journal.event = "agent".to_owned();
    let notify = Notify::new(std::env::var_os("NOTIFY_SOCKET").as_deref());
    let Err(error) = daemon::run(engine, notify);
    journal().say(&Message::Failed(&error));
    ExitCode::from(if matches!(error, AgentError::Engine(EngineError::Config(_))) { WRONG } else { FAILED })
}
