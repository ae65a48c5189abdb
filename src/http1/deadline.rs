//! How does a connection watch its time limits with one timer?
//!
//! The limit moves with every step of every request, the timer seldom: it is armed anew only when it fires early or when the
//! limit comes nearer. A steady connection touches the timer wheel about once a minute.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// One time limit that can be moved cheaply.
#[derive(Debug)]
pub struct Deadline {
    at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    /// A limit `after` now.
    pub fn new(after: Duration) -> Self {
        Self::until(Instant::now() + after)
    }

    /// A limit at a certain time.
    pub fn until(at: Instant) -> Self {
        Self { at, timer: Box::pin(sleep_until(at)) }
    }

    /// Moves the limit.
    pub fn set(&mut self, at: Instant) {
        self.at = at;
        if at < self.timer.deadline() {
            self.timer.as_mut().reset(at);
        }
    }

    /// When the limit is.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Ready when the limit has passed; otherwise wakes the task then, or earlier for nothing.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= self.at {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_moved_later_holds_until_then() {
        let start = Instant::now();
        let mut limit = Deadline::new(Duration::from_secs(1));
        limit.set(start + Duration::from_secs(5));
        poll_fn(|cx| limit.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_moved_nearer_holds_at_once() {
        let start = Instant::now();
        let mut limit = Deadline::new(Duration::from_secs(60));
        limit.set(start + Duration::from_secs(2));
        poll_fn(|cx| limit.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 2);
    }
}
