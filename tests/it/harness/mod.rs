//! What do the integration tests stand on?
//!
//! Real peers on both sides of the real program: [`proxy::Proxy`] runs the binary, [`upstream::Upstream`] and [`h2`] play what
//! stands behind it, [`client::Client`] and [`h2`] what stands before it. Everything listens on port 0 of the loopback, and
//! whatever is awaited is awaited with a deadline: [`within`] for one event, [`until`] for a condition.

pub mod certs;
pub mod client;
pub mod frames;
pub mod h2;
pub mod program;
pub mod proxy;
pub mod upstream;
pub mod websocket;
pub mod wire;

use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// Nothing in a test takes this long unless it never comes.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// The outcome of `event`, or a failed test that says what did not come.
#[track_caller]
pub fn within<F: Future>(what: &str, event: F) -> impl Future<Output = F::Output> {
    within_time(DEADLINE, what, event)
}

/// [`within`] for what may take longer without being wrong.
#[track_caller]
pub fn within_time<F: Future>(limit: Duration, what: &str, event: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(limit, event).await {
            Ok(outcome) => outcome,
            Err(_) => panic!("{what}: not within {limit:?} ({place})"),
        }
    }
}

/// Asks until the answer is `Some`, for things that can only be polled; a failed test after the deadline.
#[track_caller]
pub fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?} ({place})");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
