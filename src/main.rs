//! evpn-hook: parse what was typed or called, say one sentence, exit.

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::unwrap_used)]

use clap::Parser;
use evpn_hook::agent::arrival;
use evpn_hook::cli::{Attach, Cli, Command, Common, HookCall, Install, NetworkArgs, Status, hook_call, one_sentence};
use evpn_hook::engine::{self, Engine, EngineError};
use evpn_hook::event::{Event, Nic};
use evpn_hook::hypervisor;
use evpn_hook::input::proxmox::{self, Phase};
use evpn_hook::input::{self, InputError, libvirt_network, libvirt_qemu};
use evpn_hook::journal::{Journal, Message};
use evpn_hook::model::{Address, Guest, GuestKind, IfName, NetName, Source};
use evpn_hook::record::{self, Recorder};
use evpn_hook::register::Register;
use evpn_hook::report::status::{self, terminal::Look, watch::WatchError};
use evpn_hook::report::{self, doctor, explain};
use evpn_hook::{cli, door, install, plan, speaker, tape};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt::Display;
use std::io::{Read, Write};
use std::process::{self, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// design: 0 done; 1 failed; 2 wrong arguments or configuration; 3 a check found a problem.
const FAILED: u8 = 1;
const WRONG: u8 = 2;
const PROBLEM: u8 = 3;

/// Why a command ended with a non-zero status.
struct Failure(u8, String);

fn failed(error: impl Display) -> Failure {
    Failure(FAILED, error.to_string())
}

fn wrong(error: impl Display) -> Failure {
    Failure(WRONG, error.to_string())
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Failure {
        let status = if matches!(error, EngineError::Config(_)) { WRONG } else { FAILED };
        Failure(status, error.to_string())
    }
}

fn main() -> ExitCode {
    let argv: Vec<_> = std::env::args_os().collect();
    if let Some(call) = hook_call(&argv) {
        return hook(&call, &Common::default());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if !error.use_stderr() {
                // Help and version, which were asked for.
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            let _ = writeln!(std::io::stderr(), "evpn-hook: {}", one_sentence("evpn-hook", &error.to_string()));
            return ExitCode::from(WRONG);
        }
    };
    let Cli { common, command } = cli;
    let result = match command {
        Command::Qemu { args } => return hook(&HookCall::Qemu(args), &common),
        Command::Proxmox { args } => return hook(&HookCall::Proxmox(args), &common),
        Command::Lxc { network, .. } => return hook(&HookCall::Lxc(network), &common),
        Command::Network(args) if args.args.len() > 2 => return hook(&HookCall::Network(args.args), &common),
        Command::Network(args) => network(&common, &args),
        Command::Attach(args) => attach(&common, args),
        Command::Detach(args) => {
            let mut engine = engine_of(&common);
            engine.journal.event = "detach".to_owned();
            engine::detach(&mut engine, args.device.as_ref(), args.guest.as_deref()).map_err(Failure::from)
        }
        Command::Status(args) => status_of(&common, &args),
        Command::Explain { what } => explain_it(&common, &what),
        Command::Doctor { fix } => doctor_of(&common, fix),
        Command::Sync { dry_run } => sync(&common, dry_run),
        Command::FrrConfig { network } => frr_config(&common, network.as_ref()),
        Command::Inspect { what } => inspect(&what),
        Command::Replay { path } => replay(&path),
        Command::Arrive { guest_id, guest_kind } => arrive(&common, &guest_kind, &guest_id),
        Command::Install(args) => install_links(&args, true, &common),
        Command::Uninstall(args) => install_links(&args, false, &common),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(status, text)) => {
            if !text.is_empty() {
                let _ = writeln!(std::io::stderr(), "evpn-hook: {text}");
            }
            ExitCode::from(status)
        }
    }
}

fn engine_of(common: &Common) -> Engine {
    Engine::new(common.config_path(), Register::at(&common.state_dir()), Journal::new(common.verbose))
}

