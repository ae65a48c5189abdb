//! Is the process ready for traffic, and if not, what does it wait for?

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Ready when every guard was dropped, until [`Readiness::set_not_ready`]. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    waiting: BTreeMap<u64, String>,
    ended: Option<String>,
}

/// Something that must happen before the process is ready; dropped when it did.
#[derive(Debug)]
pub struct ReadinessGuard {
    readiness: Readiness,
    id: u64,
}

impl Readiness {
    /// Ready at once, until guards are taken.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits for what `name` says, such as `first configuration`. To be taken before the probes are served.
    pub fn guard(&self, name: impl Into<String>) -> ReadinessGuard {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.waiting.insert(id, name.into());
        drop(state);
        self.0.changed.notify_waiters();
        ReadinessGuard { readiness: self.clone(), id }
    }

    /// Not ready any more, for good: the process drains.
    pub fn set_not_ready(&self, why: impl Into<String>) {
        self.lock().ended = Some(why.into());
        self.0.changed.notify_waiters();
    }

    /// Whether it is ready.
    pub fn is_ready(&self) -> bool {
        let state = self.lock();
        state.ended.is_none() && state.waiting.is_empty()
    }

    /// Waits until it is ready, or until it is not; at once where that is so.
    pub async fn becomes(&self, ready: bool) {
        loop {
            let changed = self.0.changed.notified();
            if self.is_ready() == ready {
                return;
            }
            changed.await;
        }
    }

    /// What keeps it from being ready; empty when it is.
    pub fn reasons(&self) -> Vec<String> {
        let state = self.lock();
        let waiting = state.waiting.values().map(|name| format!("waiting for {name}"));
        state.ended.iter().cloned().chain(waiting).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ReadinessGuard {
    fn drop(&mut self) {
        self.readiness.lock().waiting.remove(&self.id);
        self.readiness.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_the_last_guard_is_dropped() {
        let readiness = Readiness::new();
        let (file, tls) = (readiness.guard("file"), readiness.guard("tls"));
        assert_eq!(readiness.reasons(), ["waiting for file", "waiting for tls"]);
        drop(file);
        assert!(!readiness.is_ready());
        drop(tls);
        assert!(readiness.is_ready());
        assert!(readiness.reasons().is_empty());
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_each_change() {
        let readiness = Readiness::new();
        let guard = readiness.guard("file");
        readiness.becomes(false).await;
        tokio::join!(readiness.becomes(true), async { drop(guard) });
        tokio::join!(readiness.becomes(false), async { readiness.set_not_ready("draining") });
    }

    #[test]
    fn it_is_never_ready_again_once_it_drains() {
        let readiness = Readiness::new();
        readiness.set_not_ready("draining");
        drop(readiness.guard("late"));
        assert!(!readiness.is_ready());
        assert_eq!(readiness.reasons(), ["draining"]);
    }
}
