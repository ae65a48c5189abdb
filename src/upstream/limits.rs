//! How many requests may be in flight to an endpoint, and who waits for a place?
//!
//! Without a limit (the default) a permit is one relaxed addition and one subtraction. With one, requests beyond it wait in
//! the order they came, over all workers, at most so many and so long; a place that becomes free goes to the first who waits.

use super::cluster::Cluster;
use super::endpoint::Endpoint;
use super::outlier::Ward;
use crate::telemetry::families;
use crate::telemetry::metrics::Counter;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use thiserror::Error;

/// Why a request got no place at an endpoint.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AdmitError {
    /// As many requests wait as may.
    #[error("too many requests wait for a place")]
    QueueFull,
    /// No place became free in time.
    #[error("no place became free in time")]
    Timeout,
}

/// Who waits at the endpoints of a cluster.
#[derive(Debug)]
pub(crate) struct Queue {
    max: u32,
    timeout: Duration,
    waiting: AtomicU32,
    full: OnceLock<Counter>,
    timed_out: OnceLock<Counter>,
}

impl Queue {
    pub(crate) fn new(max: u32, timeout: Duration) -> Self {
        Self { max, timeout, waiting: AtomicU32::new(0), full: OnceLock::new(), timed_out: OnceLock::new() }
    }

    /// Requests that wait, at all endpoints together.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    fn refuse(&self, ward: &Ward, error: AdmitError) -> AdmitError {
        let (cell, reason) = match error {
            AdmitError::QueueFull => (&self.full, "full"),
            AdmitError::Timeout => (&self.timed_out, "timeout"),
        };
        cell.get_or_init(|| ward.meters.rare(&families::UPSTREAM_QUEUE_REFUSALS, Some(("reason", reason)))).add(1);
        error
    }
}

/// A request in flight; dropping it ends the count and gives its place to the next.
#[derive(Debug)]
pub struct Permit {
    endpoint: Arc<Endpoint>,
}

impl Permit {
    /// The caller holds a place, where places are limited.
    fn new(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.enter();
        endpoint.ward.meters.in_flight().add(1);
        Self { endpoint: Arc::clone(endpoint) }
    }

    /// Where the request is in flight.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.endpoint.exit();
        self.endpoint.ward.meters.in_flight().sub(1);
        if let Some(places) = self.endpoint.places() {
            places.add_permits(1);
        }
    }
}

impl Cluster {
    /// A place at this endpoint, if one is free and nobody waits for it.
    pub fn try_admit(&self, endpoint: &Arc<Endpoint>) -> Option<Permit> {
        if let Some(places) = endpoint.places() {
            places.try_acquire().ok()?.forget();
        }
        Some(Permit::new(endpoint))
    }

    /// A place at this endpoint, at once or after waiting for it as long as the cluster's queue allows.
    pub async fn admit(&self, endpoint: &Arc<Endpoint>) -> Result<Permit, AdmitError> {
        match (self.try_admit(endpoint), endpoint.places()) {
            (Some(permit), _) => Ok(permit),
            (None, Some(places)) => {
                let _place = Waiting::begin(&self.queue, endpoint)?;
                match tokio::time::timeout(self.queue.timeout, places.acquire()).await {
                    Ok(Ok(place)) => place.forget(),
                    // The semaphore is never closed, so this is the deadline.
                    _ => return Err(self.queue.refuse(&endpoint.ward, AdmitError::Timeout)),
                }
                Ok(Permit::new(endpoint))
            }
            (None, None) => Ok(Permit::new(endpoint)),
        }
    }
}

/// A request that waits; dropping it (a place, the deadline, a client that left) ends the count.
struct Waiting<'a> {
    queue: &'a Queue,
    endpoint: &'a Endpoint,
}