/// A hypervisor's call: the exit status stops what it was about to do, so it is non-zero only where that is allowed.
fn hook(call: &HookCall, common: &Common) -> ExitCode {
    let mut engine = engine_of(common);
    engine.is_called(call.event());
    let recorder = recorder(common, &mut engine);
    let outcome = run_hook(call, &mut engine);
    if let Some(recorder) = recorder {
        let error = outcome.as_ref().err().map(ToString::to_string);
        if let Err(why) = recorder.keep(call, error.as_deref()) {
            engine.journal.say(&Message::Warning(&why));
        }
    }
    let (result, may_refuse) = match outcome {
        Ok(()) => {
            if let Some(guest) = engine.awaited.take() {
                leave_a_watch(&mut engine, common, &guest);
            }
            return ExitCode::SUCCESS;
        }
        Err(error) => (error.to_string(), error.may_refuse()),
    };
    engine.journal.say(&Message::Failed(&result));
    if may_refuse { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
}

/// A migration's guest has been wired, and no hook will tell when it runs here: where no agent does, a process stays behind that waits for it.
/// libvirt and Proxmox VE wait for the end of a hook's stdout and stderr, so it gets none of ours.
fn leave_a_watch(engine: &mut Engine, common: &Common, guest: &Guest) {
    if engine.register.agent_runs() {
        return;
    }
    let mut command = process::Command::new("/proc/self/exe");
    for (option, path) in [("--config", &common.config), ("--state", &common.state)] {
        if let Some(path) = path {
            command.arg(option).arg(path);
        }
    }
    command.args(["arrive", "--guest-kind", guest.kind.word(), "--guest-id", &guest.id]).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = command.spawn() {
        let what = format!("{guest}: nobody waits for its arrival ({error}): 'evpn-hook sync' once it is here");
        engine.journal.say(&Message::Warning(&what));
    }
}

/// Where the operator wants this call kept; off, that is one open(2) of what is not there.
fn recorder(common: &Common, engine: &mut Engine) -> Option<Recorder> {
    let begun = match &common.record {
        Some(dir) => Recorder::begin(dir, true),
        None => Recorder::begin(&common.state_dir().join(record::SWITCH), false),
    };
    begun.unwrap_or_else(|why| {
        engine.journal.say(&Message::Warning(&why));
        None
    })
}

enum HookError {
    Input(InputError),
    Engine(EngineError, bool),
    Door(String, bool),
}

impl HookError {
    fn may_refuse(&self) -> bool {
        match self {
            HookError::Input(error) => error.may_refuse(),
            HookError::Engine(_, may_refuse) | HookError::Door(_, may_refuse) => *may_refuse,
        }
    }
}

impl Display for HookError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HookError::Input(error) => error.fmt(f),
            HookError::Engine(error, _) => error.fmt(f),
            HookError::Door(text, _) => f.write_str(text),
        }
    }
}

impl From<InputError> for HookError {
    fn from(error: InputError) -> HookError {
        HookError::Input(error)
    }
}

/// What libvirt gives on stdin; on a tape it is text.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(from = "String", into = "String")]
struct Xml(Vec<u8>);

impl From<String> for Xml {
    fn from(text: String) -> Xml {
        Xml(text.into_bytes())
    }
}

impl From<Xml> for String {
    fn from(xml: Xml) -> String {
        String::from_utf8_lossy(&xml.0).into_owned()
    }
}

fn stdin() -> Result<Vec<u8>, InputError> {
    let stdin = Stdin { until: Instant::now() + PATIENCE };
    tape::asked(record::STDIN, || input::read_stdin(stdin).map(Xml)).map(|xml| xml.0)
}

/// So long the other end of stdin may take. libvirt writes at once and closes it; where it does not, it holds the guest's lock for as long as we wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// What comes on stdin; what has come by then is all.
struct Stdin {
    until: Instant,
}

impl Read for Stdin {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let stdin = std::io::stdin();
        let left = self.until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().try_into().unwrap_or(0), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&left)) {
            Ok(0) => Ok(0),
            Ok(_) => Ok(rustix::io::read(&stdin, into)?),
            Err(error) => Err(error.into()),
        }
    }
}

