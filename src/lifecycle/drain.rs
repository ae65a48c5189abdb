//! How does everyone learn that no new work is taken, and when is the last work finished?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The one who starts the drain and waits for its end. Not cloned: the process drains once.
#[derive(Debug)]
pub struct Drain(Arc<State>);

/// The many who watch for it, on any thread.
#[derive(Clone, Debug)]
pub struct Draining(Arc<State>);

/// Work in flight: a connection, an upgrade. The drain waits until all are dropped.
#[derive(Debug)]
pub struct DrainGuard(Arc<State>);

/// A place where work comes in: the accept loop of a socket. A drain is not over before all are closed, because what the kernel has
/// queued there is work too. It is not counted as held.
#[derive(Debug)]
pub struct DoorGuard(Arc<State>);

#[derive(Debug, Default)]
struct State {
    draining: AtomicBool,
    held: AtomicUsize,
    doors: AtomicUsize,
    started: Notify,
    idle: Notify,
}

impl Drain {
    /// A drain that has not started.
    pub fn new() -> (Self, Draining) {
        let state = Arc::new(State::default());
        (Self(Arc::clone(&state)), Draining(state))
    }

    /// Starts it; again does nothing.
    pub fn start(&self) {
        if !self.0.draining.swap(true, Ordering::SeqCst) {
            self.0.started.notify_waiters();
        }
    }

    /// Waits until every door is closed and no guard is held, or until the deadline; says how many guards are held still.
    pub async fn wait(&self, deadline: Instant) -> usize {
        let idle = async {
            loop {
                let notified = self.0.idle.notified();
                // Doors first: what came in at the last moment took its guard before its door closed.
                if self.0.doors.load(Ordering::SeqCst) == 0 && self.held() == 0 {
                    return;
                }
                notified.await;
            }
        };
        let _ = tokio::time::timeout_at(deadline, idle).await;
        self.held()
    }

    /// Guards held now.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::SeqCst)
    }
}

impl Draining {
    /// Whether no new work is to be taken. One relaxed load, fit for every request.
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Waits until the drain starts. Takes a lock shared by all threads when first polled: one for each connection is cheap,
    /// one for each request is not (ask [`Self::is_draining`] there).
    pub async fn started(&self) {
        let notified = self.0.started.notified();
        if !self.0.draining.load(Ordering::SeqCst) {
            notified.await;
        }
    }

    /// Holds the drain up until dropped. For connections, not for requests: the count is shared by all threads.
    pub fn guard(&self) -> DrainGuard {
        self.0.held.fetch_add(1, Ordering::SeqCst);
        DrainGuard(Arc::clone(&self.0))
    }

    /// Holds the drain up until dropped, as a place where work may still come in.
    pub fn door(&self) -> DoorGuard {
        self.0.doors.fetch_add(1, Ordering::SeqCst);
        DoorGuard(Arc::clone(&self.0))
    }
}

impl Drop for DoorGuard {
    fn drop(&mut self) {
        if self.0.doors.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if self.0.held.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn the_drain_ends_when_the_last_guard_is_dropped() {
        let (drain, draining) = Drain::new();
        let guards = (draining.guard(), draining.guard());
        let start = Instant::now();
        let work = async {
            draining.started().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(guards.0);
            tokio::time::sleep(Duration::from_secs(2)).await;
            drop(guards.1);
        };
        drain.start();
        let (held, ()) = tokio::join!(drain.wait(start + Duration::from_secs(60)), work);
        assert_eq!((held, start.elapsed()), (0, Duration::from_secs(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_says_how_many_were_cut() {
        let (drain, draining) = Drain::new();
        let _guards = [draining.guard(), draining.guard()];
        drain.start();
        let start = Instant::now();
        assert_eq!(drain.wait(start + Duration::from_secs(5)).await, 2);
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_open_doors_and_for_what_comes_in_before_they_close() {
        let (drain, draining) = Drain::new();
        let door = draining.door();
        let start = Instant::now();
        let work = async {
            draining.started().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let guard = draining.guard();
            drop(door);
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(guard);
        };
        drain.start();
        let (held, ()) = tokio::join!(drain.wait(start + Duration::from_secs(60)), work);
        assert_eq!((held, start.elapsed()), (0, Duration::from_secs(2)));
    }

    #[tokio::test]
    async fn a_drain_is_seen_by_those_who_ask_before_during_and_after() {
        let (drain, draining) = Drain::new();
        assert!(!draining.is_draining());
        let waiting = draining.clone();
        let (_, ()) = tokio::join!(waiting.started(), async { drain.start() });
        assert!(draining.is_draining());
        draining.started().await;
        drain.start();
    }

    #[test]
    fn a_drain_is_seen_on_other_threads() {
        let (drain, draining) = Drain::new();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let draining = draining.clone();
                let guard = draining.guard();
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(draining.started());
                    drop(guard);
                })
            })
            .collect();
        drain.start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let held = runtime.block_on(drain.wait(Instant::now() + Duration::from_secs(30)));
        assert_eq!(held, 0);
        threads.into_iter().for_each(|t| t.join().unwrap());
    }
}
