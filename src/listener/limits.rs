//! How many connections may there be, by listener, by source and in the whole process?

use super::Listening;
use crate::lifecycle::DrainGuard;
use crate::model::Limits;
use hashbrown::HashMap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// File descriptors that connections never get: the admin port, logs, watches, the listening sockets themselves.
const RESERVE: u64 = 128;

/// The limit of file descriptors before and after [`raise_nofile`]; `u64::MAX`: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nofile {
    /// As it was.
    pub before: u64,
    /// As it is.
    pub now: u64,
}

/// Raises the limit of file descriptors to what the system allows this process. Where that fails the old one holds.
pub fn raise_nofile() -> Nofile {
    let limit = getrlimit(Resource::Nofile);
    let before = limit.current.unwrap_or(u64::MAX);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let now = if raised.is_ok() { limit.maximum.unwrap_or(u64::MAX) } else { before };
    Nofile { before, now }
}

/// The process-wide limit of connections, held below the limit of file descriptors.
#[derive(Debug)]
pub struct Capacity {
    limit: usize,
    open: AtomicUsize,
}

impl Capacity {
    /// A limit of so many connections.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, open: AtomicUsize::new(0) })
    }

    /// As many as so many file descriptors carry: two for each connection (the other one goes upstream), after a reserve.
    pub fn of_descriptors(nofile: u64) -> Arc<Self> {
        let reserve = RESERVE.min(nofile / 4);
        Self::new(usize::try_from((nofile - reserve) / 2).unwrap_or(usize::MAX))
    }

    /// Connections at a time.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Connections now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The listener's or the process's limit.
    Limit,
    /// The limit of its source.
    Source,
}

/// Connections of one listener, over all workers.
#[derive(Debug, Default)]
pub(super) struct Places {
    open: AtomicUsize,
    sources: Sources,
}

impl Places {
    /// Connections now.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// A connection's place under all limits, free again when dropped. It holds up the drain of the process.
#[derive(Debug)]
pub struct ConnectionGuard {
    listening: Arc<Listening>,
    capacity: Arc<Capacity>,
    source: Option<IpAddr>,
    rests: bool,
    _drain: DrainGuard,
}

impl ConnectionGuard {
    /// A place for one more connection, if there is one; its source is counted by [`Self::count_source`].
    pub(super) fn take(
        listening: &Arc<Listening>,
        capacity: &Arc<Capacity>,
        limits: &Limits,
        drain: DrainGuard,
    ) -> Result<Self, Refused> {
        take(&capacity.open, capacity.limit)?;
        let limit = usize::try_from(limits.connections).unwrap_or(usize::MAX);
        if let Err(refused) = take(&listening.places.open, limit) {
            capacity.open.fetch_sub(1, Ordering::Relaxed);
            return Err(refused);
        }
        listening.metrics.open.add(1);
        Ok(Self { listening: listening.clone(), capacity: capacity.clone(), source: None, rests: false, _drain: drain })
    }

    /// Says whether the connection rests from now on.
    pub(super) fn rests(&mut self, rests: bool) {
        match (std::mem::replace(&mut self.rests, rests), rests) {
            (false, true) => self.listening.metrics.resting.add(1),
            (true, false) => self.listening.metrics.resting.sub(1),
            _ => {}
        }
    }

