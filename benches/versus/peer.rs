//! Who is measured, how is each found, started and stopped?

use crate::configure::{self, Places};
use crate::cpu::Tree;
use crate::net::{self, Ports};
use crate::probe;
use crate::tls::Identity;
use rustix::process::{Pid, Signal, kill_process};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starting with 100 000 names takes nginx some seconds.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A kind of program between the generator and the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// None: the upstream itself.
    Direct,
    /// Copies bytes and parses nothing: what the kernel alone costs.
    Floor,
    /// Ours.
    Tidegate,
    /// The one that was fastest so far.
    Haproxy,
    /// What many ingress controllers are made of.
    Nginx,
    /// The data plane of most gateways.
    Envoy,
    /// In Go, with Kubernetes in it.
    Traefik,
    /// In Go, for whoever wants HTTPS without work.
    Caddy,
}

impl Kind {
    /// In the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Direct,
        Self::Floor,
        Self::Tidegate,
        Self::Haproxy,
        Self::Nginx,
        Self::Envoy,
        Self::Traefik,
        Self::Caddy,
    ];

    /// Whether it reads what it forwards.
    pub fn is_proxy(self) -> bool {
        !matches!(self, Self::Direct | Self::Floor)
    }

    /// Whether it is a proxy of others.
    pub fn is_peer(self) -> bool {
        self.is_proxy() && self != Self::Tidegate
    }

    /// How it is asked for its version.
    fn version_argument(self) -> &'static str {
        match self {
            Self::Direct | Self::Floor | Self::Tidegate | Self::Traefik | Self::Caddy => "version",
            Self::Haproxy | Self::Nginx => "-v",
            Self::Envoy => "--version",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Floor => "floor relay",
            Self::Tidegate => "Tidegate",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
            Self::Traefik => "Traefik",
            Self::Caddy => "Caddy",
        })
    }
}

/// A program that is there.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Which.
    pub kind: Kind,
    /// Its file.
    pub program: PathBuf,
    /// What it calls its version.
    pub version: String,
}

impl Peer {
    /// Asks the program for its version; the error says what is missing.
    pub fn find(kind: Kind, program: &Path) -> Result<Self, String> {
        if !kind.is_proxy() {
            return Ok(Self { kind, program: program.to_owned(), version: String::new() });
        }
        let argument = kind.version_argument();
        let output = Command::new(program).arg(argument).output();
        let output = output.map_err(|error| format!("{kind} is missing: {}: {error}", program.display()))?;
        // nginx answers on stderr.
        let text = [output.stdout, output.stderr].concat();
        let version = version(kind, &String::from_utf8_lossy(&text));
        let version = version.ok_or_else(|| format!("{kind} is missing: `{argument}` shows no version"))?;
        Ok(Self { kind, program: program.to_owned(), version })
    }
}

/// `nginx version: nginx/1.22.1`, `envoy  version: 9e5580933739/1.40.0/Clean/RELEASE/BoringSSL`, `v2.11.7 h1:yj0Y`.
fn version(kind: Kind, text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    if kind == Kind::Envoy {
        return words.next_back()?.split('/').nth(1).map(str::to_owned);
    }
    let mut words = words.map(|word| word.trim_start_matches("nginx/").trim_start_matches('v'));
    words.find(|word| word.starts_with(|first: char| first.is_ascii_digit())).map(str::to_owned)
}

/// The work that is asked of every proxy alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Hosts that are routed; one of them is asked for.
    pub hosts: usize,
    /// Access log, forwarded headers, request id, metrics; otherwise one route for everything and nothing else.
    pub full: bool,
    /// Listen with TLS as well.
    pub tls: bool,
    /// Tuned for large bodies.
    pub bulk: bool,
    /// Workers of the proxy.
    pub workers: usize,
}

/// Name of the host of this number.
pub fn host(number: usize) -> String {
    format!("host-{number:06}.bench.test")
}

