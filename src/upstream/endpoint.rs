//! What is known about one address of a cluster?

use super::meters::Standing;
use super::outlier::Ward;
use super::random;
use crate::model::{EndpointSpec, Nearness};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;

/// One endpoint, unique in this process: an address that leaves a cluster and comes back is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u64);

/// How an attempt at an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, where the status is not known or does not matter.
    Success,
    /// No connection within the time.
    ConnectFailed,
    /// A connection, but no TLS on it.
    TlsFailed,
    /// The connection ended before the response did.
    Reset,
    /// No response within the time.
    Timeout,
    /// An answer that is not HTTP.
    Malformed,
    /// Answered with this status; 502, 503 and 504 count as failures.
    Status(u16),
}

impl Outcome {
    /// Whether it counts towards ejection.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Success) && !matches!(self, Self::Status(status) if !(502..=504).contains(&status))
    }
}

/// Active checks found it failing.
pub(crate) const FAILING: u32 = 1;
/// Put aside for what real traffic met.
pub(crate) const EJECTED: u32 = 2;
/// A request was let through to an ejected endpoint; its outcome decides.
pub(crate) const PROBING: u32 = 4;
/// New or back again, its share still growing.
pub(crate) const WARMING: u32 = 8;
/// No longer a member.
pub(crate) const LEFT: u32 = 16;

/// What every request writes, on cache lines of its own (two: the prefetcher of x86 pairs them), so that the writes of one worker
/// do not slow the reads of others.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Load {
    in_flight: AtomicU32,
    idle: AtomicU32,
    attempts: AtomicU64,
}

