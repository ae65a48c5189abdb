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
        if let Some(places) = &self.endpoint.places {
            places.add_permits(1);
        }
    }
}

impl Cluster {
    /// A place at this endpoint, if one is free and nobody waits for it.
    pub fn try_admit(&self, endpoint: &Arc<Endpoint>) -> Option<Permit> {
        if let Some(places) = &endpoint.places {
            places.try_acquire().ok()?.forget();
        }
        Some(Permit::new(endpoint))
    }

    /// A place at this endpoint, at once or after waiting for it as long as the cluster's queue allows.
    pub async fn admit(&self, endpoint: &Arc<Endpoint>) -> Result<Permit, AdmitError> {
        match (self.try_admit(endpoint), &endpoint.places) {
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
