//! How often is something written, in all and to one object?

use crate::kubernetes::objects::Key;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// So many writes a second, some more at once after a quiet time.
#[derive(Debug)]
pub(super) struct Pace {
    each: Duration,
    burst: u32,
    /// When the bucket was, or will be, empty of debts.
    free: Option<Instant>,
}

impl Pace {
    /// `rate` a second, at least 1, and up to `burst` at once.
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        Self { each: Duration::from_secs(1) / rate.max(1), burst, free: None }
    }

    /// When the next write may be done; it counts as done.
    pub(super) fn take(&mut self, now: Instant) -> Instant {
        let free = self.free.map_or(now, |free| free.max(now)) + self.each;
        self.free = Some(free);
        let ahead = self.each * self.burst;
        free.checked_sub(ahead).map_or(now, |at| at.max(now))
    }
}

/// What was written to each object, so that a fight with another writer, or an API server that refuses, stays cheap: the same
/// again only after a pause, which doubles each time.
#[derive(Debug)]
pub(super) struct Attempts<T>(BTreeMap<Key, Attempt<T>>);

#[derive(Debug)]
struct Attempt<T> {
    what: T,
    at: Instant,
    pause: Duration,
}

const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(300);

impl<T> Default for Attempts<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: PartialEq> Attempts<T> {
    /// Whether this may be written now.
    pub(super) fn may(&self, key: &Key, what: &T, now: Instant) -> bool {
        self.0.get(key).is_none_or(|last| last.what != *what || now >= last.at + last.pause)
    }

    /// Notes that this is written now.
    pub(super) fn note(&mut self, key: &Key, what: T, now: Instant) {
        let pause = match self.0.get(key) {
            // Calm for long: no fight.
            Some(last) if last.what == what && now < last.at + 4 * last.pause => (2 * last.pause).min(LONGEST),
            _ => FIRST,
        };
        self.0.insert(key.clone(), Attempt { what, at: now, pause });
    }

    /// Forgets objects.
    pub(super) fn retain(&mut self, keep: impl Fn(&Key) -> bool) {
        self.0.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let (mut pace, start) = (Pace::new(20, 10), Instant::now());
        let times: Vec<Instant> = (0..50).map(|_| pace.take(start)).collect();
        assert!(times[..10].iter().all(|at| *at == start));
        assert_eq!(times[49] - start, Duration::from_secs(2));
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.take(later), later, "a debt is forgotten in time");
    }

    #[test]
    fn the_same_again_waits_longer_each_time_and_something_else_does_not() {
        let (mut attempts, mut now) = (Attempts::default(), Instant::now());
        let key = Key::new("shop", "web");
        assert!(attempts.may(&key, &1, now));
        let mut waits = Vec::new();
        for _ in 0..10 {
            attempts.note(&key, 1, now);
            let begun = now;
            while !attempts.may(&key, &1, now) {
                now += Duration::from_secs(1);
            }
            waits.push((now - begun).as_secs());
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        attempts.note(&key, 1, now);
        assert!(attempts.may(&key, &2, now) && !attempts.may(&key, &1, now));
        now += Duration::from_secs(3_600);
        attempts.note(&key, 1, now);
        assert!(attempts.may(&key, &1, now + FIRST), "a fight that is over is forgotten");
    }
}
