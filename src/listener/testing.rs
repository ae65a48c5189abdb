//! What do tests of listeners start from?

use super::{Capacity, Incoming, Listeners, Listening, Settings, Wiring, run};
use crate::lifecycle::Drain;
use crate::model::{ListenerProtocol, ListenerSpec, Problem};
use crate::telemetry::{Counter, Family, Registry};
use crate::tls::ServerNames;
use crate::tls::testing;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

/// A listener that is bound nowhere.
pub(super) fn listening(name: &str) -> Arc<Listening> {
    Listening::new(name, (Ipv4Addr::LOCALHOST, 0).into(), &Registry::new(1, 1000))
}

/// A cleartext listener on a free port.
pub(super) fn plain(name: &str) -> ListenerSpec {
    ListenerSpec { name: name.to_owned(), protocol: ListenerProtocol::Http, ..testing::listener() }
}

/// Runs a test as a worker runs.
pub(super) fn on_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// Listeners with workers on this thread; what arrives is handed to the test.
pub(super) struct Gate {
    pub(super) listeners: Listeners,
    pub(super) drain: Drain,
    pub(super) registry: Registry,
    current: Arc<Mutex<HashMap<String, Settings>>>,
    /// Addresses of all listeners there ever were.
    bound: HashMap<String, SocketAddr>,
    arrived: mpsc::UnboundedReceiver<Incoming>,
}

impl Gate {
    pub(super) fn open(workers: usize, specs: impl IntoIterator<Item = ListenerSpec>) -> Self {
        let (drain, draining) = Drain::new();
        let registry = Registry::new(workers, 10_000);
        let current = Arc::new(Mutex::new(HashMap::<String, Settings>::new()));
        let settings = current.clone();
        let wiring = Wiring {
            lookup: Arc::new(move |name, _| settings.lock().unwrap().get(name).cloned()),
            share_ports: false,
            capacity: Capacity::new(1000),
            draining,
            registry: registry.clone(),
        };
        let (listeners, inboxes) = Listeners::new(workers, wiring);
        let (sender, arrived) = mpsc::unbounded_channel();
        for inbox in inboxes {
            let sender = sender.clone();
            let serve = move |incoming| {
                let sent = sender.send(incoming);
                async move { drop(sent) }
            };
            spawn_local(run(inbox, serve, || ()));
        }
        let mut gate = Self { listeners, drain, registry, current, bound: HashMap::new(), arrived };
        assert_eq!(gate.reconcile(specs), []);
        gate
    }

    pub(super) fn reconcile(&mut self, specs: impl IntoIterator<Item = ListenerSpec>) -> Vec<Problem> {
        let specs: Vec<_> = specs.into_iter().map(Arc::new).collect();
        specs.iter().for_each(|spec| self.set(spec.clone(), None));
        let problems = self.listeners.reconcile(&specs);
        self.bound.extend(self.listeners.bound().iter().map(|bound| (bound.name.to_string(), bound.address)));
        problems
    }

    /// Changes what holds for a listener, as a new snapshot does.
    pub(super) fn set(&self, spec: Arc<ListenerSpec>, tls: Option<ServerNames>) {
        let settings = Settings { spec: spec.clone(), tls: tls.map(Arc::new) };
        self.current.lock().unwrap().insert(spec.name.clone(), settings);
    }

    pub(super) fn address(&self, name: &str) -> SocketAddr {
        self.bound[name]
    }

    pub(super) async fn connect(&self, name: &str) -> TcpStream {
        TcpStream::connect(self.address(name)).await.unwrap()
    }

    /// The next connection that is ready for HTTP.
    pub(super) async fn next(&mut self) -> Incoming {
        self.arrived.recv().await.unwrap()
    }

    /// Lets the accept loops run until something holds.
    pub(super) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        for _ in 0..1_000_000 {
            if holds(self) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("it never came to hold");
    }

    /// Gives the accept loops a turn or two.
    pub(super) async fn turn(&self) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn counter(&self, family: &'static Family, labels: &[(&'static str, &str)]) -> Counter {
        self.registry.counter(family, labels)
    }
}
