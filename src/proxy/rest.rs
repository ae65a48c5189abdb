//! When does a connection that waits for its next request give back memory?
//!
//! In two steps. What requests need goes after two short rounds: a client that asks again at once keeps it, so that a steady
//! connection allocates nothing. The rest of it, its task included, goes a quarter of a second later, to whoever watches over sockets
//! at rest. A round costs a look at each connection that worked lately, nothing for the others.

use super::worker::Connection;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

/// Longer than a busy client takes for its next request on a near network.
const ROUND: Duration = Duration::from_millis(20);

/// To rest and to wake up again takes a handful of system calls, which is little where it is done a few times a second at the most.
const DOZE: Duration = Duration::from_millis(250);

/// So many go to rest in a round, that those at work do not wait for them; and more than come in, or their memory would pile up.
const AT_ONCE: usize = 128;

/// What a connection does just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Doing {
    /// It serves a request, or begins.
    #[default]
    Works,
    /// It waits for a request and has all that one needs.
    Waits,
    /// It waits and has little more than its task.
    Dozes,
    /// The same, and it keeps the task.
    Stays,
}

/// The rest of one connection.
#[derive(Debug, Default)]
pub struct Rest {
    doing: Cell<Doing>,
    seen: Cell<bool>,
    due: Cell<bool>,
    among_working: Cell<bool>,
    among_dozing: Cell<bool>,
}

impl Rest {
    /// Says what it does from now on.
    pub fn does(&self, doing: Doing) {
        self.doing.set(doing);
        self.seen.set(false);
        self.due.set(false);
    }

    /// Whether it has waited long enough for the next step.
    pub fn is_due(&self) -> bool {
        self.due.get()
    }

    /// One round: whether it waited already in the round before.
    fn pass(&self) -> bool {
        let due = self.doing.get() == Doing::Waits && self.seen.replace(true);
        self.due.set(due || self.due.get());
        due
    }
}

/// What is to be known of a connection that rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Requests so far.
    pub served: u32,
    /// When it has rested too long.
    pub until: Instant,
}

type Listed = (Weak<Connection>, Waker);

/// The connections of one worker that work, or did lately.
#[derive(Debug, Default)]
pub struct AtWork {
    working: RefCell<Vec<Listed>>,
    /// Those that began to doze first stand first, with the time when they may rest.
    dozing: RefCell<VecDeque<(Instant, Listed)>>,
    some: Notify,
}

impl AtWork {
    /// A connection takes up work; `waker` is its task's.
    pub fn works(&self, connection: &Rc<Connection>, waker: &Waker) {
        if !connection.rest.among_working.replace(true) {
            self.working.borrow_mut().push((Rc::downgrade(connection), waker.clone()));
            self.some.notify_one();
        }
    }

    /// A connection is about to doze: rounds and a drain must find it.
    pub fn dozes(&self, connection: &Rc<Connection>, waker: &Waker) {
        if !connection.rest.among_dozing.get() {
            self.works(connection, waker);
        }
    }

    /// Wakes those whose listener drains: they look for that whenever they wait.
    pub fn drain(&self) {
        let wake = |(connection, waker): &Listed| {
            if connection.upgrade().is_some_and(|connection| connection.is_draining()) {
                waker.wake_by_ref();
            }
        };
        self.working.borrow().iter().for_each(wake);
        self.dozing.borrow().iter().for_each(|(_, listed)| wake(listed));
    }

    /// Sends to rest, until the thread ends.
    pub async fn run(&self) {
        loop {
            self.turn().await;
            self.round();
            self.send_to_rest();
        }
    }

    /// Until it is time for a round.
    async fn turn(&self) {
        if self.working.borrow().is_empty() {
            let next = self.dozing.borrow().front().map(|(at, _)| *at);
            let doze = async { sleep_until(next.unwrap_or_else(Instant::now)).await };
            tokio::select! {
                () = self.some.notified() => {}
                () = doze, if next.is_some() => {}
            }
        }
        sleep(ROUND).await;
    }

    /// Looks at all who work: who has waited begins to doze, who stays is forgotten until it works again.
    fn round(&self) {
        let mut working = self.working.borrow_mut();
        working.retain(|listed| {
            let (weak, waker) = listed;
            let Some(connection) = weak.upgrade() else { return false };
            let rest = &connection.rest;
            let due = rest.pass();
            if due {
                waker.wake_by_ref();
            } else if matches!(rest.doing.get(), Doing::Works | Doing::Waits) {
                return true;
            }
            rest.among_working.set(false);
            if rest.doing.get() != Doing::Stays && !rest.among_dozing.replace(true) {
                self.doze(listed.clone());
            }
            false
        });
        if working.is_empty() && working.capacity() > AT_ONCE {
            *working = Vec::new();
        }
    }

    fn doze(&self, listed: Listed) {
        self.dozing.borrow_mut().push_back((Instant::now() + DOZE, listed));
    }

    fn send_to_rest(&self) {
        let now = Instant::now();
        for _ in 0..AT_ONCE {
            let next = self.dozing.borrow_mut().pop_front_if(|(at, _)| *at <= now);
            let Some((_, listed)) = next else { break };
            let Some(connection) = listed.0.upgrade() else { continue };
            let rest = &connection.rest;
            match rest.doing.get() {
                // It worked meanwhile, or has a task for good.
                _ if rest.among_working.get() => rest.among_dozing.set(false),
                Doing::Stays => rest.among_dozing.set(false),
                Doing::Dozes => {
                    rest.among_dozing.set(false);
                    rest.due.set(true);
                    listed.1.wake();
                }
                // Its task has not run since it was woken.
                Doing::Works | Doing::Waits => self.doze(listed),
            }
        }
        let mut dozing = self.dozing.borrow_mut();
        if dozing.is_empty() && dozing.capacity() > AT_ONCE {
            *dozing = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_waited_for_a_whole_round_is_to_rest() {
        let rest = Rest::default();
        let pass = || rest.pass();
        assert!(!pass() && !pass(), "at work");
        rest.does(Doing::Waits);
        assert!(!pass());
        rest.does(Doing::Works);
        rest.does(Doing::Waits);
        assert!(!pass(), "it worked meanwhile");
        assert!(pass() && rest.is_due());
        rest.does(Doing::Works);
        assert!(!rest.is_due());
    }
}
