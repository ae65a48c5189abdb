//! What is known about one address of a cluster?

use super::meters::Standing;
use super::outlier::Ward;
use super::random;
use crate::model::{EndpointSpec, Nearness};
use once_cell::race::OnceBox;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
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

/// What requests leave behind. On cache lines of its own (two: the prefetcher of x86 pairs them), so that the writes of one worker
/// do not slow the reads of others.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Past {
    in_flight: AtomicU32,
    waiting: AtomicU32,
    idle: AtomicU32,
    /// In a row, up to now.
    failures: AtomicU32,
    pub(crate) ejections: AtomicU32,
    pub(crate) ejected_until: AtomicU64,
    warm_from: AtomicU64,
    attempts: AtomicU64,
    failed: AtomicU64,
    /// `None`: there is no limit.
    places: Option<Semaphore>,
}

const _: () = assert!(size_of::<Past>() == 128);

/// One address of a cluster. Shared by all workers; outlives its membership while requests are in flight. Of a hundred thousand
/// most never get a request: what they would leave behind is made with the first, and without it one takes 56 bytes.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique in this process.
    pub id: EndpointId,
    pub(crate) ward: Arc<Ward>,
    past: OnceBox<Past>,
    ip: [u8; 16],
    scope: u32,
    port: u16,
    /// The address is one of IPv4, held as IPv6 maps it.
    is_v4: bool,
    /// Read only when members change: a pick has them sorted already.
    near: AtomicU8,
    state: AtomicU32,
    weight: AtomicU32,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Endpoint {
    pub(crate) fn new(spec: &EndpointSpec, ward: Arc<Ward>) -> Self {
        let (ip, scope) = match spec.address {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped().octets(), 0),
            SocketAddr::V6(v6) => (v6.ip().octets(), v6.scope_id()),
        };
        Self {
            id: EndpointId(NEXT.fetch_add(1, Relaxed)),
            ward,
            past: OnceBox::new(),
            ip,
            scope,
            port: spec.address.port(),
            is_v4: spec.address.is_ipv4(),
            near: AtomicU8::new(spec.near as u8),
            state: AtomicU32::new(0),
            weight: AtomicU32::new(spec.weight),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        let ip = Ipv6Addr::from(self.ip);
        match ip.to_ipv4_mapped().filter(|_| self.is_v4) {
            Some(v4) => SocketAddrV4::new(v4, self.port).into(),
            None => SocketAddrV6::new(ip, self.port, 0, self.scope).into(),
        }
    }

    /// Tells how an attempt ended: counts it, and feeds ejection.
    pub fn report(&self, outcome: Outcome) {
        let past = self.past();
        past.attempts.fetch_add(1, Relaxed);
        self.ward.meters.attempt(outcome);
        if outcome.is_failure() {
            past.failed.fetch_add(1, Relaxed);
            let failures = past.failures.fetch_add(1, Relaxed).saturating_add(1);
            self.ward.failed(self, failures);
            return;
        }
        past.failures.store(0, Relaxed);
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
        Nearness::of(self.near.load(Relaxed))
    }

    /// Requests in flight, over all workers; those that wait for a place are not among them.
    pub fn in_flight(&self) -> u32 {
        self.past.get().map_or(0, |past| past.in_flight.load(Relaxed))
    }

    /// Requests that wait for a place.
    pub fn waiting(&self) -> u32 {
        self.past.get().map_or(0, |past| past.waiting.load(Relaxed))
    }

    /// Idle connections in the pools of all workers.
    pub fn idle(&self) -> u32 {
        self.past.get().map_or(0, |past| past.idle.load(Relaxed))
    }

    /// Attempts that ended, and how many of them failed.
    pub fn totals(&self) -> (u64, u64) {
        self.past.get().map_or((0, 0), |past| (past.attempts.load(Relaxed), past.failed.load(Relaxed)))
    }

    /// Requests in flight and those that wait: what balancing compares.
    pub(crate) fn pending(&self) -> u32 {
        let pending = |past: &Past| past.in_flight.load(Relaxed).saturating_add(past.waiting.load(Relaxed));
        self.past.get().map_or(0, pending)
    }

    pub(crate) fn past(&self) -> &Past {
        // Looked for first, because that is all that nearly every request needs.
        self.past.get().unwrap_or_else(|| self.past.get_or_init(|| Box::new(Past::new(self.ward.places()))))
    }

    pub(crate) fn enter(&self) {
        self.past().in_flight.fetch_add(1, Relaxed);
    }

    pub(crate) fn exit(&self) {
        self.past().in_flight.fetch_sub(1, Relaxed);
    }

    pub(crate) fn wait(&self, begins: bool) {
        let waiting = &self.past().waiting;
        if begins {
            waiting.fetch_add(1, Relaxed)
        } else {
            waiting.fetch_sub(1, Relaxed)
        };
    }

    pub(crate) fn idle_added(&self) {
        self.past().idle.fetch_add(1, Relaxed);
    }

    pub(crate) fn idle_taken(&self, connections: u32) {
        self.past().idle.fetch_sub(connections, Relaxed);
    }

    /// Its places, where their number is limited.
    pub(crate) fn places(&self) -> Option<&Semaphore> {
        self.past().places.as_ref()
    }

    /// Whether a request would not have to wait for a place.
    pub(crate) fn has_place(&self) -> bool {
        let places = self.past.get().and_then(|past| past.places.as_ref());
        places.is_none_or(|places| places.available_permits() > 0)
    }

    /// Until when it is put aside, in milliseconds of its ward.
    pub(crate) fn ejected_until(&self) -> u64 {
        self.past.get().map_or(0, |past| past.ejected_until.load(Relaxed))
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
        let passed = self.ward.now().saturating_sub(self.past().warm_from.load(Relaxed));
        if passed >= whole {
            self.clear(WARMING);
            return true;
        }
        random::below(whole.saturating_mul(10)) < whole.saturating_add(passed.saturating_mul(9))
    }

    /// Its share grows from a tenth from now on.
    pub(crate) fn warm_up(&self) {
        self.past().warm_from.store(self.ward.now(), Relaxed);
        self.set(WARMING);
    }

    pub(crate) fn set_share(&self, spec: &EndpointSpec) {
        self.weight.store(spec.weight, Relaxed);
        self.near.store(spec.near as u8, Relaxed);
    }

    pub(crate) fn forget_failures(&self) {
        if let Some(past) = self.past.get() {
            past.failures.store(0, Relaxed);
        }
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

impl Past {
    fn new(places: usize) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            idle: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            warm_from: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            places: (places > 0).then(|| Semaphore::new(places)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::{at, cluster, members};

    #[test]
    fn an_address_of_either_family_is_kept_as_it_was_said() {
        for text in ["10.0.0.1:80", "[::1]:8080", "[::ffff:10.0.0.1]:80", "[fe80::1%3]:65535", "0.0.0.0:0", "[::]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(members(&cluster(&at(address)))[0].address(), address);
        }
    }

    #[test]
    fn without_requests_it_takes_56_bytes() {
        assert_eq!(size_of::<Endpoint>(), 56);
    }
}
