//! Does a request still cost no more system calls than it needs?
//!
//! Exact where a time would be noise. `strace -c` counts the calls of all threads of the program in two whole runs that differ
//! only in their number of requests; the difference is what the requests cost. They are HTTP/1.1 requests on kept connections
//! (one worker, cleartext on both sides) with the full work of the default configuration.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should fail where it stands"
)]

mod closed_loop;

use closed_loop::{CONNECTIONS, Clients, LIMIT, PLAIN};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// Two reads and two writes. What is above is shared: waiting for events by the connections that are ready together, writing
/// the access log by the records of a batch. 4.10 to 4.15 were counted, the most on a machine that had five times its work.
const SYSTEM_CALLS: f64 = 4.2;
const ROUNDS: usize = 100;

#[test]
fn a_request_takes_at_most_4_2_system_calls() {
    let few = run(10);
    let many = run(10 + ROUNDS);
    let requests = (ROUNDS * CONNECTIONS) as f64;
    let total = |table: &[(String, u64)]| table.iter().map(|(_, calls)| *calls as f64).sum::<f64>();
    let each = (total(&many) - total(&few)) / requests;
    eprintln!("{each:.3} system calls a request\n{}", difference(&few, &many, requests));
    assert!(each <= SYSTEM_CALLS, "{each:.3} system calls a request\n{}", difference(&few, &many, requests));
    assert!(each >= 3.9, "{each:.3} system calls a request cannot be: the count is wrong");
}

/// Which calls the requests made, for whoever has to find the one too many.
fn difference(few: &[(String, u64)], many: &[(String, u64)], requests: f64) -> String {
    let before = |name: &str| few.iter().find(|(known, _)| known == name).map_or(0, |(_, calls)| *calls);
    let each = |(name, calls): &(String, u64)| (name.clone(), (*calls as f64 - before(name) as f64) / requests);
    let seen = many.iter().map(each).filter(|(_, each)| each.abs() >= 0.001);
    seen.map(|(name, each)| format!("{each:8.3} {name}\n")).collect()
}

/// Calls by their names of a whole run, its start and end included.
fn run(rounds: usize) -> Vec<(String, u64)> {
    let folder = tempfile::tempdir().unwrap();
    let config = closed_loop::configuration(folder.path(), closed_loop::upstream());
    let counts = folder.path().join("counts");
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-U", "calls,name", "-o"]).arg(&counts);
    command.args([env!("CARGO_BIN_EXE_tidegate"), "run", "--config"]).arg(config);
    let mut traced = Traced::start(&mut command);
    let mut clients = Clients::open(traced.listening());
    clients.ask(rounds, &PLAIN);
    drop(clients);
    traced.terminate();
    let table = fs::read_to_string(counts).unwrap();
    let calls: Vec<_> = table.lines().filter_map(row).filter(|(name, _)| name != "total").collect();
    assert!(!calls.is_empty(), "strace counted nothing:\n{table}");
    calls
}

fn row(line: &str) -> Option<(String, u64)> {
    let mut words = line.split_whitespace();
    let (calls, name, None) = (words.next()?, words.next()?, words.next()) else { return None };
    Some((name.to_owned(), calls.parse().ok()?))
}

/// strace and what it runs.
struct Traced {
    strace: Child,
    log: Receiver<String>,
}

impl Traced {
    fn start(command: &mut Command) -> Self {
        command.env_remove("RUST_LOG").env("NO_COLOR", "1").stdin(Stdio::null()).stderr(Stdio::piped());
        let mut strace = command.spawn().unwrap_or_else(|error| {
            panic!("strace, which counts the system calls, cannot be run ({error}): see `make prerequisites`")
        });
        let lines = BufReader::new(strace.stderr.take().unwrap()).lines();
        let (sender, log) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { strace, log }
    }

    /// Where the program listens, as its log says.
    fn listening(&self) -> SocketAddr {
        let mut seen = String::new();
        while let Ok(line) = self.log.recv_timeout(LIMIT) {
            if line.contains("listening") {
                let address = line.split_whitespace().find_map(|word| word.strip_prefix("address="));
                return address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("{line}"));
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        panic!("the program did not start under strace; ptrace must be allowed here:\n{seen}");
    }

    /// Ends the program as an operator would; strace follows it and writes its table.
    fn terminate(&mut self) {
        self.signal(Signal::TERM);
        let status = self.strace.wait().unwrap();
        assert!(status.success(), "{status}: {:?}", self.log.iter().collect::<Vec<_>>());
    }

    /// To what strace runs: strace itself would let it go.
    fn signal(&self, signal: Signal) {
        let strace = self.strace.id();
        let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)) {
            let _ = kill_process(child, signal);
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if self.strace.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::KILL);
            let _ = self.strace.kill();
            let _ = self.strace.wait();
        }
    }
}
