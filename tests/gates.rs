//! Does a request still cost no more system calls and no more instructions than it needs?
//!
//! Exact where a time would be noise. `strace -c` counts the calls of all threads of the program, callgrind their instructions,
//! in two whole runs that differ only in their number of requests; the difference is what the requests cost. They are
//! requests on kept connections (one worker, cleartext on both sides, HTTP/1.1 upstream) with the full work of the default
//! configuration: route table, forwarded headers, access log, metrics. A connection for each request is counted in
//! the same way.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should fail where it stands"
)]

mod closed_loop;

use closed_loop::{CONNECTIONS, Clients, Exchange, LIMIT, PLAIN};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};

/// Two reads and two writes. What is above is shared: waiting for events by the connections that are ready together, writing
/// the access log by the records of a batch. 4.10 to 4.15 were counted, the most on a machine that had five times its work.
const SYSTEM_CALLS: f64 = 4.2;

/// A client's connection with one request, which it wants to be the last: accept, watch, read, write; write, read; forget, close. What
/// is above is shared. Not counted are waiting, and looking whether another client is there: they depend on how many come at once. 8.10 to 8.16
/// were counted.
const CONNECTION_CALLS: f64 = 8.3;

/// Instructions of one request in user space, in the profile `quick`, on x86-64 by rustc 1.95.0. Without optimization they would be seven
/// times as many, and what is cheap for a processor would be dear there.
const INSTRUCTIONS: f64 = 25_200.0;
/// The same of a request over HTTP/2, where eight come and go together on a connection.
const INSTRUCTIONS_HTTP2: f64 = 48_700.0;
/// Runs differ by up to 0.5 % from it: hash seeds, and how many events one waiting gives on a busy machine.
const TOLERANCE: f64 = 0.03;

/// A run counts alone: each has its own clients in step, and whoever waits for a CPU wakes more often.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_request_takes_at_most_4_2_system_calls() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let count = |rounds| system_calls(|address| http1(address, rounds));
    let (few, many) = (count(10), count(110));
    let requests = (100 * CONNECTIONS) as f64;
    let each = (total(&many) - total(&few)) / requests;
    eprintln!("{each:.3} system calls a request\n{}", difference(&few, &many, requests));
    assert!(each <= SYSTEM_CALLS, "{each:.3} system calls a request\n{}", difference(&few, &many, requests));
    assert!(each >= 3.9, "{each:.3} system calls a request cannot be: the count is wrong");
}

#[test]
fn a_connection_with_its_last_request_takes_at_most_8_3_system_calls() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let last = Exchange { rest: "Connection: close\r\n\r\n", ..PLAIN };
    let count = |rounds| {
        let ask = |address| (0..rounds).for_each(|_| Clients::open(address).ask_last(&last));
        let mut calls = system_calls(ask);
        // An unoptimized build asks (fcntl) whether what it closes is open.
        calls.retain(|(name, _)| !matches!(name.as_str(), "epoll_wait" | "fcntl"));
        calls
    };
    let (few, many) = (count(2), count(22));
    let connections = (20 * CONNECTIONS) as f64;
    let each = (total(&many) - total(&few)) / connections;
    eprintln!("{each:.3} system calls a connection\n{}", difference(&few, &many, connections));
    assert!(each <= CONNECTION_CALLS, "{each:.3} system calls\n{}", difference(&few, &many, connections));
    assert!(each >= 7.9, "{each:.3} system calls a connection cannot be: the count is wrong");
}

#[test]
fn the_bytes_of_a_large_response_do_not_come_into_the_program() {
    const LENGTH: usize = 16 << 20;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let calls = calls_beside(bulk(LENGTH), |address| {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.write_all(b"GET /item/1 HTTP/1.1\r\nHost: host-1.test\r\nConnection: close\r\n\r\n").unwrap();
        let received = std::io::copy(&mut client, &mut std::io::sink()).unwrap();
        assert!(received > LENGTH as u64, "{received} bytes");
    });
    let of = |name: &str| calls.iter().find(|(known, _)| known == name).map_or(0, |(_, calls)| *calls);
    // The largest buffer would take 64 reads; whoever reads fast before the first splice takes some.
    let (splices, reads) = (of("splice"), of("recvfrom"));
    assert!(splices >= 32 && reads <= 30, "{splices} splices and {reads} reads: {calls:?}");
}

/// An upstream that answers one request with so many bytes.
fn bulk(length: usize) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes());
        let _ = stream.write_all(&vec![b'x'; length]);
    });
    address
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the number is that of x86-64")]
fn a_request_takes_as_many_instructions_as_it_did() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    hold_instructions(http1, INSTRUCTIONS);
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the number is that of x86-64")]
fn a_request_over_http2_takes_as_many_instructions_as_it_did() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    hold_instructions(http2, INSTRUCTIONS_HTTP2);
}

/// Asks so many times on all connections.
type Ask = fn(SocketAddr, usize);

fn http1(address: SocketAddr, rounds: usize) {
    Clients::open(address).ask(rounds, &PLAIN);
}

fn http2(address: SocketAddr, rounds: usize) {
    closed_loop::http2::Clients::open(address).ask(rounds, b"ok");
}

