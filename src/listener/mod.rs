//! How do bytes get in: sockets, accept, PROXY header, TLS handshake, connection?
//!
//! ```text
//! control thread: Listeners::reconcile(wanted) -> sockets, one per worker -> Inbox
//! worker:         run(inbox, serve): accept -> limits -> PROXY header -> TLS by server name -> serve(Incoming)
//! ```
//! What a listener allows and which certificates it serves is looked up for each connection, so that a change of settings
//! touches no socket.

pub mod limits;

use crate::message::{Io, TlsInfo};
use crate::model::{ListenerSpec, Problem};
use crate::tls::ServerNames;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use limits::{Capacity, ConnectionGuard};

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
    /// Its place under the limits, free again when dropped.
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

/// The current settings of the listener of this name; `None`: there is none any more, connections are closed.
pub type Lookup = Arc<dyn Fn(&str) -> Option<Settings> + Send + Sync>;

/// A listener that is bound, shared by its sockets and connections.
#[derive(Debug)]
pub struct Listening {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Where it is bound, the port chosen.
    pub address: SocketAddr,
    closed: AtomicBool,
}

impl Listening {
    /// Whether it was removed or is draining: connections end with the request in flight.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

/// What is bound, for logs, tests and the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Address, the port chosen.
    pub address: SocketAddr,
}

/// Sockets that the control thread sends to one worker.
#[derive(Debug)]
pub struct Inbox {}

/// The control thread's side: which listeners are bound.
pub struct Listeners {}

impl Listeners {
    /// No listener yet, and the inbox of each of `workers` workers.
    pub fn new(workers: usize, lookup: Lookup, capacity: Arc<Capacity>) -> (Self, Vec<Inbox>) {
        let _ = (lookup, capacity);
        (Self {}, (0..workers).map(|_| Inbox {}).collect())
    }

    /// Binds what is new, closes what is gone, leaves alone what stays (same name and address). A listener that cannot be bound is
    /// a problem of its own; calling again with the same list tries again.
    pub fn reconcile(&mut self, wanted: &[Arc<ListenerSpec>]) -> Vec<Problem> {
        let _ = wanted;
        Vec::new()
    }

    /// What is bound now.
    pub fn bound(&self) -> Vec<Bound> {
        Vec::new()
    }

    /// Stops accepting everywhere, after what the kernel has queued is taken; connections go on.
    pub fn close_all(&mut self) {}
}

/// One worker's accept loops, until [`Listeners`] is dropped and all its sockets are closed. Runs within a `LocalSet`; `serve` is
/// spawned for each connection.
pub async fn run<S, F>(inbox: Inbox, serve: S)
where
    S: Fn(Incoming) -> F + Clone + 'static,
    F: Future<Output = ()> + 'static,
{
    let _ = (inbox, serve);
}
