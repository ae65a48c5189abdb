//! Where do the HTTP/2 connections of one worker stand, which many requests use at once?
//!
//! A request takes the first connection with a free stream, so that few are busy and the others grow old and are closed. Where
//! there is none, one request connects and the others wait for it, instead of a connection each.

use super::endpoint::{Endpoint, EndpointId};
use hashbrown::HashMap;
use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The shared connections of one worker; `H` is a handle that opens streams, such as h2's `SendRequest`.
#[derive(Debug)]
pub struct Shared<H> {
    slots: RefCell<HashMap<EndpointId, Slot<H>>>,
    max_streams: u32,
}

#[derive(Debug)]
struct Slot<H> {
    endpoint: Arc<Endpoint>,
    lines: Vec<Line<H>>,
    keep: Keep,
    /// A request that connects for all.
    opening: Option<Rc<Opening>>,
}

/// How many connections without streams are kept, and how long: [`crate::model::ClusterSpec`]'s limits.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Connections without streams, per endpoint and worker.
    pub max_idle: u32,
    /// A connection without streams is closed after this.
    pub idle_timeout: Duration,
}

#[derive(Debug)]
struct Line<H> {
    handle: H,
    usage: Rc<Usage>,
}

#[derive(Debug)]
struct Usage {
    streams: Cell<u32>,
    /// Takes no new streams.
    retired: Cell<bool>,
    /// When the last stream ended.
    since: Cell<Instant>,
}

#[derive(Debug, Default)]
struct Opening {
    done: Notify,
    failed: Cell<bool>,
}

/// Another request tried to connect, and could not.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the connection that this request waited for was not made")]
pub struct OpeningFailed;

/// A connection with one of its streams taken; dropping it gives the stream back.
#[derive(Debug)]
pub struct Lease<H> {
    handle: H,
    usage: Rc<Usage>,
}

impl<H> Deref for Lease<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.handle
    }
}

impl<H> Lease<H> {
    /// The handle, for methods that change it.
    pub fn handle(&mut self) -> &mut H {
        &mut self.handle
    }

    /// The connection takes no new streams; those that it has go on.
    pub fn retire(&self) {
        self.usage.retired.set(true);
    }
}

impl<H> Drop for Lease<H> {
    fn drop(&mut self) {
        self.usage.streams.set(self.usage.streams.get().saturating_sub(1));
        if self.usage.streams.get() == 0 {
            self.usage.since.set(Instant::now());
        }
    }
}

enum Step<H> {
    Use(Lease<H>),
    Open(Rc<Opening>),
    Wait(Rc<Opening>),
}

impl<H: Clone> Shared<H> {
    /// No connections yet; each will carry at most `max_streams` requests at once.
    pub fn new(max_streams: u32) -> Self {
        Self { slots: RefCell::default(), max_streams: max_streams.max(1) }
    }

    /// A stream on a connection to this endpoint: on one that is there and `is_alive`, or on the one that `connect` makes (or
    /// that another request is making). The dead are forgotten.
    pub async fn obtain<E: From<OpeningFailed>>(
        &self,
        endpoint: &Arc<Endpoint>,
        keep: Keep,
        is_alive: impl Fn(&H) -> bool,
        connect: impl AsyncFnOnce() -> Result<H, E>,
    ) -> Result<Lease<H>, E> {
        loop {
            match self.step(endpoint, keep, &is_alive) {
                Step::Use(lease) => return Ok(lease),
                Step::Wait(opening) => {
                    // Nothing runs between the step and this: one thread, no await.
                    opening.done.notified().await;
                    if opening.failed.get() {
                        return Err(OpeningFailed.into());
                    }
                }
                Step::Open(opening) => {
                    let attempt = Attempt { shared: self, id: endpoint.id, keep, opening };
                    return match connect().await {
                        Ok(handle) => Ok(attempt.done(endpoint, handle)),
                        Err(error) => {
                            attempt.opening.failed.set(true);
                            Err(error)
                        }
                    };
                }
            }
        }
    }