/// What all peers of a run share.
pub struct Ground<'a> {
    /// Folder of this run.
    pub folder: &'a Path,
    /// Free ports.
    pub ports: &'a Ports,
    /// The upstream.
    pub upstream: SocketAddr,
    /// Process of the upstream.
    pub upstream_pid: u32,
    /// Certificate and key.
    pub identity: &'a Identity,
}

/// A peer that serves.
pub struct Running {
    /// Which.
    pub peer: Peer,
    /// Cleartext.
    pub http: SocketAddr,
    /// TLS.
    pub https: SocketAddr,
    /// Its access log.
    pub log: PathBuf,
    /// All its processes.
    pub tree: Tree,
    /// From the start to the first 200.
    pub start: Duration,
    child: Option<Child>,
}

impl Running {
    /// Writes the configuration, starts the peer on the proxy's CPU, waits for 200 and checks what reaches the upstream.
    pub fn start(peer: &Peer, work: Work, ground: &Ground<'_>) -> Result<Self, String> {
        let [http, https, admin] = [ground.ports.next(), ground.ports.next(), ground.ports.next()];
        let dir = ground.folder.join(format!("{}-{}", format!("{:?}", peer.kind).to_lowercase(), http.port()));
        fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let log = dir.join("access.log");
        let begun = Instant::now();
        let child = match peer.kind {
            Kind::Direct => None,
            _ => {
                let places = Places { dir: &dir, log: &log, http, https, admin, upstream: ground.upstream };
                let mut command = configure::command(peer, work, ground.identity, &places)?;
                let child = net::spawn_on(net::proxy_cpus(work.workers), command.stdin(Stdio::null()));
                Some(child.map_err(|error| format!("{}: {error}", peer.program.display()))?)
            }
        };
        let http = if child.is_some() { http } else { ground.upstream };
        let pid = child.as_ref().map_or(ground.upstream_pid, Child::id);
        let mut running =
            Self { peer: peer.clone(), http, https, log, tree: Tree::of(pid), start: Duration::ZERO, child };
        running.wait_for_200(&host(work.hosts - 1))?;
        running.start = begun.elapsed();
        running.tree = Tree::of(pid);
        if peer.kind.is_proxy() {
            probe::same_work(http, &host(work.hosts - 1), work.full, peer.kind)
                .map_err(|what| format!("{}: {what}", peer.kind))?;
        }
        Ok(running)
    }

    fn wait_for_200(&mut self, host: &str) -> Result<(), String> {
        let until = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                let said = fs::read_to_string(self.log.with_file_name("stderr")).unwrap_or_default();
                let said: Vec<_> = said.lines().take(5).collect();
                return Err(format!("{} ended at once ({status}): {}", self.peer.kind, said.join(" | ")));
            }
            let answer = probe::get(self.http, host, "/small");
            match answer {
                Ok((200, _)) => return Ok(()),
                answer if Instant::now() > until => {
                    let answer = answer.map(|(status, _)| status);
                    return Err(format!("{} does not answer 200 within {START_LIMIT:?}: {answer:?}", self.peer.kind));
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Counts the lines of the access log and empties it, so that long runs do not fill the disk.
    pub fn take_log_lines(&self) -> u64 {
        let bytes = fs::read(&self.log).unwrap_or_default();
        if let Ok(file) = OpenOptions::new().write(true).open(&self.log) {
            file.set_len(0).expect("the log can be emptied");
        }
        memchr::memchr_iter(b'\n', &bytes).count() as u64
    }

    /// Asks the process to end, and ends it where it does not: it and what it started, by their ids.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = |id: u32| i32::try_from(id).ok().and_then(Pid::from_raw);
        let _ = pid(child.id()).map(|pid| kill_process(pid, Signal::TERM));
        let until = Instant::now() + STOP_LIMIT;
        while Instant::now() < until {
            if child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        for id in Tree::of(child.id()).pids() {
            let _ = pid(*id).map(|pid| kill_process(pid, Signal::KILL));
        }
        let _ = child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
