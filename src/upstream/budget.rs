//! How many retries can a cluster bear?
//!
//! Retries may be a share of the requests of the last ten seconds, so that an upstream in trouble meets a fifth more requests and
//! not a multiple; three a second are always allowed, so that a quiet cluster can retry at all. A request costs one relaxed
//! addition; the clock is read at every 64th of them and at retries.

use super::outlier::Ward;
use crate::telemetry::families;
use crate::telemetry::metrics::Counter;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Seconds that are looked back on.
const WINDOW: u64 = 10;
/// Retries that are allowed in each second.
const ALWAYS: u64 = 3;
/// Requests between two looks at the clock.
const BATCH: u64 = 64;

/// Counts requests and decides on retries.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u64,
    ward: Arc<Ward>,
    requests: AtomicU64,
    window: Mutex<Window>,
    denied: OnceLock<Counter>,
}

#[derive(Debug, Default)]
struct Window {
    /// Empty until someone looks: a cluster that meets few requests needs none.
    seconds: Box<[Second]>,
    /// Requests that were already put into a second.
    counted: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    /// Which second this is.
    at: u64,
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    pub(crate) fn new(percent: u32, ward: Arc<Ward>) -> Self {
        let (requests, window, denied) = Default::default();
        Self { percent: u64::from(percent), ward, requests, window, denied }
    }

    /// A request came; its retries are not counted here.
    pub fn on_request(&self) {
        let before = self.requests.fetch_add(1, Relaxed);
        if before % BATCH == BATCH - 1
            && let Ok(mut window) = self.window.try_lock()
        {
            window.turn(self.second(), before + 1);
        }
    }

    /// Whether one more retry is allowed; if so, it counts.
    pub fn try_retry(&self) -> bool {
        let now = self.second();
        let mut window = self.lock();
        let second = window.turn(now, self.requests.load(Relaxed));
        let allowed = second.is_some_and(|s| s.retries < ALWAYS) || window.share(now, self.percent);
        if allowed && let Some(second) = window.at(now) {
            second.retries += 1;
        }
        drop(window);
        if allowed {
            self.ward.meters.retried();
        } else {
            let denied = || self.ward.meters.rare(&families::UPSTREAM_RETRIES_DENIED, None);
            self.denied.get_or_init(denied).add(1);
        }
        allowed
    }

    fn second(&self) -> u64 {
        self.ward.now() / 1000
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    /// Begins the second `now` where it has not begun, and puts the requests that came since the last look into it.
    fn turn(&mut self, now: u64, requests: u64) -> Option<&mut Second> {
        let new = requests.saturating_sub(self.counted);
        self.counted = self.counted.max(requests);
        let second = self.at(now)?;
        if second.at != now {
            *second = Second { at: now, ..Second::default() };
        }
        second.requests += new;
        Some(second)
    }

    fn at(&mut self, now: u64) -> Option<&mut Second> {
        if self.seconds.is_empty() {
            self.seconds = Box::new([Second::default(); WINDOW as usize]);
        }
        self.seconds.get_mut(usize::try_from(now % WINDOW).unwrap_or(0))
    }

    /// Whether retries are below their share of the requests in the window.
    fn share(&self, now: u64, percent: u64) -> bool {
        let recent = self.seconds.iter().filter(|s| s.at + WINDOW > now);
        let (requests, retries) = recent.fold((0, 0), |sum, s| (sum.0 + s.requests, sum.1 + s.retries));
        (retries + 1) * 100 <= requests * percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::{cluster, spec};
    use std::time::Duration;
    use tokio::time::advance;

    /// How many retries of so many tries are allowed now.
    fn allowed(budget: &RetryBudget, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(budget.try_retry())).sum()
    }

    fn requests(budget: &RetryBudget, requests: u32) {
        (0..requests).for_each(|_| budget.on_request());
    }

    #[tokio::test(start_paused = true)]
    async fn three_retries_a_second_are_always_allowed() {
        let cluster = cluster(&spec(&[1]));
        for _ in 0..15 {
            assert_eq!(allowed(cluster.budget(), 10), 3);
            advance(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fifth_of_recent_requests_may_be_retried() {
        let cluster = cluster(&spec(&[1]));
        requests(cluster.budget(), 1000);
        assert_eq!(allowed(cluster.budget(), 1000), 200);
        advance(Duration::from_secs(5)).await;
        requests(cluster.budget(), 100);
        assert_eq!(allowed(cluster.budget(), 1000), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_long_ago_allow_nothing() {
        let cluster = cluster(&spec(&[1]));
        for _ in 0..100 {
            requests(cluster.budget(), 1000);
            advance(Duration::from_secs(1)).await;
        }
        assert!((1_700..=2_000).contains(&allowed(cluster.budget(), 10_000)));
        advance(Duration::from_secs(11)).await;
        assert_eq!(allowed(cluster.budget(), 10_000), 3);
    }
}
