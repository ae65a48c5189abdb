//! What does the outside ask of the process?

use std::io;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: drain and end.
    Terminate,
    /// SIGINT: the same, asked for at a terminal; a second one ends at once.
    Interrupt,
    /// SIGHUP: read files again, open logs anew.
    Reload,
}

/// The signals since this was made. Make it once, early: those between two listeners would be lost.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    reload: Stream,
}

impl Signals {
    /// Listens from now on; needs a runtime with I/O.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// The next one. Dropping the future loses none.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.reload.recv() => Signal::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Number, getpid, kill_process};

    #[tokio::test]
    async fn each_signal_is_heard_as_what_it_asks_for() {
        let mut signals = Signals::listen().unwrap();
        for (number, asked) in
            [(Number::HUP, Signal::Reload), (Number::TERM, Signal::Terminate), (Number::INT, Signal::Interrupt)]
        {
            kill_process(getpid(), number).unwrap();
            assert_eq!(signals.next().await, asked);
        }
    }
}
