//! Who is measured, how is each found, configured for the same work, started and stopped?

use crate::cpu::Tree;
use crate::net::{self, Ports};
use crate::probe;
use crate::tls::Identity;
use rustix::process::{Pid, Signal, kill_process};
use std::fmt;
use std::fs::{self, File, OpenOptions};
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
    /// The peer that ratios are to.
    Haproxy,
    /// The other one.
    Nginx,
}

impl Kind {
    /// In the order of the table.
    pub const ALL: [Self; 5] = [Self::Direct, Self::Floor, Self::Tidegate, Self::Haproxy, Self::Nginx];

    /// Whether it reads what it forwards.
    pub fn is_proxy(self) -> bool {
        !matches!(self, Self::Direct | Self::Floor)
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
        let argument = match kind {
            Kind::Direct | Kind::Floor => {
                return Ok(Self { kind, program: program.to_owned(), version: String::new() });
            }
            Kind::Tidegate => "version",
            Kind::Haproxy | Kind::Nginx => "-v",
        };
        let output = Command::new(program).arg(argument).output();
        let output = output.map_err(|error| format!("{kind} is missing: {}: {error}", program.display()))?;
        // nginx answers on stderr.
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let version = text.split_whitespace().map(|word| word.trim_start_matches("nginx/"));
        let version = version.into_iter().find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
        let version = version.ok_or_else(|| format!("{kind} is missing: `{argument}` shows no version"))?;
        Ok(Self { kind, program: program.to_owned(), version: version.to_owned() })
    }
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
            kind => {
                let places = Places { dir: &dir, log: &log, http, https, admin, upstream: ground.upstream };
                let mut command = command(kind, peer, work, ground, &places)?;
                let child = net::spawn_on(net::PROXY_CPU, command.stdin(Stdio::null()));
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
            probe::same_work(http, &host(work.hosts - 1), work.full)
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

struct Places<'a> {
    dir: &'a Path,
    log: &'a Path,
    http: SocketAddr,
    https: SocketAddr,
    admin: SocketAddr,
    upstream: SocketAddr,
}

fn command(kind: Kind, peer: &Peer, work: Work, ground: &Ground<'_>, at: &Places<'_>) -> Result<Command, String> {
    let write = |name: &str, text: String| {
        let path = at.dir.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display())).map(|()| path)
    };
    let lines = |line: fn(String) -> String| (0..work.hosts).map(|number| line(host(number))).collect::<String>();
    if work.tls {
        write("chain.pem", ground.identity.chain.clone())?;
        write("key.pem", ground.identity.key.clone())?;
        write("all.pem", format!("{}{}", ground.identity.chain, ground.identity.key))?;
    }
    let mut command = net::command(&peer.program);
    command.current_dir(at.dir).stderr(create(&at.dir.join("stderr"))?).stdout(Stdio::null());
    match kind {
        Kind::Direct | Kind::Floor => {
            command.args(["--role", "relay", "--listen", &at.http.to_string(), "--to", &at.upstream.to_string()]);
        }
        Kind::Tidegate => {
            let every = "\"*/\": app\n".to_owned();
            let routes = if work.full { lines(|host| format!("{host}/: app\n")) } else { every };
            let clusters = format!("---\nclusters:\n  app: {{ endpoints: [\"{}\"] }}\n", at.upstream);
            write("routes.yaml", routes + &clusters)?;
            let config = write("tidegate.yaml", fill(include_str!("peers/tidegate.yaml"), work, at))?;
            command.arg("run").arg("--config").arg(config);
        }
        Kind::Haproxy => {
            write("hosts.map", lines(|host| format!("{host} app\n")))?;
            let config = write("haproxy.cfg", fill(include_str!("peers/haproxy.cfg"), work, at))?;
            command.arg("-db").arg("-f").arg(config).stdout(create(at.log)?);
        }
        Kind::Nginx => {
            write("names.conf", lines(|host| format!("server_name {host};\n")))?;
            let config = write("nginx.conf", fill(include_str!("peers/nginx.conf"), work, at))?;
            command.arg("-p").arg(at.dir).arg("-c").arg(config);
        }
    }
    Ok(command)
}

fn create(path: &Path) -> Result<File, String> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|error| format!("{}: {error}", path.display()))
}

/// Keeps the lines that this work asks for and puts the places in.
fn fill(template: &str, work: Work, at: &Places<'_>) -> String {
    let wanted = |word: &str| match word {
        "@full" => work.full,
        "@bare" => !work.full,
        "@tls" => work.tls,
        "@bulk" => work.bulk,
        "@lean" => !work.bulk,
        other => panic!("a template asks for {other}"),
    };
    let keep = |mut line| {
        while let Some((word, rest)) = str::split_once(line, ' ').filter(|(word, _)| word.starts_with('@')) {
            line = wanted(word).then_some(rest)?;
        }
        Some(line)
    };
    let text: Vec<_> = template.lines().filter_map(keep).collect();
    text.join("\n")
        .replace("{{dir}}", &at.dir.display().to_string())
        .replace("{{log}}", &at.log.display().to_string())
        .replace("{{http}}", &at.http.to_string())
        .replace("{{https}}", &at.https.to_string())
        .replace("{{admin}}", &at.admin.to_string())
        .replace("{{upstream}}", &at.upstream.to_string())
        + "\n"
}
