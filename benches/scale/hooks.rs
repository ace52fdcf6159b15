//! The hooks under measure: one more guest, container, network on a host with however many.

use crate::common::crowd::{CONFIG, Crowd, Placed};
use crate::common::figures::{Sample, run};
use crate::common::{self, batch, count, sh};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Of the numbers that the crowd never has: what comes and goes.
const EXTRA: usize = 60_000;
/// At most so many rounds, or so long; the first few are not counted.
const ROUNDS: usize = 100;
const WARM_UP: usize = 3;
const TIME: Duration = Duration::from_secs(8);

/// Whose start takes nothing: the measure of an exec on this machine, at this moment.
const NOOP: &str = "static no-op";

struct Call {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    input: String,
}

/// What is called in each round, each call undone by one that follows.
pub struct Hooks {
    calls: Vec<Call>,
    _container: Container,
}

impl Hooks {
    /// Everything that the calls need but the hook makes itself.
    pub fn prepare(hook: &Path, crowd: &Crowd) -> Hooks {
        let [vm, attached, inside] = [0, 1, 2].map(|n| Placed::new(EXTRA + n, 0, 900 + n));
        let network = EXTRA;
        batch("ip", &(vm.lines() + &attached.lines() + &crowd.network_lines(network)));
        let container = Container::start(&inside);
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let call = |name, line: String, input: String| Call {
            name,
            program: hook.to_owned(),
            arguments: words(&line),
            environment: Vec::new(),
            input,
        };
        let qemu = |name, phase| call(name, format!("qemu {} {phase} -", vm.name), vm.domain());
        let net = |name, phase| {
            let line = format!("--config {CONFIG} network net{network} {phase} -");
            call(name, line, crowd.network_xml(network, "hookData"))
        };
        let lxc = |name, phase: &str| Call {
            environment: vec![
                ("LXC_NAME", inside.name.clone()),
                ("LXC_HOOK_VERSION", "1".to_owned()),
                ("LXC_HOOK_SECTION", "lxc".to_owned()),
                ("LXC_HOOK_TYPE", phase.to_owned()),
                ("LXC_PID", container.0.id().to_string()),
            ],
            ..call(name, "lxc".to_owned(), String::new())
        };
        let Placed { tap, mac, ip, .. } = &attached;
        let attach = format!("--config {CONFIG} attach {tap} --network net0 --mac {mac} --ip {ip}");
        let calls = vec![
            Call { program: count::noop(), ..call(NOOP, "-".to_owned(), String::new()) },
            qemu("qemu start", "start begin"),
            qemu("qemu stopped", "stopped end"),
            net("network started", "started begin"),
            net("network stopped", "stopped end"),
            lxc("LXC start-host", "start-host"),
            lxc("LXC post-stop", "post-stop"),
            call("attach", attach, String::new()),
            call("detach", format!("detach {tap}"), String::new()),
        ];
        Hooks { calls, _container: container }
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.calls.iter().map(|call| call.name)
    }

    fn run(&self, number: usize) -> Sample {
        let call = &self.calls[number];
        let mut command = Command::new(&call.program);
        command.args(&call.arguments).envs(call.environment.iter().map(|(key, value)| (key, value)));
        run(&mut command, call.input.as_bytes())
    }

    /// Rounds of all calls in turn, each here and on the empty host, before or after; each call's samples, those of the empty host second.
    pub fn measure(&self, empty: &Empty) -> Vec<[Vec<Sample>; 2]> {
        let mut samples: Vec<[Vec<Sample>; 2]> = self.calls.iter().map(|_| Default::default()).collect();
        let start = Instant::now();
        for round in 0..WARM_UP + ROUNDS {
            for (number, samples) in samples.iter_mut().enumerate() {
                let both = match round % 2 {
                    0 => [self.run(number), empty.run(number)],
                    _ => {
                        let other = empty.run(number);
                        [self.run(number), other]
                    }
                };
                if round >= WARM_UP {
                    samples.iter_mut().zip(both).for_each(|(samples, sample)| samples.push(sample));
                }
            }
            if start.elapsed() > TIME && round > WARM_UP + 4 {
                break;
            }
        }
        samples
    }
}

/// A host that stays empty, in the namespaces of a thread: what is measured on the full one is measured on it at the same time.
pub struct Empty {
    calls: Sender<usize>,
    samples: Receiver<Sample>,
}

impl Empty {
    pub fn start(hook: &Path, vrfs: usize) -> Empty {
        let (calls, asked) = channel();
        let (answer, samples) = channel();
        let hook = hook.to_owned();
        thread::spawn(move || {
            common::own_namespaces();
            let mut crowd = Crowd::new(vrfs, 1);
            crowd.grow(1, 0);
            let hooks = Hooks::prepare(&hook, &crowd);
            for number in asked {
                answer.send(hooks.run(number)).unwrap();
            }
        });
        Empty { calls, samples }
    }

    fn run(&self, number: usize) -> Sample {
        self.calls.send(number).unwrap();
        self.samples.recv().expect("the empty host's thread lives")
    }
}

/// A process in a network namespace of its own, joined to the first network, as LXC leaves it at start-host.
struct Container(Child);

impl Container {
    fn start(guest: &Placed) -> Container {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut container = Container(command.spawn().expect("unshare (util-linux)"));
        container.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let (pid, Placed { tap, bridge, mac, ip, .. }) = (container.0.id(), guest);
        sh(&format!(
            "ip link add {tap} mtu 1450 type veth peer name eth0 mtu 1450 netns {pid} && ip link set {tap} master {bridge} up &&
             nsenter -t {pid} -n sh -c 'ip link set eth0 address {mac} up && ip address add {ip}/22 dev eth0'"
        ));
        container
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
