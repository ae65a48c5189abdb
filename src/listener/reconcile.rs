//! Which listeners are bound, and what does a change of configuration do to them?
//!
//! A listener is its name and its address. As long as both stay, its sockets, accept loops and connections are not touched; all
//! other settings are read for each connection.

use super::{Inbox, Listening, Opened, Wiring, socket};
use crate::model::{ListenerSpec, Problem};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use tokio::sync::{mpsc, watch};

/// What is bound, for logs, tests and the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Address, the port chosen.
    pub address: SocketAddr,
}

/// The control thread's side: which listeners are bound.
#[derive(Debug)]
pub struct Listeners {
    workers: Vec<mpsc::UnboundedSender<Opened>>,
    wiring: Arc<Wiring>,
    running: Vec<Running>,
    /// Told to close; their sockets may be open for a moment still, and the port is ours.
    closing: Vec<Weak<Listening>>,
}

#[derive(Debug)]
struct Running {
    /// The address as wanted, port 0 included.
    wanted: SocketAddr,
    listening: Arc<Listening>,
    stop: watch::Sender<bool>,
}

impl Running {
    fn is(&self, spec: &ListenerSpec) -> bool {
        *self.listening.name == *spec.name && self.wanted == spec.address
    }
}

impl Listeners {
    /// No listener yet, and the inbox of each of `workers` workers.
    pub fn new(workers: usize, wiring: Wiring) -> (Self, Vec<Inbox>) {
        let (workers, inboxes) = (0..workers)
            .map(|_| {
                let (sender, receiver) = mpsc::unbounded_channel();
                (sender, Inbox(receiver))
            })
            .unzip();
        (Self { workers, wiring: Arc::new(wiring), running: Vec::new(), closing: Vec::new() }, inboxes)
    }

    /// Binds what is new, closes what is gone, leaves alone what stays (same name and address). A listener that cannot be bound is
    /// a problem of its own, and stays at its last address if it had one; calling again with the same list tries again. New ones are bound
    /// before old ones close, so that a renamed listener misses no connection.
    pub fn reconcile(&mut self, wanted: &[Arc<ListenerSpec>]) -> Vec<Problem> {
        self.closing.retain(|listening| listening.strong_count() > 0);
        let (stay, mut gone): (_, Vec<_>) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|running: &Running| wanted.iter().any(|spec| running.is(spec)));
        self.running = stay;
        self.closing.extend(gone.iter().map(|running: &Running| Arc::downgrade(&running.listening)));
        let mut problems = Vec::new();
        for spec in wanted {
            if self.running.iter().any(|running| running.is(spec)) {
                continue;
            }
            match self.open(spec) {
                Ok(running) => self.running.push(running),
                Err(problem) => problems.push((spec, problem)),
            }
        }
        // Only now: nobody else's new address is taken by one that stays.
        let problems = problems.into_iter().map(|(spec, problem)| self.keep(spec, &mut gone, problem)).collect();
        for old in &gone {
            let heir = |new: &Running| new.listening.address == old.listening.address;
            old.listening.inherited.store(self.running.iter().any(heir), Ordering::Relaxed);
            close(old);
        }
        problems
    }

    /// Stops accepting everywhere, after what the kernel has queued is taken; connections go on. The start of a drain does the same.
    pub fn close_all(&mut self) {
        let _ = self.reconcile(&[]);
    }

    /// What is bound now.
    pub fn bound(&self) -> Vec<Bound> {
        let bound =
            |running: &Running| Bound { name: running.listening.name.clone(), address: running.listening.address };
        self.running.iter().map(bound).collect()
    }

    /// What is bound now, with the counts of its connections.
    pub fn listening(&self) -> impl Iterator<Item = &Arc<Listening>> {
        self.running.iter().map(|running| &running.listening)
    }

    fn open(&self, spec: &ListenerSpec) -> Result<Running, Problem> {
        let fail = |what: String, hint: String| {
            Problem::error(spec.origin.clone(), format!("listener {:?}: {what}", spec.name), hint)
        };
        let address = spec.address;
        let same = |running: &&Running| running.listening.address == address && address.port() != 0;
        if let Some(other) = self.running.iter().find(same) {
            let what = format!("listener {:?} has the address {address} already", other.listening.name);
            return Err(fail(what, "give each listener an address of its own".to_owned()));
        }
        let (bound, sockets) = socket::bind(address, self.workers.len(), self.may_share(address.port()))
            .map_err(|error| fail(error.to_string(), error.hint()))?;
        let listening = Listening::new(&spec.name, bound, &self.wiring.registry);
        let (stop, stopped) = watch::channel(false);
        for (worker, socket) in self.workers.iter().zip(sockets) {
            let (listening, wiring) = (listening.clone(), self.wiring.clone());
            let door = wiring.draining.door();
            // A worker that is gone takes nothing; its socket closes with the message.
            let _ = worker.send(Opened { listening, wiring, socket, door, stop: stopped.clone() });
        }
        tracing::info!(listener = spec.name, address = %bound, "listening");
        Ok(Running { wanted: address, listening, stop })
    }

    /// A listener that cannot move stays where it is, unless another one is there now: clients that still come are served.
    fn keep(&mut self, spec: &ListenerSpec, gone: &mut Vec<Running>, mut problem: Problem) -> Problem {
        let free = |old: &Running| self.running.iter().all(|new| new.listening.address != old.listening.address);
        let last = gone.iter().position(|old| *old.listening.name == *spec.name && free(old));
        if let Some(last) = last.map(|at| gone.swap_remove(at)) {
            problem.what.push_str(&format!("; it stays at {}", last.listening.address));
            self.closing.retain(|closing| closing.as_ptr() != Arc::as_ptr(&last.listening));
            self.running.push(last);
        }
        problem
    }

    /// Whether sharing this port is no accident: it is wanted, or one of our own sockets may be there.
    fn may_share(&self, port: u16) -> bool {
        if self.wiring.share_ports {
            return true;
        }
        let closing = self.closing.iter().filter_map(Weak::upgrade).map(|listening| listening.address);
        self.running.iter().map(|running| running.listening.address).chain(closing).any(|ours| ours.port() == port)
    }
}

