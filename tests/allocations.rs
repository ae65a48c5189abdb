//! Does a request still cost no more allocations than it needs?
//!
//! The whole proxy runs in this process under an allocator that counts what its worker thread allocates. The requests are
//! HTTP/1.1 on kept connections with the full work of the default configuration; connections and buffers are there already.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should fail where it stands"
)]
#![allow(unsafe_code, reason = "an allocator is an unsafe trait; this one counts and passes on")]

mod closed_loop;

use closed_loop::{CONNECTIONS, Clients, LIMIT};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use tidegate::app;
use tidegate::config::Config;

/// What a request may allocate in the steady state.
const ALLOCATIONS: u64 = 0;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
/// Allocations of the worker.
static COUNT: AtomicU64 = AtomicU64::new(0);
/// The worker's thread id, once it is known.
static WORKER: AtomicI32 = AtomicI32::new(0);

thread_local! {
    /// This thread's id, once it was asked for.
    static THREAD: Cell<i32> = const { Cell::new(0) };
}

fn count() {
    let _ = THREAD.try_with(|thread| {
        if thread.get() == 0 {
            thread.set(rustix::thread::gettid().as_raw_nonzero().get());
        }
        if thread.get() == WORKER.load(Ordering::Relaxed) {
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
    });
}

// SAFETY: every call is passed on unchanged to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps this function's own contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from `alloc` or `realloc` here, hence from the system.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[test]
fn a_request_allocates_nothing() {
    const ROUNDS: usize = 50;
    let folder = tempfile::tempdir().unwrap();
    let address = start(folder.path());
    WORKER.store(worker(), Ordering::Relaxed);
    let mut clients = Clients::open(address);
    clients.ask(ROUNDS);
    assert!(COUNT.load(Ordering::Relaxed) > 0, "connections are made of nothing: the count is wrong");
    // The least of several: a buffer of the access log may be new whenever its writer was late.
    let rounds = (0..5).map(|_| {
        let before = COUNT.load(Ordering::Relaxed);
        clients.ask(ROUNDS);
        COUNT.load(Ordering::Relaxed) - before
    });
    let (least, requests) = (rounds.min().unwrap(), (ROUNDS * CONNECTIONS) as u64);
    eprintln!("{least} allocations of {requests} requests");
    assert!(least <= ALLOCATIONS * requests, "{least} allocations of {requests} requests");
}

/// Starts the proxy, which runs until the process ends; says where it listens.
fn start(folder: &Path) -> SocketAddr {
    let config = Config::load(&closed_loop::configuration(folder, closed_loop::upstream())).unwrap();
    let (sender, opened) = channel();
    std::thread::spawn(move || {
        let ended = app::run(config, |opened| sender.send(opened.listeners[0].address).unwrap());
        panic!("the proxy ended: {ended:?}");
    });
    opened.recv_timeout(LIMIT).expect("the proxy starts")
}

/// The thread id of the only worker.
fn worker() -> i32 {
    let named = |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim_end() == "worker-0");
    let mut tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let task = tasks.find(|task| named(task)).expect("the worker runs");
    task.file_name().unwrap().to_str().unwrap().parse().unwrap()
}
