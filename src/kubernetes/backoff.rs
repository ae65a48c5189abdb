//! How long is waited before the API server is asked again?

use crate::message::random;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const FIRST: Duration = Duration::from_millis(120);
const LONGEST: Duration = Duration::from_secs(20);
/// Where permissions are missing, it takes a person to grant them.
const FIRST_REFUSED: Duration = Duration::from_secs(2);
/// What worked for so long before it failed begins anew. Longer than a connection may take to be refused.
const WORKED: Duration = Duration::from_secs(10);

/// Pauses that double, each drawn between half of itself and itself, so that gates that lost the API server together do not
/// come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    /// When the last pause ended.
    ended: Option<Instant>,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST, ended: None }
    }

    /// It worked: the next pause is short.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// Waits after a failure. A watch that goes on says nothing while nothing happens, so time without a failure counts as success.
    pub(super) async fn wait(&mut self) {
        self.pause(FIRST).await;
    }

    /// Waits after a refusal, which is longer.
    pub(super) async fn wait_refused(&mut self) {
        self.pause(FIRST_REFUSED).await;
    }

    async fn pause(&mut self, least: Duration) {
        if self.ended.is_some_and(|ended| ended.elapsed() > WORKED) {
            self.reset();
        }
        let pause = self.next.max(least);
        self.next = (pause * 2).min(LONGEST);
        sleep(jittered(pause)).await;
        self.ended = Some(Instant::now());
    }
}

/// Between half of this and all of it.
pub(super) fn jittered(duration: Duration) -> Duration {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis / 2 + random::below(millis / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn took(wait: impl Future<Output = ()>) -> Duration {
        let start = Instant::now();
        wait.await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_limit_and_no_two_gates_wait_alike() {
        let mut backoff = Backoff::new();
        let mut most = FIRST;
        for _ in 0..12 {
            let pause = took(backoff.wait()).await;
            assert!(pause >= most / 2 && pause <= most + Duration::from_millis(2), "{pause:?} {most:?}");
            most = (most * 2).min(LONGEST);
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            seen.insert(took(backoff.wait()).await);
        }
        assert!(seen.len() > 10, "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn success_and_time_without_failure_begin_anew() {
        let mut backoff = Backoff::new();
        for _ in 0..12 {
            backoff.wait().await;
        }
        backoff.reset();
        assert!(took(backoff.wait()).await <= FIRST + Duration::from_millis(2));
        for _ in 0..12 {
            backoff.wait().await;
        }
        tokio::time::advance(WORKED + Duration::from_secs(1)).await;
        assert!(took(backoff.wait()).await <= FIRST + Duration::from_millis(2));
        assert!(took(backoff.wait_refused()).await >= FIRST_REFUSED / 2);
    }
}
