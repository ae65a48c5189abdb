//! Does a request still cost no more allocations than it needs?
//!
//! The whole proxy runs in this process under an allocator that counts what its worker thread allocates. The requests go over
//! kept connections, cleartext on both sides, to an upstream of HTTP/1.1, with the full work of the default configuration, in the
//! steady state: connections and buffers are there already.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should fail where it stands"
)]
#![allow(unsafe_code, reason = "an allocator is an unsafe trait; this one counts and passes on")]

mod closed_loop;

use closed_loop::{CONNECTIONS, Clients, Exchange, LIMIT, PLAIN};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::CertificateDer;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicIsize, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use tidegate::app::{self, Opened};
use tidegate::config::Config;

/// What one request may allocate: nothing where it is forwarded; a few short pieces where the answer is our own.
const GATES: &[(&str, u64, Exchange)] = &[
    ("plain", 0, PLAIN),
    ("body", 0, Exchange { line: "POST /item/1", rest: "Content-Length: 5\r\n\r\nhello", ..PLAIN }),
    (
        "chunked body",
        0,
        Exchange { line: "POST /item/1", rest: "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", ..PLAIN },
    ),
    ("chunked answer", 0, Exchange { line: "GET /pieces", end: b"\r\nok\r\n0\r\n\r\n", ..PLAIN }),
    ("expression, header checks and edits", 0, Exchange { line: "GET /thing/1", ..PLAIN }),
    ("rewrite", 0, Exchange { line: "GET /old/1?page=1", ..PLAIN }),
    ("escapes", 0, Exchange { line: "GET /item/%7ea/%41", ..PLAIN }),
    ("direct answer", 2, Exchange { line: "GET /direct", end: b"\r\n\r\ndirect", ..PLAIN }),
    ("redirect", 4, Exchange { line: "GET /moved", status: "302", end: b"\r\n\r\n", ..PLAIN }),
    (
        "refusal",
        3,
        Exchange { line: "GET /thing/1", rest: "X-Debug: 1\r\n\r\n", status: "403", end: b"header_check\n" },
    ),
];

/// The same over HTTP/2.
const HTTP2: u64 = 11;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
/// Allocations of the worker.
static COUNT: AtomicU64 = AtomicU64::new(0);
/// Bytes that the worker has allocated and not given back, since its id is known.
static BYTES: AtomicIsize = AtomicIsize::new(0);
/// The worker's thread id, once it is known.
static WORKER: AtomicI32 = AtomicI32::new(0);

thread_local! {
    /// This thread's id, once it was asked for.
    static THREAD: Cell<i32> = const { Cell::new(0) };
}

fn count(calls: u64, bytes: isize) {
    let _ = THREAD.try_with(|thread| {
        if thread.get() == 0 {
            thread.set(rustix::thread::gettid().as_raw_nonzero().get());
        }
        if thread.get() == WORKER.load(Ordering::Relaxed) {
            COUNT.fetch_add(calls, Ordering::Relaxed);
            BYTES.fetch_add(bytes, Ordering::Relaxed);
        }
    });
}

fn size(layout: Layout) -> isize {
    layout.size() as isize
}

// SAFETY: every call is passed on unchanged to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, size(layout));
        // SAFETY: the caller keeps this function's own contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -size(layout));
        // SAFETY: as above; the pointer came from `alloc` or `realloc` here, hence from the system.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        count(1, new as isize - size(layout));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new) }
    }
}

#[test]
fn neither_a_request_nor_a_rest_costs_more_than_its_gate_says() {
    let folder = tempfile::tempdir().unwrap();
    let (opened, authority) = start(folder.path());
    let at = |name: &str| opened.listeners.iter().find(|listener| &*listener.name == name).unwrap().address;
    let (address, admin) = (at("http"), opened.admin.unwrap());
    WORKER.store(worker(), Ordering::Relaxed);
    over_http1(address);
    over_http2(address);
    a_rest_holds_little(address, admin);
    a_rest_over_tls_holds_no_buffer(at("https"), authority);
}

fn over_http1(address: SocketAddr) {
    let mut clients = Clients::open(address);
    clients.ask(1, &PLAIN);
    assert!(COUNT.load(Ordering::Relaxed) > 0, "connections are made of nothing: the count is wrong");
    for (name, most, exchange) in GATES {
        let count = allocations(|| clients.ask(ROUNDS, exchange));
        eprintln!("{name}: {count} allocations of {REQUESTS} requests, at most {most} of each");
        assert!(count <= most * REQUESTS, "{name}: {count} allocations of {REQUESTS} requests, at most {most} of each");
    }
}

/// What the library makes of a head is its own: a map with a name and a value for each field, both ways.
fn over_http2(address: SocketAddr) {
    let mut clients = closed_loop::http2::Clients::open(address);
    let count = allocations(|| clients.ask(ROUNDS, b"ok"));
    eprintln!("HTTP/2: {count} allocations of {REQUESTS} requests, at most {HTTP2} of each");
    assert!(count <= HTTP2 * REQUESTS, "HTTP/2: {count} allocations of {REQUESTS} requests, at most {HTTP2} of each");
}

/// Connections that rest, and what each of them may hold: a place among those at rest, whose room doubles when it is full.
const RESTING: usize = 1_000;
const REST: isize = 600;

