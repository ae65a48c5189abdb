//! A client of rustls' own, a socket that takes and gives as little as one likes, and the stream between them.

use super::super::{Block, TlsStream};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What stands between the two, seen from the stream.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// On its way to the stream.
    pub(super) up: VecDeque<u8>,
    /// Nothing comes behind that.
    pub(super) ended: bool,
    /// How much of it has arrived.
    pub(super) arrived: usize,
    /// What one read gives at most.
    pub(super) gives: usize,
    pub(super) reads: usize,
    /// What the stream has sent.
    pub(super) down: Vec<u8>,
    /// What the socket takes until it says that it is full.
    pub(super) room: usize,
    pub(super) shut: bool,
}

impl Wire {
    /// One that takes all, and of which all arrives.
    pub(super) fn open() -> Self {
        Self { arrived: usize::MAX, gives: usize::MAX, room: usize::MAX, ..Self::default() }
    }
}

/// The stream's end.
#[derive(Clone, Debug)]
pub(super) struct Near(pub(super) Rc<RefCell<Wire>>);

impl AsyncRead for Near {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        let there = wire.up.len().min(wire.arrived);
        if there == 0 && !(wire.up.is_empty() && wire.ended) {
            return Poll::Pending;
        }
        let n = there.min(to.remaining()).min(wire.gives);
        wire.arrived -= n;
        wire.reads += 1;
        wire.up.drain(..n).for_each(|byte| to.put_slice(&[byte]));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Near {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        assert!(!wire.shut, "nothing is written behind the end");
        let n = bytes.len().min(wire.room);
        if n == 0 {
            return Poll::Pending;
        }
        wire.room -= n;
        wire.down.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().shut = true;
        Poll::Ready(Ok(()))
    }
}

/// Configurations of both sides, by version.
type Configs = (Arc<ClientConfig>, Arc<ServerConfig>);

static TLS12: LazyLock<Configs> = LazyLock::new(|| configs(&rustls::version::TLS12));
static TLS13: LazyLock<Configs> = LazyLock::new(|| configs(&rustls::version::TLS13));

pub(super) const VERSIONS: [&LazyLock<Configs>; 2] = [&TLS12, &TLS13];

fn configs(version: &'static SupportedProtocolVersion) -> Configs {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![cert.der().clone()];
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.enable_secret_extraction = true;
    let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let server = server.with_no_client_auth().with_single_cert(chain, key).unwrap();
    (Arc::new(client), Arc::new(server))
}

/// Both ends, the handshake done.
pub(super) struct Pair {
    pub(super) client: ClientConnection,
    pub(super) stream: TlsStream<Near>,
    pub(super) wire: Rc<RefCell<Wire>>,
    /// What the client has received.
    pub(super) came: Vec<u8>,
}

pub(super) fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Shakes hands over a socket that gives so much at once.
pub(super) fn shake((client, server): &Configs, gives: usize) -> Pair {
    let mut client = ClientConnection::new(client.clone(), "a.test".try_into().unwrap()).unwrap();
    client.set_buffer_limit(None);
    let wire = Rc::new(RefCell::new(Wire { gives, ..Wire::open() }));
    let mut accept = Box::pin(TlsStream::accept(Near(wire.clone()), Block::default(), server.clone()));
    loop {
        send(&mut client, &wire);
        let polled = accept.as_mut().poll(&mut context());
        let came = receive(&mut client, &wire);
        if let Poll::Ready(stream) = polled {
            assert!(!client.is_handshaking() && came.is_empty());
            return Pair { client, stream: stream.unwrap(), wire, came };
        }
    }
}

pub(super) fn send(client: &mut ClientConnection, wire: &RefCell<Wire>) {
    let mut up = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut up).unwrap();
    }
    wire.borrow_mut().up.extend(up);
}

fn receive(client: &mut ClientConnection, wire: &RefCell<Wire>) -> Vec<u8> {
    let down = std::mem::take(&mut wire.borrow_mut().down);
    let (mut down, mut came) = (down.as_slice(), Vec::new());
    while !down.is_empty() {
        client.read_tls(&mut down).unwrap();
        client.process_new_packets().unwrap();
        read_all(client, &mut came);
    }
    came
}

fn read_all(client: &mut ClientConnection, came: &mut Vec<u8>) {
    match client.reader().read_to_end(came) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
}

impl Pair {
    /// The client sends bytes.
    pub(super) fn ask(&mut self, bytes: &[u8]) {
        self.client.writer().write_all(bytes).unwrap();
        send(&mut self.client, &self.wire);
    }

    /// The client takes what has arrived.
    pub(super) fn take(&mut self) {
        self.came.extend(receive(&mut self.client, &self.wire));
    }

    /// One read with room for `n` bytes.
    pub(super) fn read(&mut self, n: usize) -> Poll<io::Result<Vec<u8>>> {
        let mut space = vec![0; n];
        let mut to = ReadBuf::new(&mut space);
        let polled = Pin::new(&mut self.stream).poll_read(&mut context(), &mut to);
        polled.map_ok(|()| to.filled().to_vec())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(&mut context(), bytes)
    }

    pub(super) fn flush(&mut self) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(&mut context())
    }

    pub(super) fn shutdown(&mut self) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(&mut context())
    }
}
