//! What does one data-plane thread own, and what does it know of each downstream connection?

use super::h2::Lines;
use super::request::Request;
use super::rest::{AtWork, Pause, Rest};
use crate::http1::Conn;
use crate::lifecycle::Draining;
use crate::message::{Scheme, TlsInfo};
use crate::snapshot::{ListenerSnapshot, Shared};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::connections::{Connections, OpenConnection};
use crate::telemetry::families;
use crate::telemetry::metrics::{Counter, Gauge, Registry};
use crate::upstream::{Pool, UpstreamStream};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Request states kept for reuse; more than ever are busy at one moment on one thread go back to the allocator.
const KEPT_REQUESTS: usize = 256;

/// How often idle connections are looked through and records handed to the log.
const SWEEP: Duration = Duration::from_millis(250);

/// One data-plane thread's own things. Nothing here is shared: what workers share is the snapshot and atomics in it.
pub struct Worker {
    /// What serves.
    pub shared: Shared,
    /// Idle HTTP/1 connections to endpoints.
    pub pool: Pool<Box<Conn<UpstreamStream>>>,
    /// Open HTTP/2 connections to endpoints.
    pub lines: Lines,
    /// Where records go.
    pub access_log: AccessLog,
    /// Whether new work is still taken.
    pub draining: Draining,
    /// What is open, for the API.
    pub connections: Connections,
    /// Who is at work.
    pub at_work: AtWork,
    registry: Registry,
    listeners: RefCell<HashMap<Arc<str>, Rc<ListenerMetrics>>>,
    #[expect(clippy::vec_box, reason = "a request moves between here and its task as one pointer")]
    spare: RefCell<Vec<Box<Request>>>,
    date: Cell<(u64, [u8; 29])>,
    /// A moment, and what the wall clock said then, since the epoch.
    clock: Cell<(Instant, Duration)>,
}

/// What a worker is made of; the same for all of them.
#[derive(Clone)]
pub struct Parts {
    /// What serves.
    pub shared: Shared,
    /// Where records go.
    pub access_log: AccessLog,
    /// Whether new work is still taken.
    pub draining: Draining,
    /// What is open, for the API.
    pub connections: Connections,
    /// Where handles come from.
    pub registry: Registry,
}

