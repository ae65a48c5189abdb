//! Is the other side of a connection still there when nothing comes from it?

use crate::http1::Deadline;
use h2::{Ping, PingPong};
use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::time::Instant;

/// When bytes came last; set by who reads them.
pub(super) type Heard = Rc<Cell<Instant>>;

/// Asks by a PING after a silence, and says when no answer comes.
pub(super) struct Pulse {
    pings: PingPong,
    heard: Heard,
    silence: Duration,
    patience: Duration,
    timer: Deadline,
    asked: Option<Instant>,
}

impl Pulse {
    /// After `silence` it asks, and waits `patience` for anything.
    pub(super) fn new(pings: PingPong, heard: Heard, silence: Duration, patience: Duration) -> Self {
        Self { pings, heard, silence, patience, timer: Deadline::new(silence), asked: None }
    }

    /// Ready when nobody is there any more. Nothing is asked unless it is `wanted`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, wanted: bool) -> Poll<()> {
        loop {
            ready!(self.timer.poll(cx));
            let heard = self.heard.get();
            if let Some(asked) = self.asked.take()
                && heard < asked
            {
                return Poll::Ready(());
            }
            let now = Instant::now();
            if heard + self.silence > now {
                self.timer.set(heard + self.silence);
            } else if wanted && self.ask() {
                self.asked = Some(now);
                self.timer.set(now + self.patience);
            } else {
                self.timer.set(now + self.silence);
            }
        }
    }

    /// The answer to the last one is taken first: any bytes are an answer, so that nobody waits for it.
    fn ask(&mut self) -> bool {
        let _ = self.pings.poll_pong(&mut Context::from_waker(Waker::noop()));
        self.pings.send_ping(Ping::opaque()).is_ok()
    }
}
