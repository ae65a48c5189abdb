//! What stands behind the proxy in a test, and what did it receive?

use super::wire::{End, Message, Wire};
use super::{until, within};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A listening HTTP/1 upstream that follows a script on each connection.
pub struct Upstream {
    pub address: SocketAddr,
    log: Arc<Log>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Log {
    requests: Mutex<Vec<Message>>,
    /// What each connection received, in the order of acceptance.
    received: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
}

impl Upstream {
    /// Runs `script` on each connection; a connection is closed when its script ends.
    pub async fn start<S, F>(script: S) -> Self
    where
        S: Fn(Peer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen("127.0.0.1:0", None, script).await
    }

    /// The same behind TLS.
    pub async fn start_tls<S, F>(config: Arc<rustls::ServerConfig>, script: S) -> Self
    where
        S: Fn(Peer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen("127.0.0.1:0", Some(TlsAcceptor::from(config)), script).await
    }

    /// The same on an address of the caller's choice.
    pub async fn listen<S, F>(address: &str, tls: Option<TlsAcceptor>, script: S) -> Self
    where
        S: Fn(Peer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind(address).await.unwrap(), tls, script)
    }

    /// The same on a socket that listens already.
    fn on<S, F>(listener: TcpListener, tls: Option<TlsAcceptor>, script: S) -> Self
    where
        S: Fn(Peer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let log = Arc::<Log>::default();
        let script = Arc::new(Mutex::new(script));
        let task = tokio::spawn(accept(listener, tls, log.clone(), script));
        Self { address, log, task }
    }

    /// Answers every request with 200 and this text.
    pub async fn text(text: &str) -> Self {
        Self::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())).await
    }

    /// Answers every request with these bytes and keeps the connection.
    pub async fn raw(reply: impl Into<Vec<u8>>) -> Self {
        let reply: Arc<[u8]> = reply.into().into();
        Self::start(move |mut peer| {
            let reply = reply.clone();
            async move {
                while peer.request().await.is_some() {
                    if peer.try_send(&reply).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Answers every request with these bytes and closes the connection cleanly.
    pub async fn raw_then_close(reply: impl Into<Vec<u8>>) -> Self {
        let reply: Arc<[u8]> = reply.into().into();
        Self::start(move |mut peer| {
            let reply = reply.clone();
            async move {
                if peer.request().await.is_some() {
                    let _ = peer.try_send(&reply).await;
                }
            }
        })
        .await
    }

    /// Answers with the request's body.
    pub async fn echo() -> Self {
        Self::start(|mut peer| async move {
            while let Some(request) = peer.request().await {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len());
                peer.send([head.as_bytes(), &request.body].concat()).await;
            }
        })
        .await
    }

    /// Takes every request and never answers.
    pub async fn hanging() -> Self {
        Self::start(|mut peer| async move {
            while peer.request().await.is_some() {}
            peer.end().await;
        })
        .await
    }

    /// Every request so far, whole ones only.
    pub fn requests(&self) -> Vec<Message> {
        self.log.requests.lock().unwrap().clone()
    }

    /// The only request.
    #[track_caller]
    pub fn request(&self) -> Message {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "requests of the upstream: {requests:?}");
        requests.into_iter().next().unwrap()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.log.received.lock().unwrap().len()
    }

    /// The bytes that one connection received so far, by order of acceptance.
    pub fn received(&self, connection: usize) -> Vec<u8> {
        self.log.received.lock().unwrap()[connection].lock().unwrap().clone()
    }

    /// Waits until there were so many requests.
    pub async fn wait_for_requests(&self, n: usize) -> Vec<Message> {
        until("requests at the upstream", || async { Some(self.requests()).filter(|r| r.len() >= n) }).await
    }

    /// Waits until there were so many connections.
    pub async fn wait_for_connections(&self, n: usize) {
        until("connections at the upstream", || async { (self.connections() >= n).then_some(()) }).await;
    }

    /// Stops listening and drops every connection.
    pub async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

async fn accept<S, F>(listener: TcpListener, tls: Option<TlsAcceptor>, log: Arc<Log>, script: Arc<Mutex<S>>)
where
    S: Fn(Peer) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        while connections.try_join_next().is_some() {}
        let (tls, log, script) = (tls.clone(), log.clone(), script.clone());
        connections.spawn(async move {
            let wire = match tls {
                None => Wire::new(stream),
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => Wire::new(stream),
                    Err(_) => return,
                },
            };
            log.received.lock().unwrap().push(wire.received.clone());
            let run = script.lock().unwrap()(Peer { wire, log });
            run.await;
        });
    }
}

/// One connection, as the script of an upstream sees it.
pub struct Peer {
    wire: Wire,
    log: Arc<Log>,
}

impl Deref for Peer {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Peer {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

impl Peer {
    /// The next request with its body; `None` when the proxy closed the connection, also amid a body.
    pub async fn request(&mut self) -> Option<Message> {
        let head = self.wire.head().await.ok()?;
        let message = self.wire.body(head, false, true).await;
        if message.cut.is_some() {
            return None;
        }
        self.log.requests.lock().unwrap().push(message.clone());
        Some(message)
    }

    /// Tears the connection down.
    pub fn reset(self) {
        self.wire.reset();
    }

    /// Waits for the other end to close, whatever comes before.
    pub async fn closed(mut self) -> End {
        self.wire.rest().await.1
    }
}

/// An address that refuses connections and is nobody else's while this lives: bound, never listening.
pub struct Refusing {
    pub address: SocketAddr,
    socket: socket2::Socket,
}

impl Refusing {
    pub fn bind() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        Self { address: socket.local_addr().unwrap().as_socket().unwrap(), socket }
    }

    /// Begins to answer: the same address, now an upstream with this text.
    pub async fn revive(self, text: &str) -> Upstream {
        // The very socket: an address that is given up for a moment may be another test's by then.
        self.socket.listen(128).unwrap();
        self.socket.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(self.socket.into()).unwrap();
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        Upstream::on(listener, None, move |mut peer| {
            let reply = reply.clone();
            async move {
                while peer.request().await.is_some() {
                    peer.send(&reply).await;
                }
            }
        })
    }
}

/// An address where a connection is never established: the queue of a socket that nobody accepts from is full.
pub struct BlackHole {
    pub address: SocketAddr,
    _socket: socket2::Socket,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    pub async fn dig() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        // A backlog of 0 holds one connection; whatever comes after it waits for ever.
        let queued = vec![within("connecting", TcpStream::connect(address)).await.unwrap()];
        Self { address, _socket: socket, _queued: queued }
    }
}