/// What each recorded call would do: planned from what it was told then, by this version. Nothing here is asked, and nothing done.
fn replay(path: &std::path::Path) -> Result<(), Failure> {
    // Somebody else wrote it, and this is a terminal.
    let plain = |text: &str| text.replace(|c: char| c.is_control(), "?");
    for (name, kept) in record::read(path).map_err(failed)? {
        let then = kept.error.as_ref().map_or("done".to_owned(), |error| format!("failed: {}", plain(error)));
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{}: {}", plain(&name), plain(&kept.call.title()));
        let _ = writeln!(out, "then, evpn-hook {}, {} µs: {then}", plain(&kept.evpn_hook), kept.took);
        if kept.stdin_cut {
            let _ = writeln!(out, "stdin does not parse to its end, and what came after that is not here");
        }
        let mut engine = Engine::new((cli::CONFIG.into(), false), Register::at(cli::STATE.as_ref()), Journal::quiet());
        engine.dry_run = true;
        tape::play(kept.observed);
        let outcome = run_hook(&kept.call, &mut engine);
        tape::stop();
        let _ = write!(out, "now, evpn-hook {}: ", env!("CARGO_PKG_VERSION"));
        let _ = match outcome {
            Err(error) => writeln!(out, "fails: {}", plain(&error.to_string())),
            Ok(()) if engine.planned.is_empty() => writeln!(out, "nothing to do"),
            Ok(()) => write!(out, "would do\n{}", plan::shown(&engine.planned)),
        };
    }
    Ok(())
}

fn run_hook(call: &HookCall, engine: &mut Engine) -> Result<(), HookError> {
    let event = match call {
        HookCall::Qemu(args) => libvirt_qemu::read(args, &stdin()?)?,
        HookCall::Network(args) => {
            let xml = stdin()?;
            // A broken config.toml must not keep a network from stopping, nor one from starting that it cannot describe.
            let starting = args.get(1).is_some_and(|op| op == "start" || op == "started");
            let wrong = match engine.config_that_holds() {
                Ok(wrong) => wrong.map(EngineError::from),
                Err(error) => Some(error),
            };
            let config = engine.config().cloned().unwrap_or_default();
            let event = libvirt_network::read(args, &xml, &config)?;
            match wrong {
                // One of ours must not start on a guess; the others on this host are not ours to stop.
                Some(error) if starting => return Err(HookError::Engine(error, event.is_some())),
                // What stops needs none of it.
                Some(error) if matches!(event, Some(Event::Network { .. })) => {
                    engine.journal.say(&Message::Warning(&error))
                }
                _ => {}
            }
            event
        }
        HookCall::Proxmox(args) => return run_hookscript(args, engine),
        HookCall::Lxc(network) => {
            let Some(hook) = input::lxc::read(network.as_ref(), &env)? else { return Ok(()) };
            let may_refuse = hook.phase.may_refuse();
            if !tape::plays() && !door::may_act() {
                return door::ask(&hook, network.as_ref(), &env).map_err(|text| HookError::Door(text, may_refuse));
            }
            return engine.handle_lxc(hook).map_err(|e| HookError::Engine(e, may_refuse));
        }
    };
    let Some(event) = event else { return Ok(()) };
    let may_refuse = event.may_refuse();
    engine.handle(event).map_err(|e| HookError::Engine(e, may_refuse))
}

fn env(key: &str) -> Option<String> {
    let value = || std::env::var_os(key).map(|v| v.to_string_lossy().into_owned());
    tape::told(format_args!("environment {key}"), value)
}

/// Proxmox VE's hookscript. What fails when the VM runs already stops nothing, and is shown with its task where the exit status says so.
fn run_hookscript(args: &[String], engine: &mut Engine) -> Result<(), HookError> {
    let Some(call) = proxmox::call(args)? else { return Ok(()) };
    let done = carry_out(call, engine);
    match call.phase {
        Phase::PostStart => done.map_err(|why| proxmox::unregistered(call.vmid, &why.to_string()).into()),
        Phase::PreStart | Phase::PostStop => done,
    }
}

