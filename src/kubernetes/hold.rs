//! How soon may the next translation begin?
//!
//! Whatever changes how often, most of the control thread's time is for others. What is owed is counted in CPU time: by the clock, a
//! translation that waits 3 ms for a CPU has the next change wait for 12. Up to 15 were seen, and of the slowest twentieth of the changes
//! under churn that was the largest part.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tokio::time::Instant;

/// A translation owes its own time so many times: publishing takes about as long again, and the control thread has other things to do.
const FACTOR: u32 = 4;
/// So much may be owed before the next one waits. A timer ends with a millisecond, many times what a change costs.
const CREDIT: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(100);

/// What translations owe to the rest of the control thread.
#[derive(Debug, Default)]
pub(super) struct Hold(Option<Instant>);

impl Hold {
    /// Notes a translation that ends now; gives the time until which changes are collected.
    pub(super) fn after(&mut self, took: Duration, now: Instant) -> Instant {
        let owed = self.0.map_or(now, |until| until.max(now)) + (took * FACTOR).min(LONGEST);
        self.0 = Some(owed);
        owed.checked_sub(CREDIT).map_or(now, |until| until.max(now))
    }
}

/// CPU time of this thread.
pub(super) fn spent() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_hundred_changes_a_second_never_wait_nor_do_some_at_once() {
        let (mut hold, start) = (Hold::default(), Instant::now());
        for number in 0..100 {
            let now = start + number * 10 * MS;
            assert_eq!(hold.after(MS / 5, now), now);
            assert_eq!(hold.after(2 * MS, now + MS), now + MS);
        }
    }

    #[test]
    fn translations_without_end_take_a_quarter_of_the_time() {
        for took in [MS / 10, MS, 10 * MS] {
            let (mut hold, start) = (Hold::default(), Instant::now());
            let (mut now, mut all) = (start, Duration::ZERO);
            while now < start + 10_000 * MS {
                now = hold.after(took, now + took);
                all += took;
            }
            let share = all.as_secs_f64() / (now - start).as_secs_f64();
            assert!((0.24..0.26).contains(&share), "{share}");
        }
    }

    #[test]
    fn a_long_one_is_waited_for_a_tenth_of_a_second_at_the_most() {
        let (mut hold, mut now) = (Hold::default(), Instant::now());
        for _ in 0..10 {
            let next = hold.after(1_000 * MS, now);
            assert!(next - now <= LONGEST);
            now = next;
        }
    }
}
