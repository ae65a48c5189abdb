//! How slowly may a client send its body?
//!
//! Silence alone is no measure: a byte before each time-out would hold an upstream for ever (a slow POST). What counts is the
//! time that we waited for the client, against what it sent; time in which the upstream took nothing is not the client's.

use std::time::Duration;
use tokio::time::Instant;

/// The time that a client has for its body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Bytes a second on average; 0: any.
    rate: u32,
    grace: Duration,
    waited: Duration,
    since: Option<Instant>,
}

impl Pace {
    /// So many bytes a second, and `grace` beside; 0: no limit.
    pub fn new(rate: u32, grace: Duration) -> Self {
        Self { rate, grace, ..Self::default() }
    }

    /// After each look for more of the body: whether there was nothing. True where a wait begins.
    pub fn waits(&mut self, waits: bool) -> bool {
        if self.rate == 0 {
            return false;
        }
        match (waits, self.since) {
            (true, None) => self.since = Some(Instant::now()),
            (false, Some(since)) => {
                self.waited += since.elapsed();
                self.since = None;
            }
            _ => return false,
        }
        waits
    }

    /// Until when more than these bytes must have come; `None`: nothing is waited for.
    pub fn until(&self, bytes: u64) -> Option<Instant> {
        let earned = bytes.checked_div(u64::from(self.rate))?;
        // Beyond a year it is no limit.
        let allowed = self.grace + Duration::from_secs(earned.min(31_536_000));
        Some(self.since? + allowed.saturating_sub(self.waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn the_time_for_a_body_grows_with_what_has_come() {
        let start = Instant::now();
        let mut pace = Pace::new(100, GRACE);
        assert!(pace.until(0).is_none() && pace.waits(true) && !pace.waits(true));
        assert_eq!(pace.until(0), Some(start + GRACE));
        assert_eq!(pace.until(1000), Some(start + GRACE + Duration::from_secs(10)));
        assert!(pace.until(u64::MAX).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_upstream_took_nothing_is_not_the_clients() {
        let mut pace = Pace::new(100, GRACE);
        pace.waits(true);
        tokio::time::advance(Duration::from_secs(20)).await;
        pace.waits(false);
        tokio::time::advance(Duration::from_secs(500)).await;
        assert!(pace.waits(true));
        assert_eq!(pace.until(0), Some(Instant::now() + Duration::from_secs(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_there_is_no_limit() {
        let mut pace = Pace::new(0, GRACE);
        assert!(!pace.waits(true) && pace.until(0).is_none());
    }
}
