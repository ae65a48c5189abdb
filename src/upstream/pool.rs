//! Where do idle connections of one worker wait for the next request?
//!
//! Newest first: the connection used last is the least likely to be closed by its other end, and those that are not needed grow
//! old and are closed. Taking one and giving it back allocates nothing once an endpoint has had as many before.

use super::endpoint::{Endpoint, EndpointId};
use hashbrown::HashMap;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Idle connections of one worker. Not to be shared with another: neither `Send` nor `Sync`.
#[derive(Debug)]
pub struct Pool<C> {
    slots: RefCell<HashMap<EndpointId, Slot<C>>>,
    /// The time of the last sweep: precise enough to age connections, and free to read.
    now: Cell<Instant>,
    worker: PhantomData<Rc<()>>,
}

#[derive(Debug)]
struct Slot<C> {
    endpoint: Arc<Endpoint>,
    /// Oldest first.
    idle: VecDeque<(C, Instant)>,
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self { slots: RefCell::default(), now: Cell::new(Instant::now()), worker: PhantomData }
    }
}

impl<C> Pool<C> {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// The idle connection to this endpoint that was used last. Its other end may have closed it meanwhile.
    pub fn checkout(&self, id: EndpointId) -> Option<C> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(&id)?;
        let (connection, _) = slot.idle.pop_back()?;
        slot.endpoint.idle_taken(1);
        slot.endpoint.ward.meters.reused();
        Some(connection)
    }

    /// Keeps a connection for the next request: for `idle_timeout`, and at most `max_idle` of them (the oldest one is closed). Closes
    /// it at once where the endpoint has left its cluster. Its ages are counted from the last [`Self::sweep`].
    pub fn checkin(&self, endpoint: &Arc<Endpoint>, connection: C, max_idle: u32, idle_timeout: Duration) {
        if max_idle == 0 || endpoint.has_left() {
            return;
        }
        let until = self.now.get() + idle_timeout;
        let mut slots = self.slots.borrow_mut();
        let slot =
            slots.entry(endpoint.id).or_insert_with(|| Slot { endpoint: Arc::clone(endpoint), idle: VecDeque::new() });
        let oldest = if slot.idle.len() >= max_idle as usize { slot.idle.pop_front() } else { None };
        if oldest.is_none() {
            endpoint.idle_added();
        }
        slot.idle.push_back((connection, until));
        drop(slots);
        // Closing may run code of the connection: only after the borrow.
        drop(oldest);
    }

    /// Closes what has been idle too long, what `still_usable` says no to, and what belongs to endpoints that left. To be
    /// called about once a second.
    pub fn sweep(&self, now: Instant, mut still_usable: impl FnMut(&mut C) -> bool) {
        self.now.set(now);
        let mut closed = Vec::new();
        self.slots.borrow_mut().retain(|_, slot| {
            let left = slot.endpoint.has_left();
            let before = closed.len();
            let keep = |(connection, until): &mut (C, Instant)| !left && *until > now && still_usable(connection);
            closed.extend(extract(&mut slot.idle, keep));
            slot.endpoint.idle_taken(u32::try_from(closed.len() - before).unwrap_or(u32::MAX));
            !slot.idle.is_empty() || !left
        });
        drop(closed);
    }

    /// Closes all idle connections to this endpoint.
    pub fn close(&self, id: EndpointId) {
        let slot = self.slots.borrow_mut().remove(&id);
        drop(slot);
    }

    /// Idle connections in this pool.
    pub fn idle(&self) -> usize {
        self.slots.borrow().values().map(|slot| slot.idle.len()).sum()
    }
}

impl<C> Drop for Slot<C> {
    fn drop(&mut self) {
        self.endpoint.idle_taken(u32::try_from(self.idle.len()).unwrap_or(u32::MAX));
    }
}