    /// Counts the connection for its source; `limit` 0: there is no such limit and nothing is counted.
    pub(super) fn count_source(&mut self, source: IpAddr, limit: u32) -> Result<(), Refused> {
        if limit == 0 {
            return Ok(());
        }
        let source = network(source);
        self.listening.places.sources.take(source, limit)?;
        self.source = Some(source);
        Ok(())
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.rests(false);
        if let Some(source) = self.source {
            self.listening.places.sources.give_back(source);
        }
        self.listening.metrics.open.sub(1);
        self.listening.places.open.fetch_sub(1, Ordering::Relaxed);
        self.capacity.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections by source; locked only where a limit is set, and then a part at a time.
#[derive(Debug, Default)]
struct Sources {
    parts: [Mutex<HashMap<IpAddr, u32>>; 16],
    hasher: RandomState,
}

impl Sources {
    fn take(&self, source: IpAddr, limit: u32) -> Result<(), Refused> {
        let mut part = self.part(source);
        let open = part.entry(source).or_default();
        if *open >= limit {
            return Err(Refused::Source);
        }
        *open += 1;
        Ok(())
    }

    fn give_back(&self, source: IpAddr) {
        let mut part = self.part(source);
        if let Some(open) = part.get_mut(&source) {
            *open -= 1;
            if *open == 0 {
                part.remove(&source);
            }
        }
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder of a division by the length")]
    fn part(&self, source: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        let index = self.hasher.hash_one(source) as usize % self.parts.len();
        self.parts[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one more unless `limit` are open.
fn take(open: &AtomicUsize, limit: usize) -> Result<(), Refused> {
    if open.fetch_add(1, Ordering::Relaxed) >= limit {
        open.fetch_sub(1, Ordering::Relaxed);
        return Err(Refused::Limit);
    }
    Ok(())
}

/// What counts as one source: an IPv4 address, or the /64 that an IPv6 host picks its addresses from as it likes.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Drain;
    use crate::listener::testing::listening;

    #[test]
    fn the_limit_of_descriptors_is_raised_to_what_the_system_allows() {
        let nofile = raise_nofile();
        assert!(nofile.now >= nofile.before);
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), nofile.now);
    }

    #[test]
    fn connections_leave_a_reserve_of_descriptors_and_one_for_each_upstream() {
        for (descriptors, connections) in [(20_000, 9936), (1024, 448), (256, 96), (0, 0), (1, 0)] {
            assert_eq!(Capacity::of_descriptors(descriptors).limit(), connections, "{descriptors}");
        }
        assert!(Capacity::of_descriptors(u64::MAX).limit() > 1 << 60);
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_ends() {
        let (_drain, draining) = Drain::new();
        let (listening, capacity) = (listening("a"), Capacity::new(10));
        let limits = Limits { connections: 2, ..Limits::default() };
        let take = || ConnectionGuard::take(&listening, &capacity, &limits, draining.guard());
        let (first, _second) = (take().unwrap(), take().unwrap());
        assert_eq!(take().unwrap_err(), Refused::Limit);
        assert_eq!((listening.places.open(), capacity.open()), (2, 2));
        drop(first);
        assert!(take().is_ok());
        assert_eq!(capacity.open(), 1);
    }

    #[test]
    fn the_process_limit_holds_over_all_listeners() {
        let (drain, draining) = Drain::new();
        let (one, two, capacity) = (listening("a"), listening("b"), Capacity::new(1));
        let limits = Limits::default();
        let kept = ConnectionGuard::take(&one, &capacity, &limits, draining.guard()).unwrap();
        assert!(ConnectionGuard::take(&two, &capacity, &limits, draining.guard()).is_err());
        assert_eq!((two.places.open(), drain.held()), (0, 1));
        drop(kept);
        assert_eq!(drain.held(), 0);
    }

    #[test]
    fn a_source_has_a_limit_of_its_own_and_an_ipv6_source_is_its_network() {
        let (_drain, draining) = Drain::new();
        let (listening, capacity) = (listening("a"), Capacity::new(10));
        let connect = |source: &str| {
            let mut guard = ConnectionGuard::take(&listening, &capacity, &Limits::default(), draining.guard()).unwrap();
            guard.count_source(source.parse().unwrap(), 1).map(|()| guard)
        };
        let first = connect("192.0.2.1").unwrap();
        assert_eq!(connect("192.0.2.1").unwrap_err(), Refused::Source);
        assert!(connect("::ffff:192.0.2.1").is_err(), "the same address, mapped");
        assert!(connect("192.0.2.2").is_ok());
        let _six = connect("2001:db8::1").unwrap();
        assert!(connect("2001:db8::2").is_err());
        assert!(connect("2001:db8:0:1::1").is_ok());
        drop(first);
        assert!(connect("192.0.2.1").is_ok());
        assert_eq!(capacity.open(), 1);
    }
}