    fn step(&self, endpoint: &Arc<Endpoint>, keep: Keep, is_alive: impl Fn(&H) -> bool) -> Step<H> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(endpoint.id).or_insert_with(|| Slot::new(endpoint, keep));
        slot.keep = keep;
        slot.lines.retain(|line| line.is_usable(&is_alive));
        if let Some(line) = slot.lines.iter().find(|line| line.usage.streams.get() < self.max_streams) {
            endpoint.ward.meters.reused();
            return Step::Use(line.lease());
        }
        if let Some(opening) = &slot.opening {
            return Step::Wait(Rc::clone(opening));
        }
        Step::Open(Rc::clone(slot.opening.insert(Rc::default())))
    }

    /// Forgets connections that are dead, that belong to endpoints that left, or that had no stream for too long or beside too
    /// many others without. Those with streams live on until the last one ends.
    pub fn sweep(&self, now: Instant, is_alive: impl Fn(&H) -> bool) {
        self.slots.borrow_mut().retain(|_, slot| {
            let left = slot.endpoint.has_left();
            let (keep, mut idle) = (slot.keep, 0);
            slot.lines.retain(|line| {
                let busy = line.usage.streams.get() > 0;
                idle += u32::from(!busy);
                let kept = busy || (idle <= keep.max_idle && line.usage.since.get() + keep.idle_timeout > now);
                !left && kept && line.is_usable(&is_alive)
            });
            !slot.lines.is_empty() || slot.opening.is_some()
        });
    }

    /// Forgets all connections to this endpoint.
    pub fn close(&self, id: EndpointId) {
        let slot = self.slots.borrow_mut().remove(&id);
        drop(slot);
    }

    /// Connections in here.
    pub fn len(&self) -> usize {
        self.slots.borrow().values().map(|slot| slot.lines.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<H> Slot<H> {
    fn new(endpoint: &Arc<Endpoint>, keep: Keep) -> Self {
        Self { endpoint: Arc::clone(endpoint), lines: Vec::new(), keep, opening: None }
    }
}

impl<H> Line<H> {
    fn is_usable(&self, is_alive: impl Fn(&H) -> bool) -> bool {
        !self.usage.retired.get() && is_alive(&self.handle)
    }
}

impl<H: Clone> Line<H> {
    fn lease(&self) -> Lease<H> {
        self.usage.streams.set(self.usage.streams.get() + 1);
        Lease { handle: self.handle.clone(), usage: Rc::clone(&self.usage) }
    }
}

/// A request that connects for all. Its end wakes those who wait; where its client left, one of them connects next.
struct Attempt<'a, H: Clone> {
    shared: &'a Shared<H>,
    id: EndpointId,
    keep: Keep,
    opening: Rc<Opening>,
}

impl<H: Clone> Attempt<'_, H> {
    fn done(self, endpoint: &Arc<Endpoint>, handle: H) -> Lease<H> {
        let (streams, retired, since) = (Cell::new(0), Cell::new(false), Cell::new(Instant::now()));
        let line = Line { handle, usage: Rc::new(Usage { streams, retired, since }) };
        let lease = line.lease();
        let mut slots = self.shared.slots.borrow_mut();
        slots.entry(self.id).or_insert_with(|| Slot::new(endpoint, self.keep)).lines.push(line);
        lease
    }
}

