//! When does a connection that waits for its next request give back the memory that requests need?
//!
//! A client that asks again at once keeps it, so that a steady connection allocates nothing; the others lose it within two
//! rounds. A round costs a look at each connection that is at work, not at those that rest.

use super::worker::Connection;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;

/// Longer than a busy client takes for its next request on a near network.
const ROUND: Duration = Duration::from_millis(20);

/// The rest of one connection.
#[derive(Debug, Default)]
pub struct Rest {
    waits: Cell<bool>,
    seen: Cell<bool>,
    due: Cell<bool>,
}

impl Rest {
    /// It waits for a request.
    pub fn waits(&self) {
        self.waits.set(true);
        self.seen.set(false);
    }

    /// It waits no more.
    pub fn works(&self) {
        self.waits.set(false);
        self.due.set(false);
    }

    /// Whether it has waited long enough.
    pub fn is_due(&self) -> bool {
        self.due.get()
    }

    /// One round: whether it waited already in the round before.
    fn pass(&self) -> bool {
        self.due.set(self.waits.get() && self.seen.replace(true));
        self.due.get()
    }
}

/// The connections of one worker that are at work.
#[derive(Debug, Default)]
pub struct AtWork {
    all: RefCell<Vec<(Weak<Connection>, Waker)>>,
    some: Notify,
}

impl AtWork {
    /// A connection takes up work; its own task says so.
    pub async fn begins(&self, connection: &Rc<Connection>) {
        poll_fn(|cx| {
            self.add(connection, cx.waker());
            Poll::Ready(())
        })
        .await;
    }

    /// The same, with what wakes its task.
    pub fn add(&self, connection: &Rc<Connection>, task: &Waker) {
        self.all.borrow_mut().push((Rc::downgrade(connection), task.clone()));
        self.some.notify_one();
    }

    /// Sends to rest, until the thread ends.
    pub async fn run(&self) {
        loop {
            if self.all.borrow().is_empty() {
                self.some.notified().await;
            }
            tokio::time::sleep(ROUND).await;
            self.round();
        }
    }

    fn round(&self) {
        self.all.borrow_mut().retain(|(connection, waker)| {
            let Some(connection) = connection.upgrade() else { return false };
            let due = connection.rest.pass();
            if due {
                waker.wake_by_ref();
            }
            !due
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_waited_for_a_whole_round_is_to_rest() {
        let rest = Rest::default();
        assert!(!rest.pass() && !rest.pass(), "at work");
        rest.waits();
        assert!(!rest.pass());
        rest.works();
        rest.waits();
        assert!(!rest.pass(), "it worked meanwhile");
        assert!(rest.pass() && rest.is_due());
        rest.works();
        assert!(!rest.is_due());
    }
}
