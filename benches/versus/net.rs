//! Where does the measurement run: which network, which CPU, which ports?
//!
//! A network namespace of its own, so that no port of the machine is in the way and no stray process shares a port by
//! SO_REUSEPORT; the proxy alone on CPU 0, generator and upstream on CPU 1.

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode};

/// CPU of the proxy under test.
pub const PROXY_CPU: usize = 0;
/// CPU of everything else.
pub const LOAD_CPU: usize = 1;

/// CPUs of a proxy with so many workers, one or two. Two share the load's CPU where there is no third.
pub fn proxy_cpus(workers: usize) -> &'static [usize] {
    match workers {
        0 | 1 => &[PROXY_CPU],
        _ if cpus() > 2 => &[PROXY_CPU, 2],
        _ => &[PROXY_CPU, LOAD_CPU],
    }
}

/// CPU of an upstream that two workers at full speed would be too much for beside the generator, where there is a fourth.
pub fn upstream_cpu() -> usize {
    if cpus() > 3 { 3 } else { LOAD_CPU }
}

/// How many there are, whichever of them this thread has taken.
pub fn cpus() -> usize {
    let shown = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let is_one =
        |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    shown.lines().filter(is_one).count()
}

/// Runs this program again in a new network namespace, with the same arguments and `--inside`.
pub fn run_inside_namespace() -> ExitCode {
    let program = std::env::current_exe().expect("this program has a path");
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let Some(options) = [["-n"].as_slice(), ["-r", "-n"].as_slice()].into_iter().find(|options| may_unshare(options))
    else {
        eprintln!(
            "the measurement needs a network namespace, and `unshare -n` is not allowed here.\n\
             Run it as root:  sudo -E env \"PATH=$PATH\" cargo bench --bench versus\n\
             (unshare comes with the package util-linux, ip with iproute2)"
        );
        return ExitCode::from(2);
    };
    // In place of this process, so that whoever ends this ends the measurement.
    let error = Command::new("unshare").args(options).arg(program).args(arguments).arg("--inside").exec();
    eprintln!("unshare: {error}");
    ExitCode::from(2)
}

fn may_unshare(options: &[&str]) -> bool {
    Command::new("unshare").args(options).arg("true").output().is_ok_and(|output| output.status.success())
}

/// Brings the namespace's loopback up, takes the load's CPU and all the file descriptors there are.
pub fn prepare() {
    set_parent_process_death_signal(Some(Signal::TERM)).expect("a signal may be asked for");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.is_ok_and(|status| status.success()), "`ip link set lo up` failed: is iproute2 installed?");
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(cpus >= 2, "two CPUs are needed, one for the proxy alone; there is {cpus}");
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, all).expect("the soft limit of file descriptors may grow to the hard one");
    pin(&[LOAD_CPU]);
}

/// A program that gets SIGTERM when this one ends, however it ends: nothing may stay behind on the CPUs.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(program);
    command
}

/// Starts a process on some CPUs: it inherits the affinity of the thread that starts it.
pub fn spawn_on(cpus: &[usize], command: &mut Command) -> std::io::Result<Child> {
    pin(cpus);
    let child = command.spawn();
    pin(&[LOAD_CPU]);
    child
}

fn pin(cpus: &[usize]) {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    sched_setaffinity(None, &set).unwrap_or_else(|error| panic!("CPUs {cpus:?} cannot be taken: {error}"));
}

/// Gives out ports; the namespace is new, so all are free.
pub struct Ports(Cell<u16>);

impl Ports {
    /// Counts from 9000, below the range of outgoing connections.
    pub fn new() -> Self {
        Self(Cell::new(9000))
    }

    /// The next port of loopback.
    pub fn next(&self) -> SocketAddr {
        let port = self.0.get();
        self.0.set(port + 1);
        (Ipv4Addr::LOCALHOST, port).into()
    }
}