/// Handles of one listener, resolved when its first connection comes to this worker.
#[derive(Debug)]
pub struct ListenerMetrics {
    /// Requests that have begun and not ended.
    pub in_flight: Gauge,
    /// Requests over HTTP/1.
    pub http1: Counter,
    /// Requests over HTTP/2.
    pub http2: Counter,
    /// Upgraded connections that are open.
    pub upgrades: Gauge,
    /// Responses of our own by reason, as they come up: a series whose last handle is dropped is forgotten.
    own: RefCell<Vec<(&'static str, Counter)>>,
    /// Requests that filters of the listener would have refused, by filter, in the same way.
    audited: RefCell<Vec<(&'static str, Counter)>>,
}

impl Worker {
    /// A worker that has done nothing yet.
    pub fn new(parts: Parts) -> Rc<Self> {
        let Parts { shared, access_log, draining, connections, registry } = parts;
        Rc::new(Self {
            shared,
            pool: Pool::new(),
            lines: Lines::default(),
            access_log,
            draining,
            connections,
            at_work: AtWork::default(),
            registry,
            listeners: RefCell::default(),
            spare: RefCell::default(),
            date: Cell::new((0, [b' '; 29])),
            clock: Cell::new(wall_clock()),
        })
    }

    /// A request state, used before or new.
    pub fn lend(&self) -> Box<Request> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a request state back, its memory kept unless a huge request blew it up.
    pub fn give_back(&self, mut request: Box<Request>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < KEPT_REQUESTS && request.head.fields.capacity() < 64 * 1024 {
            request.clear();
            spare.push(request);
        }
    }

    /// Handles of a listener.
    pub fn listener_metrics(&self, name: &str) -> Rc<ListenerMetrics> {
        if let Some(known) = self.listeners.borrow().get(name) {
            return Rc::clone(known);
        }
        let counter = |protocol| {
            self.registry.counter(&families::LISTENER_REQUESTS, &[("listener", name), ("protocol", protocol)])
        };
        let made = Rc::new(ListenerMetrics {
            in_flight: self.registry.gauge(&families::REQUESTS_IN_FLIGHT, &[("listener", name)]),
            http1: counter("http1"),
            http2: counter("http2"),
            upgrades: self.registry.gauge(&families::UPGRADES_OPEN, &[("listener", name)]),
            own: RefCell::default(),
            audited: RefCell::default(),
        });
        self.listeners.borrow_mut().insert(name.into(), Rc::clone(&made));
        made
    }

    /// Counts a response of our own.
    pub fn count_own(&self, listener: &str, reason: &'static str) {
        let labels = [("listener", listener), ("reason", reason)];
        let counter = || self.registry.counter(&families::OWN_RESPONSES, &labels);
        count(&self.listener_metrics(listener).own, reason, counter);
    }

    /// Counts a request that an audited filter of the listener would have refused.
    pub fn count_audited(&self, listener: &str, filter: &'static str) {
        let labels = [("listener", listener), ("filter", filter)];
        let counter = || self.registry.counter(&families::LISTENER_FILTER_AUDITED, &labels);
        count(&self.listener_metrics(listener).audited, filter, counter);
    }

    /// The Date field's value, formatted once a second.
    pub fn date(&self) -> [u8; 29] {
        let now = SystemTime::now();
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let (known, mut text) = self.date.get();
        if known != seconds {
            let fresh = httpdate::fmt_http_date(now);
            if let Ok(bytes) = <[u8; 29]>::try_from(fresh.as_bytes()) {
                text = bytes;
            }
            self.date.set((seconds, text));
        }
        text
    }

    /// When something was, since the epoch. The wall clock is asked at each sweep, not for each request.
    pub fn since_epoch(&self, at: Instant) -> Duration {
        let (moment, said) = self.clock.get();
        let since = at.saturating_duration_since(moment);
        (said + since).saturating_sub(moment.saturating_duration_since(at))
    }

    /// Closes idle connections that are too old or that their upstream has closed, and hands records to the log, until the
    /// thread ends.
    pub async fn sweep(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.clock.set(wall_clock());
            self.pool.sweep(Instant::now(), |conn| conn.is_idle());
            self.lines.sweep();
            self.access_log.flush();
        }
    }
}

fn wall_clock() -> (Instant, Duration) {
    (Instant::now(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Counts under a token whose counter is made when the token first comes up.
fn count(counters: &RefCell<Vec<(&'static str, Counter)>>, token: &'static str, make: impl FnOnce() -> Counter) {
    let mut counters = counters.borrow_mut();
    if let Some((_, known)) = counters.iter().find(|(known, _)| *known == token) {
        return known.add(1);
    }
    let counter = make();
    counter.add(1);
    counters.push((token, counter));
}

/// What is known about one downstream connection.
pub struct Connection {
    /// The worker it belongs to.
    pub worker: Rc<Worker>,
    /// Other end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Cleartext or TLS.
    pub scheme: Scheme,
    /// What the handshake told.
    pub tls: Option<Arc<TlsInfo>>,
    /// Handles of its listener.
    pub metrics: Rc<ListenerMetrics>,
    /// Its row in the list of connections.
    pub shown: OpenConnection,
    /// Whether it should give back what requests need.
    pub rest: Rest,
    /// Whether its listener takes no new work: starts with the drain of the process, or when the listener is removed.
    pub draining: Draining,
    /// How far it got, while it rests.
    pub pause: Cell<Option<Pause>>,
    removed: Cell<bool>,
    stale: Cell<bool>,
    listener: RefCell<Arc<ListenerSnapshot>>,
    generation: Cell<u64>,
}

impl Connection {
    /// A connection that came in at a listener, which may be drained by itself.
    pub fn new(
        (worker, listener, draining): (Rc<Worker>, Arc<ListenerSnapshot>, Draining),
        ends: (SocketAddr, SocketAddr),
        tls: Option<Arc<TlsInfo>>,
        shown: OpenConnection,
    ) -> Self {
        let metrics = worker.listener_metrics(&listener.spec.name);
        let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
        let (peer, local) = ends;
        let (listener, generation) = (RefCell::new(listener), Cell::new(0));
        let (rest, pause) = (Rest::default(), Cell::new(None));
        let (removed, stale) = (Cell::new(false), Cell::new(false));
        Self {
            worker,
            peer,
            local,
            scheme,
            tls,
            metrics,
            shown,
            rest,
            pause,
            draining,
            removed,
            stale,
            listener,
            generation,
        }
    }

    /// The listener as it serves now. A connection outlives a change: its next request is served by the new snapshot. Where
    /// the listener was removed, the last one serves until the connection is drained.
    pub fn listener(&self) -> Arc<ListenerSnapshot> {
        self.follow();
        Arc::clone(&self.listener.borrow())
    }

    fn follow(&self) {
        let snapshot = self.worker.shared.load();
        if self.generation.get() != snapshot.generation {
            self.generation.set(snapshot.generation);
            let mut held = self.listener.borrow_mut();
            let current = snapshot.listeners.iter().find(|l| l.spec.name == held.spec.name);
            self.removed.set(current.is_none());
            if let Some(current) = current {
                *held = Arc::clone(current);
            }
            self.stale.set(!self.is_still_covered(&held));
        }
    }

    /// Whether the name of the handshake is served by the policy that the handshake passed. It is not after a change of client
    /// authentication: what came in by the old rules must not go on by them.
    fn is_still_covered(&self, listener: &ListenerSnapshot) -> bool {
        let (Some(names), Some(tls)) = (&listener.tls, &self.tls) else { return true };
        let found = match &tls.server_name {
            Some(name) => names.find(Some(name)),
            None => names.find_nameless(self.local.ip()),
        };
        found.is_some_and(|found| found.policy == tls.policy)
    }

    /// Whether its TLS policy is no longer the one of its name: its requests are misdirected, and it takes no more.
    pub fn is_stale(&self) -> bool {
        self.stale.get()
    }

    /// Whether the request in hand is the last one: the process drains, or the listener was removed, perhaps only now.
    pub fn is_ending(&self) -> bool {
        self.follow();
        self.removed.get() || self.is_draining()
    }

    /// Until its listener takes no new work.
    pub fn drained(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        let draining = self.draining.clone();
        Box::pin(async move { draining.started().await })
    }

    /// Whether its listener or the process takes no new work.
    pub fn is_draining(&self) -> bool {
        self.worker.draining.is_draining() || self.draining.is_draining()
    }
}
