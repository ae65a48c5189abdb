//! How does a worker take connections from a socket?
//!
//! The loop accepts until nothing waits, yields now and then so that connections at work get their turn, and outlives every error:
//! without file descriptors it pauses and says so, at most once a second, instead of spinning or giving up. When it stops, what
//! the kernel has queued on the socket is taken first: closing it would reset clients that believe they are connected.

use super::handshake::{Failure, shake};
use super::limits::{ConnectionGuard, Refused};
use super::{Incoming, Listening, Settings, Wiring, proxy_protocol};
use crate::message::Io;
use crate::model::ListenerProtocol;
use crate::tls::ServerNames;
use rustix::io::Errno;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout_at};

/// Connections taken in one go before others get their turn.
const TURN: u32 = 64;

/// One socket of a listener on one worker, and what its connections need.
pub(super) struct Acceptor<S> {
    pub(super) listening: Arc<Listening>,
    pub(super) wiring: Arc<Wiring>,
    pub(super) serve: S,
}

impl<S, F> Acceptor<S>
where
    S: Fn(Incoming) -> F + Clone + 'static,
    F: Future<Output = ()> + 'static,
{
    /// Accepts until `stop` changes (or its sender is gone) or the process drains.
    pub(super) async fn run(self, socket: TcpListener, mut stop: watch::Receiver<bool>) {
        let mut stopped = pin!(async {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = self.wiring.draining.started() => {}
            }
        });
        let (mut failures, mut taken, mut quiet) = (0, 0_u32, Quiet::default());
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stopped => break,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    failures = 0;
                    self.take(stream, peer);
                }
                Err(error) => {
                    self.report(&error, &mut quiet);
                    if let Some(pause) = pause(&error, failures) {
                        failures += 1;
                        sleep(pause).await;
                    }
                }
            }
            taken = taken.wrapping_add(1);
            if taken % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.listening.close();
        self.empty(socket);
    }

    /// Takes what is queued and closes the socket.
    fn empty(&self, socket: TcpListener) {
        let Ok(socket) = socket.into_std() else {
            return;
        };
        while let Ok((stream, peer)) = socket.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                self.take(stream, peer);
            }
        }
    }

    fn take(&self, stream: TcpStream, peer: SocketAddr) {
        let metrics = &self.listening.metrics;
        metrics.accepted.add(1);
        let Some(settings) = (self.wiring.lookup)(&self.listening.name) else {
            metrics.draining.add(1);
            return reset(&stream);
        };
        let limits = &settings.spec.limits;
        let proxied = settings.spec.proxy_protocol_from.iter().any(|network| network.contains(&peer.ip()));
        let drain = self.wiring.draining.guard();
        let guard = ConnectionGuard::take(&self.listening, &self.wiring.capacity, limits, drain);
        // Behind a proxy the source is not known before its header.
        let limit = if proxied { 0 } else { limits.connections_per_source };
        let counted = guard.and_then(|mut guard| guard.count_source(peer.ip(), limit).map(|()| guard));
        let guard = match counted {
            Ok(guard) => guard,
            Err(why) => {
                metrics.refused(why);
                return reset(&stream);
            }
        };
        let local = self.listening.local_of(&stream);
        let new = Fresh { listening: self.listening.clone(), stream, peer, local, guard, settings };
        if !proxied && new.settings.spec.protocol == ListenerProtocol::Http {
            spawn_local((self.serve)(new.cleartext()));
            return;
        }
        let serve = self.serve.clone();
        // Two tasks, so that an idle connection does not carry the memory of its handshake.
        spawn_local(async move {
            if let Some(incoming) = new.establish(proxied).await {
                spawn_local(serve(incoming));
            }
        });
    }

    fn report(&self, error: &io::Error, quiet: &mut Quiet) {
        self.listening.metrics.accept_errors.add(1);
        if let Some(more) = quiet.due(Instant::now()) {
            let hint = match Errno::from_io_error(error) {
                Some(Errno::MFILE) => "raise the limit of open files (ulimit -n, LimitNOFILE)",
                Some(Errno::NFILE) => "raise the system's limit of open files (fs.file-max)",
                _ => "",
            };
            let name = &*self.listening.name;
            tracing::warn!(listener = name, %error, hint, suppressed = more, "cannot accept a connection");
        }
    }
}

/// An accepted connection before anything of it was read.
struct Fresh {
    listening: Arc<Listening>,
    stream: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    guard: ConnectionGuard,
    settings: Settings,
}

/// Why a connection ended before HTTP.
enum Early {
    NoHeader(io::Error),
    Refused(Refused),
    Tls(Failure),
}

impl Fresh {
    fn cleartext(self) -> Incoming {
        Incoming {
            listener: self.listening,
            stream: Io::Tcp(self.stream),
            peer: self.peer,
            local: self.local,
            tls: None,
            alpn_h2: false,
            guard: self.guard,
        }
    }