fn hold_instructions(ask: Ask, held: f64) {
    let (few, many) = (instructions(5, ask), instructions(20, ask));
    let each = (many as f64 - few as f64) / (15 * CONNECTIONS) as f64;
    let change = each / held - 1.0;
    eprintln!("{each:.0} instructions a request, {:+.2} % from what is held", change * 100.0);
    assert!(
        change.abs() <= TOLERANCE,
        "a request takes {each:.0} instructions and took {held:.0} ({:+.1} %). Where the code became dearer, make it \
         cheaper. Where it became cheaper, or another compiler or version of a dependency came (rustc 1.95.0 made the number), \
         write the new number into tests/gates.rs; this shows it: \
         cargo test --locked --test gates -- --nocapture instructions",
        change * 100.0
    );
}

/// Which calls the requests made, for whoever has to find the one too many.
fn difference(few: &[(String, u64)], many: &[(String, u64)], requests: f64) -> String {
    let before = |name: &str| few.iter().find(|(known, _)| known == name).map_or(0, |(_, calls)| *calls);
    let each = |(name, calls): &(String, u64)| (name.clone(), (*calls as f64 - before(name) as f64) / requests);
    let seen = many.iter().map(each).filter(|(_, each)| each.abs() >= 0.001);
    seen.map(|(name, each)| format!("{each:8.3} {name}\n")).collect()
}

fn total(table: &[(String, u64)]) -> f64 {
    table.iter().map(|(_, calls)| *calls as f64).sum()
}

/// Calls by their names of a whole run, its start and end included; looks for clients that were not there are left out.
fn system_calls(ask: impl FnOnce(SocketAddr)) -> Vec<(String, u64)> {
    calls_beside(closed_loop::upstream(), ask)
}

fn calls_beside(upstream: SocketAddr, ask: impl FnOnce(SocketAddr)) -> Vec<(String, u64)> {
    let folder = tempfile::tempdir().unwrap();
    let counts = folder.path().join("counts");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-U", "calls,errors,name", "-o"]).arg(&counts);
    run(strace, Path::new(env!("CARGO_BIN_EXE_tidegate")), folder.path(), upstream, ask);
    let table = fs::read_to_string(counts).unwrap();
    let calls: Vec<_> = table.lines().filter_map(row).filter(|(name, _)| name != "total").collect();
    assert!(!calls.is_empty(), "strace counted nothing:\n{table}");
    calls
}

/// Instructions of a whole run in user space, its start and end included.
fn instructions(rounds: usize, ask: Ask) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let counts = folder.path().join("counts");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", &format!("--callgrind-out-file={}", counts.display())]);
    run(valgrind, &optimized(), folder.path(), closed_loop::upstream(), |address| ask(address, rounds));
    let table = fs::read_to_string(counts).unwrap();
    let total = table.lines().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).expect("callgrind ends with what it counted")
}

/// The program as it is released, but for the time that its build takes. `make test` has built it before.
fn optimized() -> PathBuf {
    let build = ["build", "--locked", "--profile", "quick", "--bin", "tidegate"];
    let cargo = Command::new(env!("CARGO")).args(build).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let unoptimized = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    unoptimized.ancestors().nth(2).unwrap().join("quick/tidegate")
}

/// A whole run of the program under a tool that counts, with what is asked of it.
fn run(mut tool: Command, program: &Path, folder: &Path, upstream: SocketAddr, ask: impl FnOnce(SocketAddr)) {
    let config = closed_loop::configuration(folder, upstream);
    tool.arg(program).args(["run", "--config"]).arg(config);
    let mut counted = Counted::start(&mut tool);
    ask(counted.listening());
    counted.terminate();
}

fn row(line: &str) -> Option<(String, u64)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (calls, errors, name) = match *words.as_slice() {
        [calls, name] => (calls, "0", name),
        [calls, errors, name] => (calls, errors, name),
        _ => return None,
    };
    let (calls, errors): (u64, u64) = (calls.parse().ok()?, errors.parse().ok()?);
    Some((name.to_owned(), if name == "accept4" { calls - errors } else { calls }))
}

/// A tool that counts and what it runs.
struct Counted {
    tool: Child,
    log: Receiver<String>,
}

impl Counted {
    fn start(command: &mut Command) -> Self {
        command.env_remove("RUST_LOG").env("NO_COLOR", "1").stdin(Stdio::null()).stderr(Stdio::piped());
        let name = command.get_program().to_owned();
        let mut tool = command.spawn().unwrap_or_else(|error| {
            panic!("{name:?}, which counts, cannot be run ({error}): see `make prerequisites`")
        });
        let lines = BufReader::new(tool.stderr.take().unwrap()).lines();
        let (sender, log) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { tool, log }
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
        panic!("the program did not start; strace needs ptrace to be allowed here:\n{seen}");
    }

    /// Ends the program as an operator would; the tool writes what it counted.
    fn terminate(&mut self) {
        self.signal(Signal::TERM);
        let status = self.tool.wait().unwrap();
        assert!(status.success(), "{status}: {:?}", self.log.iter().collect::<Vec<_>>());
    }

    /// To what strace runs: strace itself would let it go. Valgrind runs the program in its own process.
    fn signal(&self, signal: Signal) {
        let tool = self.tool.id();
        let children = fs::read_to_string(format!("/proc/{tool}/task/{tool}/children")).unwrap_or_default();
        let mut ids: Vec<_> = children.split_whitespace().filter_map(|child| child.parse().ok()).collect();
        if ids.is_empty() {
            ids.push(i32::try_from(tool).unwrap());
        }
        for id in ids.into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(id, signal);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.tool.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::KILL);
            let _ = self.tool.kill();
            let _ = self.tool.wait();
        }
    }
}
