//! How much CPU time and memory does Tidegate take beside other proxies for the same work?
//!
//! `cargo bench --bench versus [-- --scenario NAME --rounds N --quick --json FILE]`; the method is in `benches/README.md`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement that cannot go on must stop loudly, and its output is what it is for"
)]
#![allow(unreachable_pub, reason = "`pub` says what the other files may use; nothing outside can")]

mod configure;
mod cpu;
mod h2load;
mod load;
mod net;
mod peer;
mod probe;
mod rounds;
mod run;
mod scenario;
mod stats;
mod table;
mod tls;
mod upstream;
mod varied;
mod wire;

use clap::{Parser, ValueEnum};
use net::Ports;
use peer::{Ground, Kind, Peer};
use rounds::Effort;
use scenario::Scenario;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Compares Tidegate with HAProxy, nginx, Envoy, Traefik and Caddy.
#[derive(Parser)]
#[command(name = "versus")]
struct Arguments {
    /// Only these scenarios; all otherwise.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<String>,
    /// Rounds of each scenario.
    #[arg(long, default_value_t = 14)]
    rounds: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Three short rounds: to see that all works, not to measure.
    #[arg(long)]
    quick: bool,
    /// Write the results to this file too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Another Tidegate than the one built with the benchmark.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_tidegate"))]
    tidegate: PathBuf,
    /// HAProxy.
    #[arg(long, default_value = "haproxy")]
    haproxy: PathBuf,
    /// nginx.
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    /// Envoy.
    #[arg(long, default_value = "envoy")]
    envoy: PathBuf,
    /// Traefik.
    #[arg(long, default_value = "traefik")]
    traefik: PathBuf,
    /// Caddy.
    #[arg(long, default_value = "caddy")]
    caddy: PathBuf,
    /// Leave configurations and logs where they are, and say where.
    #[arg(long)]
    keep: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// Already in a network namespace of its own.
    #[arg(long, hide = true)]
    inside: bool,
    /// Be one of the processes around the proxies.
    #[arg(long, hide = true, requires = "listen")]
    role: Option<Role>,
    #[arg(long, hide = true)]
    listen: Option<SocketAddr>,
    #[arg(long, hide = true)]
    to: Option<SocketAddr>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Upstream,
    Relay,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let (Some(role), Some(listen)) = (arguments.role, arguments.listen) {
        match role {
            Role::Upstream => upstream::serve(listen),
            Role::Relay => upstream::relay(listen, arguments.to.expect("a relay has a target")),
        }
        return ExitCode::SUCCESS;
    }
    if !arguments.bench && !arguments.inside {
        println!("run me by: cargo bench --bench versus");
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = arguments.scenario.iter().find(|name| scenario::ALL.iter().all(|known| known.name != **name))
    {
        let known: Vec<_> = scenario::ALL.iter().map(|scenario| scenario.name).collect();
        eprintln!("there is no scenario {unknown}; there are {}", known.join(", "));
        return ExitCode::from(2);
    }
    if !arguments.inside {
        return net::run_inside_namespace();
    }
    net::prepare();
    compare(&arguments)
}

fn compare(arguments: &Arguments) -> ExitCode {
    // In memory where possible: the logs' way to a disk would disturb everybody at random.
    let place = [Path::new("/dev/shm"), Path::new("/tmp")].into_iter().find(|place| place.is_dir());
    let mut folder =
        tempfile::Builder::new().prefix("versus-").tempdir_in(place.expect("there is a /tmp")).expect("a folder");
    folder.disable_cleanup(arguments.keep);
    let ports = Ports::new();
    let address = ports.next();
    let myself = std::env::current_exe().expect("this program has a path");
    let mut echo = net::command(&myself);
    echo.args(["--role", "upstream", "--listen", &address.to_string()]);
    let mut echo = net::spawn_on(&[net::upstream_cpu()], &mut echo).expect("the upstream starts");
    let identity = tls::Identity::new();
    let (upstream, upstream_pid) = (address, echo.id());
    let ground = Ground { folder: folder.path(), ports: &ports, upstream, upstream_pid, identity: &identity };
    let reports = reports(arguments, &myself, &ground);
    echo.kill().and_then(|()| echo.wait()).expect("the upstream ends");
    if arguments.keep {
        println!("configurations and logs: {}", folder.path().display());
    }
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&reports).expect("a report is JSON");
        std::fs::write(path, json + "\n").unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    if reports.iter().any(|report| report.rows.is_empty()) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn reports(arguments: &Arguments, myself: &Path, ground: &Ground<'_>) -> Vec<table::Report> {
    let mut peers = Vec::new();
    for kind in Kind::ALL {
        let program = match kind {
            Kind::Direct | Kind::Floor => myself,
            Kind::Tidegate => &arguments.tidegate,
            Kind::Haproxy => &arguments.haproxy,
            Kind::Nginx => &arguments.nginx,
            Kind::Envoy => &arguments.envoy,
            Kind::Traefik => &arguments.traefik,
            Kind::Caddy => &arguments.caddy,
        };
        match Peer::find(kind, program) {
            Ok(peer) => peers.push(peer),
            Err(what) => println!("- {what}"),
        }
    }
    let effort = effort(arguments);
    println!("{}\n", introduction(&peers, effort));
    let chosen = |scenario: &&Scenario| {
        arguments.scenario.is_empty() || arguments.scenario.iter().any(|name| name == scenario.name)
    };
    scenario::ALL
        .iter()
        .filter(chosen)
        .map(|scenario| {
            let failed = |what| table::Report::failed(scenario, what);
            let report = run::run(scenario, &peers, ground, effort).unwrap_or_else(failed);
            println!("{}", report.markdown());
            report
        })
        .collect()
}

fn effort(arguments: &Arguments) -> Effort {
    if arguments.quick {
        let (duration, warm) = (Duration::from_millis(300), Duration::from_millis(50));
        return Effort { rounds: 3, duration, warm };
    }
    let duration = Duration::from_secs_f64(arguments.seconds.clamp(0.1, 30.0));
    Effort { rounds: arguments.rounds.clamp(1, 200), duration, warm: Duration::from_millis(200) }
}

fn introduction(peers: &[Peer], effort: Effort) -> String {
    let versions: Vec<_> = peers
        .iter()
        .filter(|peer| peer.kind.is_proxy())
        .map(|peer| format!("{} {}", peer.kind, peer.version))
        .chain(h2load::version())
        .collect();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let command: Vec<_> = std::env::args().skip(1).filter(|word| word != "--inside" && word != "--bench").collect();
    format!(
        "`cargo bench --bench versus -- {}`: {}; Linux {}; {} rounds of {:?}, one worker each on a CPU of its own where nothing else is said.",
        command.join(" "),
        versions.join(", "),
        kernel.trim(),
        effort.rounds,
        effort.duration
    )
}