    /// PROXY header and TLS, both within the handshake timeout.
    async fn establish(mut self, proxied: bool) -> Option<Incoming> {
        let (listening, peer) = (self.listening.clone(), self.peer);
        let deadline = Instant::now() + self.settings.spec.timeouts.handshake;
        let established = async {
            if proxied {
                self.proxy_header(deadline).await?;
            }
            match (&self.settings.spec.protocol, self.settings.tls.clone()) {
                (ListenerProtocol::Http, _) => Ok(self.cleartext()),
                (ListenerProtocol::Https(_), names) => self.secure(&names.unwrap_or_default(), deadline).await,
            }
        };
        match established.await {
            Ok(incoming) => Some(incoming),
            Err(early) => {
                early.report(&listening, peer);
                None
            }
        }
    }

    async fn proxy_header(&mut self, deadline: Instant) -> Result<(), Early> {
        let read = timeout_at(deadline, proxy_protocol::read(&mut self.stream)).await;
        let header = read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(Early::NoHeader)?;
        if let Some(header) = header {
            (self.peer, self.local) = (header.source, header.destination);
        }
        let limit = self.settings.spec.limits.connections_per_source;
        self.guard.count_source(self.peer.ip(), limit).map_err(Early::Refused)
    }

    async fn secure(self, names: &ServerNames, deadline: Instant) -> Result<Incoming, Early> {
        let begun = Instant::now();
        let shaken = timeout_at(deadline, shake(self.stream, self.local.ip(), names)).await;
        let shaken = shaken.unwrap_or(Err(Failure::Timeout)).map_err(Early::Tls)?;
        let metrics = &self.listening.metrics;
        metrics.shaken(shaken.info.version);
        metrics.handshake.observe(begun.elapsed());
        if shaken.resumed {
            metrics.resumed.add(1);
        }
        Ok(Incoming {
            listener: self.listening,
            stream: Io::Tls(Box::new(shaken.stream)),
            peer: self.peer,
            local: self.local,
            tls: Some(Arc::new(shaken.info)),
            alpn_h2: shaken.alpn_h2,
            guard: self.guard,
        })
    }
}

impl Early {
    fn report(&self, listening: &Listening, peer: SocketAddr) {
        let (name, metrics) = (&*listening.name, &listening.metrics);
        match self {
            Self::NoHeader(error) => {
                metrics.proxy_header.add(1);
                tracing::debug!(listener = name, %peer, %error, "no PROXY header from a network that sends them");
            }
            Self::Refused(why) => metrics.refused(*why),
            Self::Tls(failure) => {
                metrics.failed(failure);
                let cause = std::error::Error::source(failure).map(tracing::field::display);
                tracing::debug!(listener = name, %peer, reason = %failure, cause, "TLS handshake failed");
            }
        }
    }
}

/// How long to wait after a failed accept; `None`: go on, the error belonged to one connection that is gone.
fn pause(error: &io::Error, failures: u32) -> Option<Duration> {
    match Errno::from_io_error(error) {
        // accept(2): errors of the new connection itself are passed on and are to be treated like EAGAIN.
        Some(
            Errno::CONNABORTED
            | Errno::INTR
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
            | Errno::PERM,
        ) => None,
        _ => Some(Duration::from_millis((10 << failures.min(4)).min(100))),
    }
}

/// Lets one message a second through and counts the others.
#[derive(Debug, Default)]
struct Quiet {
    last: Option<Instant>,
    suppressed: u64,
}

impl Quiet {
    /// Whether to speak now, and how many messages were kept back since the last one.
    fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + Duration::from_secs(1)) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Closes at once and leaves nothing behind: a reset, no TIME_WAIT.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_descriptors_the_pause_grows_to_a_tenth_of_a_second() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::INVAL] {
            let pauses: Vec<_> = (0..6).map(|failures| pause(&errno.into(), failures).unwrap().as_millis()).collect();
            assert_eq!(pauses, [10, 20, 40, 80, 100, 100], "{errno}");
        }
        assert!(pause(&Errno::MFILE.into(), u32::MAX).is_some());
    }

    #[test]
    fn a_connection_that_died_in_the_queue_costs_no_pause() {
        for errno in [Errno::CONNABORTED, Errno::INTR, Errno::PROTO, Errno::PERM] {
            assert_eq!(pause(&errno.into(), 0), None, "{errno}");
        }
    }

    #[test]
    fn one_message_a_second_is_let_through_and_says_how_many_were_not() {
        let (mut quiet, start) = (Quiet::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let said: Vec<_> = [0, 10, 990, 1000, 1500, 2100].map(|millis| quiet.due(at(millis))).into();
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
