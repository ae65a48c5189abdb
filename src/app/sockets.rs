//! What becomes of the listeners that a snapshot wants: which are open, and when are the others tried again?

use crate::listener::{Bound, Listeners};
use crate::model::{Fragment, Problem};
use crate::snapshot::Shared;
use crate::source::Feed;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A socket that cannot be opened is tried again after this, and after twice as long each further time: another process may leave.
const AGAIN: Duration = Duration::from_millis(250);
/// Trying costs next to nothing, and whoever freed a port waits for it.
const LONGEST: Duration = Duration::from_secs(4);

/// The sockets of all listeners.
#[derive(Debug)]
pub(super) struct Sockets {
    listeners: Listeners,
    bound: watch::Sender<Vec<(String, SocketAddr)>>,
    /// Where problems are told: they are published with all others.
    feed: Feed,
    problems: Vec<Problem>,
    again: Option<Instant>,
    pause: Duration,
}

impl Sockets {
    /// None yet.
    pub(super) fn new(listeners: Listeners, bound: watch::Sender<Vec<(String, SocketAddr)>>, feed: Feed) -> Self {
        Self { listeners, bound, feed, problems: Vec::new(), again: None, pause: AGAIN }
    }

    /// Opens and closes what the snapshot says, and tells what cannot be opened.
    pub(super) fn follow(&mut self, shared: &Shared) {
        let wanted: Vec<_> = shared.load().listeners.iter().map(|l| Arc::clone(&l.spec)).collect();
        let problems = self.listeners.reconcile(&wanted);
        self.pause = if problems == self.problems { (self.pause * 2).min(LONGEST) } else { AGAIN };
        self.again = (!problems.is_empty()).then(|| Instant::now() + self.pause);
        self.feed.deliver(Fragment::default(), problems.clone());
        self.problems = problems;
        let bound = self.bound();
        self.bound.send_replace(bound.iter().map(|b| (b.name.to_string(), b.address)).collect());
    }

    /// Waits until something that could not be opened is to be tried again.
    pub(super) async fn due(&self) {
        match self.again {
            Some(time) => sleep_until(time).await,
            None => std::future::pending().await,
        }
    }

    /// What is open.
    pub(super) fn bound(&self) -> Vec<Bound> {
        self.listeners.bound()
    }

    /// What could not be opened.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }
}
