//! What does a data-plane thread run?

use crate::listener::{self, Inbox, Resting, connection};
use crate::proxy::{Parts, Worker};
use crate::telemetry::metrics::set_worker;
use std::io;
use std::rc::Rc;
use std::thread::JoinHandle;
use tokio::sync::watch;
use tokio::task::LocalSet;

/// The data-plane threads.
#[derive(Debug)]
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Workers {
    /// Starts one thread for each inbox, pinned to a core where there are as many cores as workers.
    pub(super) fn start(inboxes: Vec<Inbox>, parts: &Parts) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let pin = inboxes.len() > 1 && inboxes.len() == cores;
        let mut threads = Vec::with_capacity(inboxes.len());
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let (parts, stopped) = (parts.clone(), stopped.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            threads.push(thread.spawn(move || run(index, pin, inbox, parts, stopped))?);
        }
        Ok(Self { threads, stop })
    }

    /// Ends all threads and whatever still runs on them.
    pub(super) fn stop(self) {
        self.stop.send_replace(true);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread had panicked");
            }
        }
    }
}

fn run(index: usize, pin: bool, inbox: Inbox, parts: Parts, mut stopped: watch::Receiver<bool>) {
    set_worker(index);
    if pin {
        pin_to(index);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, index, "a worker has no runtime and takes no connections");
            return;
        }
    };
    LocalSet::new().block_on(&runtime, async move {
        let resting = match Resting::new() {
            Ok(resting) => resting,
            Err(error) => return tracing::error!(%error, index, "a worker has no epoll set and takes no connections"),
        };
        let worker = Worker::new(parts);
        tokio::task::spawn_local(Rc::clone(&worker).sweep());
        tokio::task::spawn_local(Rc::clone(&resting).run());
        let working = Rc::clone(&worker);
        tokio::task::spawn_local(async move { working.at_work.run().await });
        let waiting = (Rc::clone(&worker), Rc::clone(&resting));
        let drain = move || {
            waiting.0.at_work.drain();
            waiting.1.drain();
        };
        let serve = move |incoming| connection::serve(incoming, Rc::clone(&worker), Rc::clone(&resting));
        tokio::task::spawn_local(listener::run(inbox, serve, drain));
        // Connections outlive the listeners: they end by themselves in a drain, or here.
        let _ = stopped.wait_for(|stop| *stop).await;
    });
}

/// One worker, one core: its caches stay its own. Where the kernel does not allow it the worker runs wherever it is put.
fn pin_to(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    let allowed = rustix::thread::sched_getaffinity(None);
    if let Ok(allowed) = allowed {
        let mine = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).nth(core);
        let Some(cpu) = mine else { return };
        set.set(cpu);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
            tracing::debug!(%error, core, "worker is not pinned");
        }
    }
}