impl<'a> Waiting<'a> {
    fn begin(queue: &'a Queue, endpoint: &'a Endpoint) -> Result<Self, AdmitError> {
        let room = |waiting| (waiting < queue.max).then_some(waiting + 1);
        if queue.waiting.fetch_update(Relaxed, Relaxed, room).is_err() {
            return Err(queue.refuse(&endpoint.ward, AdmitError::QueueFull));
        }
        endpoint.wait(true);
        endpoint.ward.meters.queued().add(1);
        Ok(Self { queue, endpoint })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Relaxed);
        self.endpoint.wait(false);
        self.endpoint.ward.meters.queued().sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ClusterSpec;
    use crate::upstream::testing::{cluster, members, spec};
    use std::pin::pin;
    use std::task::{Context, Waker};
    use tokio::time::Instant;

    fn limited(max_in_flight: u32, max_queue: u32) -> (Arc<Cluster>, Arc<Endpoint>) {
        let cluster = cluster(&ClusterSpec { max_in_flight, max_queue, ..spec(&[1]) });
        let endpoint = members(&cluster).remove(0);
        (cluster, endpoint)
    }

    #[tokio::test]
    async fn without_a_limit_everyone_is_admitted_and_counted() {
        let (cluster, endpoint) = limited(0, 0);
        let mut permits = Vec::new();
        for _ in 0..100 {
            permits.push(cluster.admit(&endpoint).await.unwrap());
        }
        assert_eq!((endpoint.in_flight(), permits[0].endpoint().id), (100, endpoint.id));
        drop(permits);
        assert_eq!(endpoint.in_flight(), 0);
    }

    #[tokio::test]
    async fn beyond_the_limit_requests_wait_in_the_order_they_came() {
        let (cluster, endpoint) = limited(1, 10);
        let first = cluster.admit(&endpoint).await.unwrap();
        let (mut second, mut third) = (pin!(cluster.admit(&endpoint)), pin!(cluster.admit(&endpoint)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(second.as_mut().poll(&mut cx).is_pending() && third.as_mut().poll(&mut cx).is_pending());
        assert_eq!((endpoint.in_flight(), endpoint.waiting()), (1, 2));
        drop(first);
        assert!(cluster.try_admit(&endpoint).is_none(), "nobody overtakes");
        assert!(third.as_mut().poll(&mut cx).is_pending());
        let second = second.await.unwrap();
        assert_eq!((endpoint.in_flight(), endpoint.waiting()), (1, 1));
        drop(second);
        drop(third.await.unwrap());
        assert_eq!((endpoint.in_flight(), endpoint.waiting(), cluster.describe().waiting), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_refused() {
        let (cluster, endpoint) = limited(1, 10);
        let first = cluster.admit(&endpoint).await.unwrap();
        let start = Instant::now();
        assert_eq!(cluster.admit(&endpoint).await.unwrap_err(), AdmitError::Timeout);
        assert_eq!(start.elapsed().as_secs(), 5);
        drop(first);
        assert!(cluster.try_admit(&endpoint).is_some(), "the place did not go to who left");
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let (cluster, endpoint) = limited(1, 1);
        let first = cluster.admit(&endpoint).await.unwrap();
        let mut second = Box::pin(cluster.admit(&endpoint));
        assert!(second.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(cluster.admit(&endpoint).await.unwrap_err(), AdmitError::QueueFull);
        drop(second);
        assert_eq!(cluster.describe().waiting, 0, "a client that left waits no more");
        drop(first);
        assert!(cluster.admit(&endpoint).await.is_ok());
    }

    #[test]
    fn a_place_that_one_worker_frees_wakes_another() {
        let (cluster, endpoint) = limited(1, 10);
        let first = cluster.try_admit(&endpoint).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                runtime.block_on(cluster.admit(&endpoint)).unwrap();
            });
            while endpoint.waiting() == 0 {
                std::thread::yield_now();
            }
            drop(first);
        });
        assert_eq!(endpoint.in_flight(), 0);
    }
}