/// What a connection at rest holds, once the proxy says that all of them rest.
fn a_rest_holds_little(address: SocketAddr, admin: SocketAddr) {
    // The first one makes what is made once.
    one_request(address);
    let before = BYTES.load(Ordering::Relaxed);
    let _resting: Vec<_> = (0..RESTING).map(|_| one_request(address)).collect();
    let begun = Instant::now();
    while resting(admin) != RESTING {
        assert!(begun.elapsed() < LIMIT, "{} of {RESTING} connections rest", resting(admin));
    }
    let each = (BYTES.load(Ordering::Relaxed) - before) / RESTING as isize;
    eprintln!("{each} bytes of each connection at rest, at most {REST}");
    assert!(each <= REST, "{each} bytes of each connection at rest, at most {REST}");
}

/// Connections over TLS that are idle, and what each of them may hold: rustls' state, the task, and no buffer.
const IDLE: usize = 100;
const IDLE_OVER_TLS: isize = 4_000;
/// By when it does.
const REST_IN: Duration = Duration::from_secs(5);

/// What an idle connection over TLS holds, once it has given up what requests need.
fn a_rest_over_tls_holds_no_buffer(address: SocketAddr, authority: CertificateDer<'static>) {
    let mut roots = RootCertStore::empty();
    roots.add(authority).unwrap();
    let config = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    let open = || (0..IDLE).map(|_| one_request_over_tls(address, &config)).collect::<Vec<_>>();
    // The first ones make what is made once.
    let _first = open();
    let before = BYTES.load(Ordering::Relaxed);
    let _idle = open();
    let (begun, mut each) = (Instant::now(), isize::MAX);
    while each > IDLE_OVER_TLS {
        assert!(begun.elapsed() < REST_IN, "{each} bytes of each idle connection over TLS, at most {IDLE_OVER_TLS}");
        std::thread::sleep(Duration::from_millis(10));
        each = each.min((BYTES.load(Ordering::Relaxed) - before) / IDLE as isize);
    }
    eprintln!("{each} bytes of each idle connection over TLS, at most {IDLE_OVER_TLS}");
}

fn one_request_over_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let connection = ClientConnection::new(config.clone(), "host-0.test".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    ask_directly(&mut stream);
    stream
}

/// How many connections rest, as the metrics say.
fn resting(admin: SocketAddr) -> usize {
    let mut stream = TcpStream::connect(admin).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    let all = metrics.lines().filter(|line| line.starts_with("tidegate_connections_resting{"));
    all.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

fn one_request(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    ask_directly(&mut stream);
    stream
}

fn ask_directly(stream: &mut (impl Read + Write)) {
    stream.write_all(b"GET /direct HTTP/1.1\r\nHost: host-0.test\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\ndirect") {
        let mut some = [0; 1024];
        let n = stream.read(&mut some).unwrap();
        assert!(n > 0);
        answer.extend_from_slice(&some[..n]);
    }
}

const ROUNDS: usize = 20;
const REQUESTS: u64 = (ROUNDS * CONNECTIONS) as u64;

/// Allocations of so many requests. The least of several counts: a buffer of the access log is new when its writer was late.
fn allocations(mut ask: impl FnMut()) -> u64 {
    ask();
    let counts = (0..5).map(|_| {
        let before = COUNT.load(Ordering::Relaxed);
        ask();
        COUNT.load(Ordering::Relaxed) - before
    });
    counts.min().unwrap()
}

/// Starts the proxy, which runs until the process ends; says where it listens, and who signed its certificate.
fn start(folder: &Path) -> (Opened, CertificateDer<'static>) {
    let install = closed_loop::configuration(folder, closed_loop::upstream());
    let authority = add_tls(folder, &install);
    let config = Config::load(&install).unwrap();
    let (sender, opened) = channel();
    std::thread::spawn(move || {
        let ended = app::run(config, |opened| sender.send(opened.clone()).unwrap());
        panic!("the proxy ended: {ended:?}");
    });
    (opened.recv_timeout(LIMIT).expect("the proxy starts"), authority)
}

/// Adds a listener over TLS, with a certificate that vouches for itself.
fn add_tls(folder: &Path, install: &Path) -> CertificateDer<'static> {
    let pair = rcgen::generate_simple_self_signed(["host-0.test".to_owned()]).unwrap();
    fs::write(folder.join("tls.pem"), pair.cert.pem()).unwrap();
    fs::write(folder.join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
    let text = fs::read_to_string(install).unwrap();
    let more = "listeners: { https: { address: \"127.0.0.1:0\", protocol: https }, http:";
    let text = text.replace("listeners: { http:", more);
    let (certificate, key) = (folder.join("tls.pem"), folder.join("tls.key"));
    let certificates =
        format!("certificates: {{ own: {{ certificate: {}, key: {} }} }}\n", certificate.display(), key.display());
    fs::write(install, text + &certificates).unwrap();
    pair.cert.der().clone()
}

/// The thread id of the only worker.
fn worker() -> i32 {
    let named = |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == "worker-0");
    let mut tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let task = tasks.find(|task| named(task)).expect("the worker runs");
    task.file_name().unwrap().to_str().unwrap().parse().unwrap()
}