/// Removes what is not to be kept; the order of the others stays. Allocates only where something goes.
fn extract<T>(queue: &mut VecDeque<T>, mut keep: impl FnMut(&mut T) -> bool) -> Vec<T> {
    let mut gone = Vec::new();
    let mut at = 0;
    while let Some(item) = queue.get_mut(at) {
        if keep(item) {
            at += 1;
        } else {
            gone.extend(queue.remove(at));
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::{cluster, endpoints, members, spec};

    const LONG: Duration = Duration::from_secs(30);

    fn keep(pool: &Pool<u32>, endpoint: &Arc<Endpoint>, connections: &[u32]) {
        connections.iter().for_each(|c| pool.checkin(endpoint, *c, 3, LONG));
    }

    fn drain(pool: &Pool<u32>, endpoint: &Endpoint) -> Vec<u32> {
        std::iter::from_fn(|| pool.checkout(endpoint.id)).collect()
    }

    #[test]
    fn the_newest_connection_is_used_first_and_endpoints_are_apart() {
        let cluster = cluster(&spec(&[1, 1]));
        let all = members(&cluster);
        let pool = Pool::new();
        keep(&pool, &all[0], &[1, 2]);
        keep(&pool, &all[1], &[3]);
        assert_eq!((all[0].idle(), all[1].idle(), pool.idle()), (2, 1, 3));
        assert_eq!((drain(&pool, &all[0]), drain(&pool, &all[1])), (vec![2, 1], vec![3]));
        assert_eq!((all[0].idle(), pool.idle()), (0, 0));
    }

    #[test]
    fn beyond_the_limit_the_oldest_is_closed() {
        let cluster = cluster(&spec(&[1]));
        let all = members(&cluster);
        let pool = Pool::new();
        keep(&pool, &all[0], &[1, 2, 3, 4]);
        assert_eq!(all[0].idle(), 3);
        pool.checkin(&all[0], 9, 0, LONG);
        assert_eq!(drain(&pool, &all[0]), [4, 3, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_expire() {
        let cluster = cluster(&spec(&[1]));
        let all = members(&cluster);
        let pool = Pool::new();
        keep(&pool, &all[0], &[1]);
        tokio::time::advance(LONG / 2).await;
        pool.sweep(Instant::now(), |_| true);
        keep(&pool, &all[0], &[2]);
        tokio::time::advance(LONG / 2).await;
        pool.sweep(Instant::now(), |_| true);
        assert_eq!((all[0].idle(), drain(&pool, &all[0])), (1, vec![2]));
    }

    #[test]
    fn a_sweep_closes_what_is_not_usable() {
        let cluster = cluster(&spec(&[1]));
        let all = members(&cluster);
        let pool = Pool::new();
        keep(&pool, &all[0], &[1, 2, 3]);
        pool.sweep(Instant::now(), |c| *c != 2);
        assert_eq!((all[0].idle(), drain(&pool, &all[0])), (2, vec![3, 1]));
    }

    #[test]
    fn connections_to_an_endpoint_that_left_are_closed() {
        let cluster = cluster(&spec(&[1, 1]));
        let all = members(&cluster);
        let pool = Pool::new();
        keep(&pool, &all[1], &[1, 2]);
        cluster.set_members(&endpoints(&[1]));
        keep(&pool, &all[1], &[3]);
        assert_eq!(all[1].idle(), 2, "one that comes back too late is not kept");
        pool.sweep(Instant::now(), |_| true);
        assert_eq!((all[1].idle(), pool.idle(), Arc::strong_count(&all[1])), (0, 0, 1));
    }

    #[test]
    fn a_dropped_cluster_has_no_idle_connections() {
        let cluster = cluster(&spec(&[1]));
        let all = members(&cluster);
        let pool = Pool::new();
        keep(&pool, &all[0], &[1]);
        drop(cluster);
        pool.sweep(Instant::now(), |_| true);
        assert_eq!((all[0].idle(), pool.idle()), (0, 0));
    }

    #[test]
    fn closing_an_endpoint_and_dropping_the_pool_end_the_count() {
        let cluster = cluster(&spec(&[1, 1]));
        let all = members(&cluster);
        let pool = Pool::new();
        keep(&pool, &all[0], &[1, 2]);
        keep(&pool, &all[1], &[3]);
        pool.close(all[0].id);
        assert_eq!((all[0].idle(), all[1].idle()), (0, 1));
        drop(pool);
        assert_eq!(all[1].idle(), 0);
    }
}