fn carry_out(call: proxmox::Call, engine: &mut Engine) -> Result<(), HookError> {
    let from = env("PVE_MIGRATED_FROM").unwrap_or_default();
    let from = proxmox::node(&from)?;
    let text = match call.phase {
        // It may be gone with the VM.
        Phase::PostStop => String::new(),
        Phase::PreStart | Phase::PostStart => tape::asked("Proxmox VE: the VM's configuration", || {
            hypervisor::proxmox::configuration(call.vmid, from).map(|text| proxmox::kept(&text))
        })?,
    };
    for event in proxmox::read(call, from.is_some(), &text) {
        let may_refuse = event.may_refuse();
        engine.handle(event).map_err(|e| HookError::Engine(e, may_refuse))?;
    }
    Ok(())
}

fn network(common: &Common, args: &NetworkArgs) -> Result<(), Failure> {
    let up = match args.args.first().map(String::as_str) {
        Some("up") => true,
        Some("down") => false,
        other => {
            return Err(wrong(format!(
                "network {}: use 'network up NET|--all' or 'network down NET|--all'",
                other.unwrap_or("")
            )));
        }
    };
    let mut engine = engine_of(common);
    engine.dry_run = args.dry_run;
    engine.journal.event = format!("network {}", if up { "up" } else { "down" });
    let names: Vec<NetName> = match (args.args.get(1), args.all) {
        (Some(name), false) => vec![name.parse().map_err(wrong)?],
        (None, true) => all_networks(&mut engine, up)?,
        _ => return Err(wrong("network: name one network, or --all")),
    };
    // One that fails keeps no other from its turn.
    let act = if up { Engine::network_up_by_name } else { Engine::network_down_by_name };
    let failures = names.iter().filter_map(|name| act(&mut engine, name).err()).map(Failure::from);
    // A line each.
    let failure = failures.reduce(|a, b| Failure(a.0.max(b.0), format!("{}\nevpn-hook: {}", a.1, b.1)));
    if args.dry_run {
        report::plan(&engine.planned);
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn sync(common: &Common, dry_run: bool) -> Result<(), Failure> {
    let mut engine = engine_of(common);
    engine.dry_run = dry_run;
    engine.journal.event = "sync".to_owned();
    let synced = engine.sync()?;
    if dry_run {
        report::plan(&engine.planned);
    } else {
        let mut out = std::io::stdout().lock();
        let _ = match synced.steps {
            0 => writeln!(out, "nothing to do"),
            1 => writeln!(out, "mended in 1 step"),
            steps => writeln!(out, "mended in {steps} steps"),
        };
    }
    let status = if synced.misconfigured { WRONG } else { FAILED };
    if synced.problems.is_empty() { Ok(()) } else { Err(Failure(status, synced.problems.join("; "))) }
}

/// Up: config.toml's, and those that run already, whose part in FRR may be gone after its restart. Down: config.toml's that run.
fn all_networks(engine: &mut Engine, up: bool) -> Result<Vec<NetName>, Failure> {
    let mut running = Vec::new();
    for record in engine.register.networks() {
        running.push(record.map_err(failed)?.network.name);
    }
    if let Some(error) = engine.config_that_holds()? {
        engine.journal.say(&Message::Warning(&error));
    }
    let mut names: Vec<NetName> = engine.config()?.networks.iter().map(|n| n.name.clone()).collect();
    if up {
        names.extend(running);
    } else {
        names.retain(|name| running.contains(name));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn attach(common: &Common, args: Attach) -> Result<(), Failure> {
    let guest = engine::by_hand(args.guest.as_deref().unwrap_or(args.device.as_str())).map_err(wrong)?;
    let mut engine = engine_of(common);
    engine.dry_run = args.dry_run;
    engine.is_called("attach".to_owned());
    engine.journal.verbose = common.verbose || args.wait.is_some();
    let mut nic = Nic {
        device: Some(args.device.clone()),
        mac: args.mac,
        network: Some(args.network),
        ips: args.ips.into_iter().map(|ip| Address::new(ip, Source::Manual)).collect(),
        enslave: true,
        ..Nic::default()
    };
    let mut inside = None;
    if let Some(netns) = &args.netns {
        let (path, inner) = inner_of(&mut engine, netns, &args.device, args.ifname.as_ref())?;
        nic.mac = inner.mac;
        nic.ips.clone_from(&inner.ips);
        inside = Some((path, inner));
    }
    for address in &nic.ips {
        evpn_hook::model::host_ip(&address.ip.to_string()).map_err(wrong)?;
    }
    let start = Instant::now();
    let endpoint = engine::attach(&mut engine, guest, nic)?;
    let (place, large) = match inside {
        Some((path, inner)) => {
            let bridge = engine.kernel()?.link(&endpoint.bridge).map_err(failed)?;
            (path, bridge.and_then(|bridge| engine::Large::of(&inner, &bridge)))
        }
        None => (String::new(), None),
    };
    if args.dry_run {
        report::plan(&engine.planned);
        if let Some(large) = large {
            let _ = writeln!(std::io::stdout(), "{}", large.command(&place));
        }
        return Ok(());
    }
    engine.lower_inside(&place, large.as_slice())?;
    let registered = start.elapsed();
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "registered in {:.2} ms", registered.as_secs_f64() * 1e3);
    let (Some(seconds), Some(mac)) = (args.wait, endpoint.mac) else { return Ok(()) };
    let Some(record) = engine.register.network(&endpoint.network).map_err(failed)? else { return Ok(()) };
    let Some(mut frr) = engine.frr()? else { return Err(failed("--wait: [speaker] kind is none: nobody advertises")) };
    let limit = Duration::try_from_secs_f64(seconds).map_err(|_| wrong("--wait takes seconds, as --wait=10"))?;
    let look =
        frr.wait_advertised(record.network.vni, mac, &endpoint.addresses(), Instant::now() + limit).map_err(failed)?;
    if let Some(why) = look.problem() {
        return Err(failed(format!("{}: registered, but not advertised after {seconds} s: {why}", args.device)));
    }
    let _ = writeln!(out, "advertised after {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// The container's end of a veth, in the namespace of a process or at a path; and that path.
fn inner_of(
    engine: &mut Engine,
    netns: &str,
    device: &IfName,
    ifname: Option<&IfName>,
) -> Result<(String, engine::Inner), Failure> {
    let path = match netns.parse::<u32>() {
        Ok(pid) => format!("/proc/{pid}/ns/net"),
        Err(_) => netns.to_owned(),
    };
    let outer = engine.kernel()?.link(device).map_err(failed)?;
    let Some(outer) = outer else {
        return Err(failed(format!("device {device} is not there: name the veth's end on this host")));
    };
    let found = engine::inside(&path)?.into_iter().find(|inner| match ifname {
        Some(name) => inner.name == *name,
        None => inner.peer == outer.index && outer.link == Some(inner.index),
    });
    match found {
        Some(inner) => Ok((path, inner)),
        None => {
            let what = ifname.map_or(format!("peer of {device}"), ToString::to_string);
            Err(failed(format!("no {what} in network namespace {path}: name the device with --ifname")))
        }
    }
}

fn status_of(common: &Common, args: &Status) -> Result<(), Failure> {
    let mut engine = engine_of(common);
    if common.json && (args.watch || args.svg.is_some()) {
        return Err(wrong("--json cannot be used with --watch or --svg: see 'evpn-hook status --help'"));
    }
    if args.watch {
        return status::watch::run(&mut engine).map_err(|error| match error {
            WatchError::Engine(error) => error.into(),
            error => failed(error),
        });
    }
    let status = status::settled(&mut engine)?;
    let text = match &args.svg {
        Some(_) => status::svg::draw(&status, &status::terminal::host()),
        None if common.json => serde_json::to_string_pretty(&status).map_err(failed)? + "\n",
        None => status::tree::text(&status, Look::of_stdout()),
    };
    match args.svg.as_deref().filter(|path| path.as_os_str() != "-") {
        Some(path) => status::save::save(path, &text).map_err(failed)?,
        None => std::io::stdout().write_all(text.as_bytes()).map_err(failed)?,
    }
    if args.check && status.has_problems() { Err(Failure(PROBLEM, String::new())) } else { Ok(()) }
}

fn doctor_of(common: &Common, fix: bool) -> Result<(), Failure> {
    let mut engine = engine_of(common);
    let mut out = std::io::stdout().lock();
    let mut found = doctor::examine(&mut engine)?;
    if fix {
        if !common.json {
            out.write_all(doctor::announced(&found).as_bytes()).map_err(failed)?;
        }
        found = doctor::mend(&mut engine, found)?;
    }
    let text = match common.json {
        true => serde_json::to_string_pretty(&found).map_err(failed)? + "\n",
        false => doctor::text(&found, common.verbose),
    };
    out.write_all(text.as_bytes()).map_err(failed)?;
    if found.healthy { Ok(()) } else { Err(Failure(PROBLEM, String::new())) }
}

fn explain_it(common: &Common, what: &str) -> Result<(), Failure> {
    let mut engine = engine_of(common);
    let found = explain::explain(&mut engine, what)?;
    let text =
        if common.json { serde_json::to_string_pretty(&found).map_err(failed)? + "\n" } else { explain::text(&found) };
    std::io::stdout().write_all(text.as_bytes()).map_err(failed)?;
    if found.healthy { Ok(()) } else { Err(Failure(PROBLEM, String::new())) }
}

/// Nobody reads its stderr: the hook that left it behind is gone.
fn arrive(common: &Common, kind: &str, id: &str) -> Result<(), Failure> {
    let kind = if kind == GuestKind::Proxmox.word() { GuestKind::Proxmox } else { GuestKind::Libvirt };
    let mut engine = engine_of(common);
    arrival::wait(&mut engine, kind, id).map_err(|error| {
        engine.journal.say(&Message::Failed(&error));
        Failure(FAILED, String::new())
    })
}

fn inspect(what: &str) -> Result<(), Failure> {
    let of = |why: InputError| wrong(format!("inspect {what}: {why}"));
    let xml = input::read_stdin(std::io::stdin().lock()).map_err(of)?;
    let text = match what {
        "network" => serde_json::to_string_pretty(&input::inspect::network(&xml).map_err(of)?),
        _ => serde_json::to_string_pretty(&input::inspect::domain(&xml).map_err(of)?),
    };
    let text = text.map_err(failed)? + "\n";
    std::io::stdout().write_all(text.as_bytes()).map_err(failed)
}

fn frr_config(common: &Common, name: Option<&NetName>) -> Result<(), Failure> {
    let mut engine = engine_of(common);
    let mut networks = engine.config()?.networks.clone();
    for record in engine.register.networks() {
        networks.push(record.map_err(failed)?.network);
    }
    if let Some(name) = name
        && !networks.iter().any(|n| n.name == *name)
    {
        return Err(Failure(FAILED, format!("network {name} is unknown: start it, or describe it in config.toml")));
    }
    let mut vrfs: Vec<_> =
        networks.into_iter().filter(|n| name.is_none_or(|name| n.name == *name)).filter_map(|n| n.vrf).collect();
    vrfs.sort_by(|a, b| a.name.cmp(&b.name));
    vrfs.dedup();
    // Without an FRR to ask, the stanzas say where the AS goes.
    let mut frr = engine.frr()?;
    let local_as = frr.as_mut().and_then(|frr| frr.local_as().ok().flatten());
    let router_id = frr.as_mut().and_then(|frr| frr.router_id().ok().flatten());
    let text: String = vrfs.iter().map(|vrf| speaker::stanzas(vrf, local_as, router_id)).collect();
    std::io::stdout().write_all(text.as_bytes()).map_err(failed)
}

fn install_links(args: &Install, put: bool, common: &Common) -> Result<(), Failure> {
    // The hooks alone and the settings with all of them: without hooks nobody would take down what is up.
    let for_good = !put && args.libvirt == args.lxc && args.root == std::path::Path::new("/");
    let mut engine = engine_of(common);
    if for_good {
        engine::undo_host(&mut engine)?;
    }
    let act = if put { install::install } else { install::uninstall };
    let changed = act(&args.root, args.libvirt, args.lxc).map_err(failed)?;
    let mut out = std::io::stdout().lock();
    for path in &changed {
        let _ = writeln!(out, "{} {}", if put { "linked" } else { "removed" }, path.display());
    }
    if put && !changed.is_empty() {
        let _ = writeln!(out, "reload libvirtd so that it sees the hooks: systemctl reload libvirtd");
    }
    Ok(())
}
