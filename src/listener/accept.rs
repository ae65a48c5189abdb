//! How does a worker take connections from a socket?
//!
//! The loop accepts until nothing waits, yields now and then so that connections at work get their turn, and outlives every error:
//! without file descriptors it pauses and says so, at most once a second, instead of spinning or giving up. When it stops, what
//! the kernel has queued on the socket is taken first: closing it would reset clients that believe they are connected.

use super::handshake::{Failure, shake};
use super::limits::{ConnectionGuard, Refused};
use super::{Incoming, Listening, Settings, Wiring, proxy_protocol, socket};
use crate::message::Io;
use crate::model::ListenerProtocol;
use crate::tls::ServerNames;
use rustix::io::Errno;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout_at};

/// Connections taken in one go before others get their turn.
const TURN: u32 = 64;

/// A TCP handshake that began takes no longer, unless a packet was lost.
const HANDSHAKE: Duration = Duration::from_millis(300);

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
        if self.wiring.share_ports || self.listening.inherited.load(Ordering::Relaxed) {
            self.hand_over(&socket).await;
        }
        self.empty(socket);
    }

    /// Leaves new connections to the other gate of the port, or to the listener that has the address now, and takes those whose
    /// handshake is on its way.
    async fn hand_over(&self, socket: &TcpListener) {
        if let Err(error) = socket::turn_away(socket) {
            tracing::warn!(%error, listener = %self.listening.name, "connections may be reset while another takes over");
            return;
        }
        let end = Instant::now() + HANDSHAKE;
        while let Ok(Ok((stream, peer))) = timeout_at(end, socket.accept()).await {
            self.take(stream, peer);
        }
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
        let Some(settings) = (self.wiring.lookup)(&self.listening.name, self.listening.address) else {
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
    use super::super::testing::{Gate, on_worker, plain};
    use super::*;
    use crate::model::ListenerSpec;
    use crate::telemetry::families;
    use std::io::ErrorKind;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn limited(connections: u32, connections_per_source: u32) -> ListenerSpec {
        let mut spec = plain("a");
        (spec.limits.connections, spec.limits.connections_per_source) = (connections, connections_per_source);
        spec
    }

    fn behind_proxy(mut spec: ListenerSpec, from: &str) -> ListenerSpec {
        spec.proxy_protocol_from = vec![from.parse().unwrap()];
        spec
    }

    fn refused(gate: &Gate, reason: &str) -> u64 {
        gate.counter(&families::CONNECTIONS_REFUSED, &[("listener", "a"), ("reason", reason)]).get()
    }

    /// Whether the connection was ended by the other side, one way or the other.
    async fn is_cut(mut client: TcpStream) -> bool {
        match client.read(&mut [0; 64]).await {
            Ok(length) => length == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    #[test]
    fn a_connection_arrives_with_both_its_addresses_and_its_bytes() {
        on_worker(async {
            let mut gate = Gate::open(2, [plain("a")]);
            let mut client = gate.connect("a").await;
            client.write_all(b"hello").await.unwrap();
            let mut incoming = gate.next().await;
            assert_eq!(incoming.peer, client.local_addr().unwrap());
            assert_eq!((incoming.local, incoming.local), (gate.address("a"), client.peer_addr().unwrap()));
            assert!(incoming.tls.is_none() && !incoming.alpn_h2 && !incoming.stream.is_tls());
            let mut bytes = [0; 5];
            incoming.stream.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"hello");
            assert_eq!(gate.counter(&families::CONNECTIONS, &[("listener", "a")]).get(), 1);
        });
    }

    #[test]
    fn beyond_its_limit_a_listener_refuses_at_once_and_counts() {
        on_worker(async {
            let mut gate = Gate::open(2, [limited(1, 0)]);
            let _client = gate.connect("a").await;
            let first = gate.next().await;
            assert!(is_cut(gate.connect("a").await).await);
            gate.until(|gate| refused(gate, "limit") == 1).await;
            drop(first);
            let _client = gate.connect("a").await;
            gate.next().await;
        });
    }

    #[test]
    fn a_limit_holds_from_its_change_on_without_a_new_socket() {
        on_worker(async {
            let mut gate = Gate::open(1, [plain("a")]);
            gate.set(Arc::new(limited(10, 1)), None);
            let _client = gate.connect("a").await;
            let _first = gate.next().await;
            assert!(is_cut(gate.connect("a").await).await);
            gate.until(|gate| refused(gate, "source_limit") == 1).await;
        });
    }

    #[test]
    fn a_trusted_proxy_says_who_the_client_is_and_the_client_is_counted() {
        on_worker(async {
            let mut gate = Gate::open(1, [behind_proxy(limited(10, 1), "127.0.0.0/8")]);
            let header = |client: &str| format!("PROXY TCP4 {client} 198.51.100.1 4000 443\r\nGET");
            let mut one = gate.connect("a").await;
            one.write_all(header("192.0.2.1").as_bytes()).await.unwrap();
            let mut first = gate.next().await;
            assert_eq!(first.peer, "192.0.2.1:4000".parse().unwrap());
            assert_eq!(first.local, "198.51.100.1:443".parse().unwrap());
            let mut rest = [0; 3];
            first.stream.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"GET");
            let mut two = gate.connect("a").await;
            two.write_all(header("192.0.2.2").as_bytes()).await.unwrap();
            let _second = gate.next().await;
            let mut again = gate.connect("a").await;
            again.write_all(header("192.0.2.1").as_bytes()).await.unwrap();
            assert!(is_cut(again).await);
            gate.until(|gate| refused(gate, "source_limit") == 1).await;
        });
    }

    #[test]
    fn what_a_trusted_proxy_sends_instead_of_a_header_ends_the_connection() {
        on_worker(async {
            let gate = Gate::open(1, [behind_proxy(plain("a"), "127.0.0.0/8")]);
            let mut client = gate.connect("a").await;
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            assert!(is_cut(client).await);
            gate.until(|gate| refused(gate, "proxy_header") == 1).await;
        });
    }

    #[test]
    fn a_header_of_an_untrusted_client_is_left_for_http_to_refuse() {
        on_worker(async {
            let mut gate = Gate::open(1, [behind_proxy(plain("a"), "192.0.2.0/24")]);
            let mut client = gate.connect("a").await;
            client.write_all(b"PROXY").await.unwrap();
            let mut incoming = gate.next().await;
            assert_eq!(incoming.peer, client.local_addr().unwrap());
            assert_eq!(incoming.stream.read_u8().await.unwrap(), b'P');
        });
    }

    #[test]
    fn a_header_that_does_not_come_in_time_ends_the_connection() {
        on_worker(async {
            tokio::time::pause();
            let gate = Gate::open(1, [behind_proxy(plain("a"), "127.0.0.0/8")]);
            let mut client = gate.connect("a").await;
            client.write_all(b"PROXY TCP4 ").await.unwrap();
            let begun = Instant::now();
            assert!(is_cut(client).await);
            assert!(begun.elapsed() >= Duration::from_secs(10));
            gate.until(|gate| refused(gate, "proxy_header") == 1).await;
        });
    }

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
