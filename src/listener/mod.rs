//! How do bytes get in: sockets, accept, PROXY header, TLS handshake, connection?
//!
//! ```text
//! control thread: Listeners::reconcile(wanted) -> sockets, one for each worker -> Inbox
//! worker:         run(inbox, serve): accept -> limits -> PROXY header -> TLS by server name -> serve(Incoming)
//! ```
//! What a listener allows and which certificates it serves is looked up for each connection, so that a change of settings
//! touches no socket.

mod accept;
pub mod connection;
mod handshake;
pub mod limits;
mod metrics;
pub mod proxy_protocol;
mod reconcile;
mod resting;
mod socket;
#[cfg(test)]
mod testing;
mod waiting;

use crate::lifecycle::{DoorGuard, Drain, Draining};
use crate::message::{Io, TlsInfo};
use crate::model::ListenerSpec;
use crate::telemetry::Registry;
use crate::tls::ServerNames;
use accept::Acceptor;
use limits::Places;
use metrics::ListenerMetrics;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use limits::{Capacity, ConnectionGuard};
pub use reconcile::{Bound, Listeners};
pub use resting::Resting;

/// A connection that is ready for HTTP.
#[derive(Debug)]
pub struct Incoming {
    /// Where it came in.
    pub listener: Arc<Listening>,
    /// Its bytes, decrypted.
    pub stream: Io,
    /// The client as the socket or a trusted PROXY header says.
    pub peer: SocketAddr,
    /// Our end, likewise.
    pub local: SocketAddr,
    /// TLS; `None`: cleartext.
    pub tls: Option<Arc<TlsInfo>>,
    /// ALPN chose h2. In cleartext HTTP/2 begins with its preface and this is false.
    pub alpn_h2: bool,
    /// Its place under the limits, free again when dropped; it holds up the drain of the process.
    pub guard: ConnectionGuard,
}

/// What holds for connections of a listener now.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Protocol, limits, timeouts.
    pub spec: Arc<ListenerSpec>,
    /// Certificates, where it speaks TLS.
    pub tls: Option<Arc<ServerNames>>,
}

/// The current settings of what serves at a socket, by the name it was opened for and its address; `None`: there is nothing any
/// more, connections are closed.
pub type Lookup = Arc<dyn Fn(&str, SocketAddr) -> Option<Settings> + Send + Sync>;

/// What all listeners share.
#[derive(Clone)]
pub struct Wiring {
    /// Current settings.
    pub lookup: Lookup,
    /// Whether a second process of the same user may listen on the same ports, instead of being an error.
    pub share_ports: bool,
    /// Limit of the process.
    pub capacity: Arc<Capacity>,
    /// When to stop accepting, and what connections hold up.
    pub draining: Draining,
    /// Where connections are counted.
    pub registry: Registry,
}

impl fmt::Debug for Wiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wiring").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// A listener that is bound, shared by its sockets and connections.
#[derive(Debug)]
pub struct Listening {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Where it is bound, the port chosen.
    pub address: SocketAddr,
    /// Starts when it is removed, and when the process drains: connections at rest end at once.
    drain: Drain,
    /// For its connections.
    pub draining: Draining,
    /// Another listener has its address by now.
    inherited: AtomicBool,
    places: Places,
    metrics: ListenerMetrics,
}

impl Listening {
    fn new(name: &str, address: SocketAddr, registry: &Registry) -> Arc<Self> {
        let (drain, draining) = Drain::new();
        Arc::new(Self {
            name: name.into(),
            address,
            drain,
            draining,
            inherited: AtomicBool::new(false),
            places: Places::default(),
            metrics: ListenerMetrics::new(registry, name),
        })
    }

    /// Whether it was removed or is draining: connections end after the request in flight. One relaxed load.
    pub fn is_closed(&self) -> bool {
        self.draining.is_draining()
    }

    /// Connections now, over all workers.
    pub fn open(&self) -> usize {
        self.places.open()
    }

    fn close(&self) {
        self.drain.start();
    }

    /// Our end of an accepted connection: a system call only where the address is a wildcard.
    fn local_of(&self, stream: &TcpStream) -> SocketAddr {
        if !self.address.ip().is_unspecified() {
            return self.address;
        }
        stream.local_addr().unwrap_or(self.address)
    }
}

/// Sockets that the control thread sends to one worker.
#[derive(Debug)]
pub struct Inbox(mpsc::UnboundedReceiver<Opened>);

/// One socket for one worker.
#[derive(Debug)]
struct Opened {
    listening: Arc<Listening>,
    wiring: Arc<Wiring>,
    socket: std::net::TcpListener,
    /// A drain waits until the socket is closed, from here on: it may start before the worker has taken this up.
    door: DoorGuard,
    stop: watch::Receiver<bool>,
}

/// One worker's accept loops, until [`Listeners`] is dropped and all its sockets are closed. Runs within a `LocalSet`; `serve` is
/// called for each connection and its future spawned there, `drain` when a listener drains.
pub async fn run<S, F>(mut inbox: Inbox, serve: S, drain: impl Fn() + Clone + 'static)
where
    S: Fn(Incoming) -> F + Clone + 'static,
    F: Future<Output = ()> + 'static,
{
    let mut loops = JoinSet::new();
    while let Some(Opened { listening, wiring, socket, door, stop }) = inbox.0.recv().await {
        while loops.try_join_next().is_some() {}
        match TcpListener::from_std(socket) {
            Ok(socket) => {
                let (draining, drain) = (listening.draining.clone(), drain.clone());
                loops.spawn_local(async move {
                    draining.started().await;
                    drain();
                });
                let acceptor = Acceptor { listening, wiring, serve: serve.clone() };
                loops.spawn_local(async move {
                    acceptor.run(socket, stop).await;
                    drop(door);
                });
            }
            Err(error) => tracing::error!(listener = &*listening.name, %error, "cannot watch a listening socket"),
        }
    }
    while loops.join_next().await.is_some() {}
}