impl<H: Clone> Drop for Attempt<'_, H> {
    fn drop(&mut self) {
        let mut slots = self.shared.slots.borrow_mut();
        if let Some(slot) = slots.get_mut(&self.id)
            && slot.opening.as_ref().is_some_and(|o| Rc::ptr_eq(o, &self.opening))
        {
            slot.opening = None;
        }
        self.opening.done.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::{cluster, endpoints, members, spec};
    use std::task::{Context, Waker};
    use tokio::sync::oneshot;

    const KEEP: Keep = Keep { max_idle: 1, idle_timeout: Duration::from_secs(30) };

    /// A connection: its number, and whether it lives.
    type Line = (u32, Rc<Cell<bool>>);

    fn line(number: u32) -> Line {
        (number, Rc::new(Cell::new(true)))
    }

    async fn obtain(shared: &Shared<Line>, endpoint: &Arc<Endpoint>, new: u32) -> Lease<Line> {
        let connect = async || Ok::<_, OpeningFailed>(line(new));
        shared.obtain(endpoint, KEEP, |l| l.1.get(), connect).await.unwrap()
    }

    fn begin(future: &mut std::pin::Pin<Box<impl Future>>) -> bool {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn a_connection_is_shared_until_its_streams_are_taken() {
        let cluster = cluster(&spec(&[1]));
        let endpoint = members(&cluster).remove(0);
        let shared = Shared::new(2);
        let one = obtain(&shared, &endpoint, 1).await;
        let two = obtain(&shared, &endpoint, 2).await;
        let three = obtain(&shared, &endpoint, 3).await;
        assert_eq!((one.0, two.0, three.0, shared.len()), (1, 1, 3, 2));
        drop(two);
        assert_eq!(obtain(&shared, &endpoint, 4).await.0, 1);
    }

    #[tokio::test]
    async fn a_dead_connection_is_forgotten() {
        let cluster = cluster(&spec(&[1]));
        let endpoint = members(&cluster).remove(0);
        let shared = Shared::new(10);
        obtain(&shared, &endpoint, 1).await.1.set(false);
        assert_eq!((obtain(&shared, &endpoint, 2).await.0, shared.len()), (2, 1));
    }

    #[tokio::test]
    async fn while_one_request_connects_the_others_wait_for_it() {
        let cluster = cluster(&spec(&[1]));
        let endpoint = members(&cluster).remove(0);
        let shared = Shared::new(10);
        let (ready, made) = oneshot::channel();
        let alive = |l: &Line| l.1.get();
        let mut first = Box::pin(shared.obtain(&endpoint, KEEP, alive, async || made.await.map_err(|_| OpeningFailed)));
        assert!(begin(&mut first));
        let mut second = Box::pin(obtain(&shared, &endpoint, 2));
        assert!(begin(&mut second));
        ready.send(line(1)).unwrap();
        assert_eq!((first.await.unwrap().0, second.await.0), (1, 1));
    }

    #[tokio::test]
    async fn those_who_wait_fail_with_the_one_who_connects() {
        let cluster = cluster(&spec(&[1]));
        let endpoint = members(&cluster).remove(0);
        let shared: Shared<Line> = Shared::new(10);
        let (ready, made) = oneshot::channel::<Line>();
        let alive = |l: &Line| l.1.get();
        let mut first = Box::pin(shared.obtain(&endpoint, KEEP, alive, async || made.await.map_err(|_| OpeningFailed)));
        assert!(begin(&mut first));
        let mut second = Box::pin(shared.obtain(&endpoint, KEEP, alive, async || Ok::<_, OpeningFailed>(line(2))));
        assert!(begin(&mut second));
        drop(ready);
        assert!(first.await.is_err());
        assert!(second.await.is_err());
        assert_eq!(obtain(&shared, &endpoint, 3).await.0, 3);
    }

    #[tokio::test]
    async fn where_the_one_who_connects_leaves_another_connects() {
        let cluster = cluster(&spec(&[1]));
        let endpoint = members(&cluster).remove(0);
        let shared: Shared<Line> = Shared::new(10);
        let never = async || std::future::pending::<Result<Line, OpeningFailed>>().await;
        let mut first = Box::pin(shared.obtain(&endpoint, KEEP, |l| l.1.get(), never));
        assert!(begin(&mut first));
        let mut second = Box::pin(obtain(&shared, &endpoint, 2));
        assert!(begin(&mut second));
        drop(first);
        assert_eq!(second.await.0, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_streams_expires_and_one_with_streams_does_not() {
        let cluster = cluster(&spec(&[1, 1]));
        let all = members(&cluster);
        let shared = Shared::new(10);
        let used = obtain(&shared, &all[0], 1).await;
        drop(obtain(&shared, &all[1], 2).await);
        tokio::time::advance(Duration::from_secs(31)).await;
        shared.sweep(Instant::now(), |l| l.1.get());
        assert_eq!((shared.len(), used.0), (1, 1));
        drop(used);
        shared.sweep(Instant::now(), |l| l.1.get());
        assert_eq!(shared.len(), 1, "idle from the end of its last stream");
    }

    #[tokio::test]
    async fn a_retired_connection_keeps_its_streams_and_gets_no_new_one() {
        let cluster = cluster(&spec(&[1]));
        let endpoint = members(&cluster).remove(0);
        let shared = Shared::new(10);
        let one = obtain(&shared, &endpoint, 1).await;
        one.retire();
        assert_eq!((obtain(&shared, &endpoint, 2).await.0, one.0, shared.len()), (2, 1, 1));
    }

    #[tokio::test]
    async fn of_connections_without_streams_only_so_many_are_kept() {
        let cluster = cluster(&spec(&[1]));
        let endpoint = members(&cluster).remove(0);
        let shared = Shared::new(1);
        let used = (obtain(&shared, &endpoint, 1).await, obtain(&shared, &endpoint, 2).await);
        let busy = obtain(&shared, &endpoint, 3).await;
        drop(used);
        shared.sweep(Instant::now(), |l| l.1.get());
        assert_eq!((shared.len(), busy.0), (2, 3));
    }

    #[tokio::test]
    async fn connections_to_an_endpoint_that_left_are_forgotten() {
        let cluster = cluster(&spec(&[1, 1]));
        let all = members(&cluster);
        let shared = Shared::new(10);
        drop(obtain(&shared, &all[1], 1).await);
        cluster.set_members(&endpoints(&[1]));
        shared.sweep(Instant::now(), |l| l.1.get());
        assert!(shared.is_empty());
        drop(obtain(&shared, &all[0], 2).await);
        shared.close(all[0].id);
        assert!(shared.is_empty());
    }
}