fn close(running: &Running) {
    running.listening.close();
    running.stop.send_replace(true);
    tracing::info!(listener = &*running.listening.name, address = %running.listening.address, "listener closed");
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Gate, on_worker, plain};
    use std::net::TcpStream;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_listener_that_stays_is_not_touched_when_others_come_and_go() {
        on_worker(async {
            let mut gate = Gate::open(2, [plain("a"), plain("b")]);
            let (a, b) = (gate.address("a"), gate.address("b"));
            let _client = gate.connect("a").await;
            let before = gate.next().await.listener;
            assert!(gate.reconcile([plain("a"), plain("c")]).is_empty());
            assert_eq!(gate.address("a"), a);
            let _client = gate.connect("a").await;
            assert!(Arc::ptr_eq(&before, &gate.next().await.listener));
            let _client = gate.connect("c").await;
            assert_eq!(&*gate.next().await.listener.name, "c");
            gate.until(|_| TcpStream::connect(b).is_err()).await;
        });
    }

    #[test]
    fn connections_of_a_removed_listener_go_on_and_are_told() {
        on_worker(async {
            let mut gate = Gate::open(1, [plain("a")]);
            let mut client = gate.connect("a").await;
            let mut incoming = gate.next().await;
            assert!(!incoming.listener.is_closed());
            gate.reconcile([]);
            assert!(incoming.listener.is_closed());
            client.write_all(b"x").await.unwrap();
            assert_eq!(incoming.stream.read_u8().await.unwrap(), b'x');
        });
    }

    #[test]
    fn a_renamed_listener_keeps_its_port_open() {
        on_worker(async {
            let mut gate = Gate::open(2, [plain("a")]);
            let address = gate.address("a");
            let mut renamed = plain("b");
            renamed.address = address;
            assert_eq!(gate.reconcile([renamed]), []);
            for _ in 0..8 {
                let _client = gate.connect("a").await;
                gate.next().await;
            }
            assert_eq!(gate.address("b"), address);
        });
    }

    #[test]
    fn a_listener_that_cannot_be_bound_is_a_problem_and_the_others_go_on() {
        on_worker(async {
            let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut busy = plain("busy");
            busy.address = taken.local_addr().unwrap();
            let mut gate = Gate::open(1, []);
            let problems = gate.reconcile([busy.clone(), plain("a")]);
            assert_eq!(problems.len(), 1);
            assert!(problems[0].what.contains("another process listens on"), "{}", problems[0]);
            assert!(problems[0].hint.contains("ss -ltnp"), "{}", problems[0]);
            let _client = gate.connect("a").await;
            gate.next().await;
            drop(taken);
            assert_eq!(gate.reconcile([busy, plain("a")]), [], "asked again it is tried again");
        });
    }

    #[test]
    fn a_listener_that_cannot_move_stays_where_it_is_until_it_can() {
        on_worker(async {
            let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut gate = Gate::open(1, [plain("a")]);
            let old = gate.address("a");
            let moved = crate::model::ListenerSpec { address: taken.local_addr().unwrap(), ..plain("a") };
            for _ in 0..2 {
                let problems = gate.reconcile([moved.clone()]);
                assert!(problems[0].what.ends_with(&format!("it stays at {old}")), "{}", problems[0]);
                let _client = gate.connect("a").await;
                assert!(!gate.next().await.listener.is_closed());
            }
            drop(taken);
            assert_eq!(gate.reconcile([moved.clone()]), []);
            assert_eq!(gate.address("a"), moved.address);
            gate.until(|_| TcpStream::connect(old).is_err()).await;
        });
    }

    #[test]
    fn a_listener_that_cannot_move_leaves_its_address_to_another_that_is_to_have_it() {
        on_worker(async {
            let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut gate = Gate::open(1, [plain("a"), plain("b")]);
            let (old_a, old_b) = (gate.address("a"), gate.address("b"));
            let at = |name, address| crate::model::ListenerSpec { address, ..plain(name) };
            let problems = gate.reconcile([at("b", taken.local_addr().unwrap()), at("a", old_b)]);
            assert_eq!(problems.len(), 1);
            assert!(!problems[0].what.contains("it stays"), "{}", problems[0]);
            assert_eq!(gate.address("a"), old_b);
            gate.until(|_| TcpStream::connect(old_a).is_err()).await;
        });
    }

    #[test]
    fn two_listeners_of_one_address_are_a_problem_of_the_second() {
        on_worker(async {
            let mut gate = Gate::open(1, [plain("a")]);
            let mut first = plain("first");
            first.address = gate.address("a");
            let second = crate::model::ListenerSpec { name: "second".to_owned(), ..first.clone() };
            let problems = gate.reconcile([first, second]);
            assert_eq!(problems.len(), 1);
            assert!(problems[0].what.contains("listener \"first\" has the address"), "{}", problems[0]);
        });
    }

    #[test]
    fn connections_that_wait_in_the_queue_are_served_before_the_socket_closes() {
        on_worker(async {
            let mut gate = Gate::open(2, [plain("a")]);
            gate.turn().await;
            // Blocking on purpose: the accept loops run on this thread and cannot take them yet.
            let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(gate.address("a")).unwrap()).collect();
            gate.listeners.close_all();
            for _ in &clients {
                gate.next().await;
            }
        });
    }

    #[test]
    fn a_drain_stops_accepting_and_waits_for_connections() {
        on_worker(async {
            let mut gate = Gate::open(1, [plain("a")]);
            let _client = gate.connect("a").await;
            let incoming = gate.next().await;
            gate.drain.start();
            gate.until(|_| incoming.listener.is_closed()).await;
            assert!(TcpStream::connect(gate.address("a")).is_err());
            assert_eq!(gate.drain.held(), 1);
            drop(incoming);
            assert_eq!(gate.drain.held(), 0);
        });
    }
}