/// One address of a cluster. Shared by all workers; outlives its membership while requests are in flight.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique in this process.
    pub id: EndpointId,
    /// Where it listens.
    pub address: SocketAddr,
    pub(crate) ward: Arc<Ward>,
    /// Boxed, because few have one: without it, what stands beside the load fits two cache lines.
    pub(crate) places: Option<Box<Semaphore>>,
    state: AtomicU32,
    weight: AtomicU32,
    /// Read only when members change: a pick has them sorted already.
    near: AtomicU8,
    failures: AtomicU32,
    pub(crate) ejections: AtomicU32,
    pub(crate) ejected_until: AtomicU64,
    warm_from: AtomicU64,
    waiting: AtomicU32,
    failed: AtomicU64,
    /// Made with the first request: of a hundred thousand endpoints most never get one, and with the load they would be three times
    /// as large.
    load: OnceLock<Box<Load>>,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Endpoint {
    pub(crate) fn new(spec: &EndpointSpec, places: u32, ward: Arc<Ward>) -> Self {
        ward.meters.moved(None, Some(Standing::Healthy));
        Self {
            id: EndpointId(NEXT.fetch_add(1, Relaxed)),
            address: spec.address,
            ward,
            places: (places > 0).then(|| Box::new(Semaphore::new(places as usize))),
            state: AtomicU32::new(0),
            weight: AtomicU32::new(spec.weight),
            near: AtomicU8::new(spec.near as u8),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            warm_from: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            failed: AtomicU64::new(0),
            load: OnceLock::new(),
        }
    }

    /// Tells how an attempt ended: counts it, and feeds ejection.
    pub fn report(&self, outcome: Outcome) {
        self.load().attempts.fetch_add(1, Relaxed);
        self.ward.meters.attempt(outcome);
        if outcome.is_failure() {
            self.failed.fetch_add(1, Relaxed);
            let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
            self.ward.failed(self, failures);
            return;
        }
        // Read before write: the line stays shared between workers as long as all goes well.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        if self.has(PROBING) {
            self.ward.reinstate(self);
        }
    }

    /// Measures how long after an attempt was sent the head of its response came.
    pub fn answered(&self, after: Duration) {
        self.ward.meters.head(after);
    }

    /// Whether active checks find it well, or have not yet found otherwise.
    pub fn is_healthy(&self) -> bool {
        !self.has(FAILING)
    }

    /// Whether it is put aside for what real traffic met.
    pub fn is_ejected(&self) -> bool {
        self.has(EJECTED)
    }

    /// Whether it is no longer a member: requests in flight may end, idle connections are to be closed.
    pub fn has_left(&self) -> bool {
        self.has(LEFT)
    }

    /// Its share among endpoints.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// How far it is from this gate.
    pub fn near(&self) -> Nearness {
        const { assert!(Nearness::Node as u8 == 0 && Nearness::Zone as u8 == 1) };
        match self.near.load(Relaxed) {
            0 => Nearness::Node,
            1 => Nearness::Zone,
            _ => Nearness::Anywhere,
        }
    }

    /// Requests in flight, over all workers; those that wait for a place are not among them.
    pub fn in_flight(&self) -> u32 {
        self.load.get().map_or(0, |load| load.in_flight.load(Relaxed))
    }

    /// Requests that wait for a place.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Idle connections in the pools of all workers.
    pub fn idle(&self) -> u32 {
        self.load.get().map_or(0, |load| load.idle.load(Relaxed))
    }

    /// Attempts that ended, and how many of them failed.
    pub fn totals(&self) -> (u64, u64) {
        (self.load.get().map_or(0, |load| load.attempts.load(Relaxed)), self.failed.load(Relaxed))
    }

    /// Requests in flight and those that wait: what balancing compares.
    pub(crate) fn pending(&self) -> u32 {
        let waiting = if self.places.is_some() { self.waiting() } else { 0 };
        self.in_flight().saturating_add(waiting)
    }

    fn load(&self) -> &Load {
        self.load.get_or_init(Box::default)
    }

    pub(crate) fn enter(&self) {
        self.load().in_flight.fetch_add(1, Relaxed);
    }

    pub(crate) fn exit(&self) {
        self.load().in_flight.fetch_sub(1, Relaxed);
    }

    pub(crate) fn wait(&self, begins: bool) {
        if begins {
            self.waiting.fetch_add(1, Relaxed)
        } else {
            self.waiting.fetch_sub(1, Relaxed)
        };
    }

    pub(crate) fn idle_added(&self) {
        self.load().idle.fetch_add(1, Relaxed);
    }

    pub(crate) fn idle_taken(&self, connections: u32) {
        self.load().idle.fetch_sub(connections, Relaxed);
    }

    /// Whether a request would not have to wait for a place.
    pub(crate) fn has_place(&self) -> bool {
        self.places.as_ref().is_none_or(|places| places.available_permits() > 0)
    }

    /// Neither failing nor ejected.
    pub(crate) fn is_available(&self) -> bool {
        self.state.load(Relaxed) & (FAILING | EJECTED) == 0
    }

    /// Whether slow start lets this request through: a tenth of them at first, all of them in the end.
    pub(crate) fn is_warm(&self, slow_start: Duration) -> bool {
        if !self.has(WARMING) {
            return true;
        }
        let whole = u64::try_from(slow_start.as_millis()).unwrap_or(u64::MAX).max(1);
        let passed = self.ward.now().saturating_sub(self.warm_from.load(Relaxed));
        if passed >= whole {
            self.clear(WARMING);
            return true;
        }
        random::below(whole.saturating_mul(10)) < whole.saturating_add(passed.saturating_mul(9))
    }

    /// Its share grows from a tenth from now on.
    pub(crate) fn warm_up(&self) {
        self.warm_from.store(self.ward.now(), Relaxed);
        self.set(WARMING);
    }

    pub(crate) fn set_share(&self, spec: &EndpointSpec) {
        self.weight.store(spec.weight, Relaxed);
        self.near.store(spec.near as u8, Relaxed);
    }

    pub(crate) fn forget_failures(&self) {
        self.failures.store(0, Relaxed);
    }

    pub(crate) fn standing(&self) -> Option<Standing> {
        let state = self.state.load(Relaxed);
        match state {
            _ if state & LEFT != 0 => None,
            _ if state & FAILING != 0 => Some(Standing::Unhealthy),
            _ if state & EJECTED != 0 => Some(Standing::Ejected),
            _ => Some(Standing::Healthy),
        }
    }

    pub(crate) fn has(&self, bits: u32) -> bool {
        self.state.load(Relaxed) & bits != 0
    }

    pub(crate) fn set(&self, bits: u32) {
        self.state.fetch_or(bits, Relaxed);
    }

    pub(crate) fn clear(&self, bits: u32) {
        self.state.fetch_and(!bits, Relaxed);
    }
}
