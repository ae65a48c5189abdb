//! Does every body arrive whole, whatever carries it and however its ends take their time?
//!
//! Sizes, pieces, pauses and windows are drawn from a fixed seed; each byte is the one that its place asks for.

use crate::harness::certs::Authority;
use crate::harness::proxy::{Proxy, routes};
use crate::harness::within;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Connections of each kind of client to each kind of upstream, and exchanges on each.
const CONNECTIONS: u64 = 3;
const EXCHANGES: u64 = 6;

/// Largest body: more than all buffers on its way together.
const LARGEST: u64 = 6 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_bodies_arrive_whole() {
    all_upstreams(Kind { http2: false, tls: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_bodies_arrive_whole_over_tls() {
    all_upstreams(Kind { http2: false, tls: true }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_bodies_arrive_whole() {
    all_upstreams(Kind { http2: true, tls: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_bodies_arrive_whole_over_tls() {
    all_upstreams(Kind { http2: true, tls: true }).await;
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    http2: bool,
    tls: bool,
}

const UPSTREAMS: [Kind; 4] = [
    Kind { http2: false, tls: false },
    Kind { http2: false, tls: true },
    Kind { http2: true, tls: false },
    Kind { http2: true, tls: true },
];

async fn all_upstreams(client: Kind) {
    let authority = Authority::new("bodies");
    let mut text = String::from("hosts: [a.test]\ntls: shop\nroutes:\n");
    for at in 0..UPSTREAMS.len() {
        text.push_str(&format!("  - {{ path: /{at}/, to: up{at} }}\n"));
    }
    text.push_str("---\nclusters:\n");
    for (at, kind) in UPSTREAMS.iter().enumerate() {
        let address = upstream(*kind, &authority).await;
        let tls = if kind.tls { ", tls: { ca: ca.pem, server_name: up.test }" } else { "" };
        let protocol = if kind.http2 { ", protocol: http2" } else { "" };
        text.push_str(&format!("  up{at}: {{ endpoints: [\"{address}\"]{protocol}{tls} }}\n"));
    }
    let proxy = routes(text)
        .http("")
        .https("")
        .certificate("shop", &authority.issue(&["a.test"]))
        .file("ca.pem", &authority.pem)
        .start()
        .await;
    let mut all = JoinSet::new();
    for (at, seed) in (0..UPSTREAMS.len() as u64).flat_map(|at| (0..CONNECTIONS).map(move |n| (at, at * 100 + n + 1))) {
        let stream = connect(&proxy, client, &authority, &mut Random(seed)).await;
        all.spawn(exchanges(stream, client, at, seed));
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
}

/// Anything that carries bytes.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for S {}

async fn connect(proxy: &Proxy, kind: Kind, authority: &Authority, random: &mut Random) -> Box<dyn Stream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096 << u32::try_from(random.below(7)).unwrap()).unwrap();
    let address = if kind.tls { proxy.https().await } else { proxy.http().await };
    let stream = within("connecting", socket.connect(address)).await.unwrap();
    if !kind.tls {
        return Box::new(stream);
    }
    let config = authority.client(&[if kind.http2 { "h2" } else { "http/1.1" }]);
    Box::new(
        within("the handshake", TlsConnector::from(config).connect("a.test".try_into().unwrap(), stream))
            .await
            .unwrap(),
    )
}

/// One after the other over HTTP/1, all at once over HTTP/2.
async fn exchanges(stream: Box<dyn Stream>, kind: Kind, upstream: u64, seed: u64) {
    let mut random = Random(seed);
    let io = TokioIo::new(stream);
    if kind.http2 {
        let builder = hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        let (send, connection) = builder.handshake(io).await.unwrap();
        tokio::spawn(connection);
        let mut streams = JoinSet::new();
        for _ in 0..EXCHANGES {
            let (mut send, mut random) = (send.clone(), Random(random.next() | 1));
            streams.spawn(async move {
                let (request, size) = request(upstream, &mut random);
                check(send.send_request(request), size, random).await;
            });
        }
        while let Some(done) = streams.join_next().await {
            done.unwrap();
        }
        return;
    }
    let (mut send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    for n in 0..EXCHANGES {
        send.ready().await.unwrap_or_else(|error| panic!("after {n} exchanges with upstream {upstream}: {error:?}"));
        let (request, size) = request(upstream, &mut random);
        check(send.send_request(request), size, Random(random.next() | 1)).await;
    }
}

/// A request with a body of some size, for a response of another.
fn request(upstream: u64, random: &mut Random) -> (Request<Paced>, (u64, u64)) {
    let (up, down) = (random.size(), random.size());
    let builder = Request::post(format!("http://a.test/{upstream}/")).header("host", "a.test").header("x-size", down);
    (builder.body(Paced::new(up, random)).unwrap(), (up, down))
}

async fn check<E: std::fmt::Debug>(
    response: impl Future<Output = Result<Response<Incoming>, E>>,
    (up, down): (u64, u64),
    mut random: Random,
) {
    let what = format!("{up} bytes up, {down} down");
    let response = within(&what, response).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!(response.status(), 200, "{what}");
    assert_eq!(response.headers()["x-got"], up.to_string().as_str(), "{what}");
    assert_eq!(response.headers().get("connection"), None, "{what}: the whole request was read");
    let got = within(&what, read(response.into_body(), &mut random)).await;
    assert_eq!(got, Ok(down), "{what}");
}

/// How many bytes came, each the right one; now and then it looks away.
async fn read(mut body: Incoming, random: &mut Random) -> Result<u64, String> {
    let (mut got, lazy) = (0, random.below(3) == 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| format!("after {got} bytes: {error:?}"))?.into_data() else { continue };
        if let Some(at) = (got..).zip(&data).find(|(at, byte)| **byte != byte_at(*at)) {
            return Err(format!("a wrong byte at {}", at.0));
        }
        got += data.len() as u64;
        if lazy && random.below(8) == 0 {
            tokio::time::sleep(Duration::from_millis(random.below(4))).await;
        }
    }
    Ok(got)
}

async fn upstream(kind: Kind, authority: &Authority) -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(64).unwrap();
    let address = listener.local_addr().unwrap();
    let server = authority.server(&authority.issue(&["up.test"]), &[if kind.http2 { "h2" } else { "http/1.1" }], false);
    let acceptor = kind.tls.then(|| TlsAcceptor::from(server));
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, acceptor.clone(), kind.http2));
        }
    });
    address
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, http2: bool) {
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(stream),
        Some(tls) => Box::new(tls.accept(stream).await.unwrap()),
    };
    let (io, service) = (TokioIo::new(stream), hyper::service::service_fn(answer));
    // How they end is the proxy's to choose.
    if http2 {
        let builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        let _ = builder.serve_connection(io, service).await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Paced>, String> {
    let size: u64 = request.headers()["x-size"].to_str().unwrap().parse().unwrap();
    let mut random = Random(size | 1);
    let got = read(request.into_body(), &mut random).await?;
    let response = Response::builder().header("x-got", got).body(Paced::new(size, &mut random));
    Ok(response.unwrap())
}

fn byte_at(place: u64) -> u8 {
    (place % 251) as u8
}

/// A body that comes in pieces, sometimes with pauses, with or without its length being told.
struct Paced {
    at: u64,
    size: u64,
    told: bool,
    lazy: bool,
    random: Random,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    fn new(size: u64, random: &mut Random) -> Self {
        let (told, lazy) = (random.below(2) == 0, random.below(4) == 0);
        Self { at: 0, size, told, lazy, random: Random(random.next() | 1), pause: None }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        if self.at == self.size {
            return Poll::Ready(None);
        }
        let most = 1 << self.random.below(19);
        let piece = (self.at..self.size.min(self.at + most)).map(byte_at).collect::<Bytes>();
        self.at += piece.len() as u64;
        if self.lazy && self.random.below(4) == 0 {
            self.pause = Some(Box::pin(tokio::time::sleep(Duration::from_millis(self.random.below(3)))));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.told { SizeHint::with_exact(self.size - self.at) } else { SizeHint::default() }
    }
}

/// Numbers that look drawn (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        // The first few numbers of small seeds are small.
        (self.next().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % end
    }

    /// As often between 1 and 2 as between a million and two; sometimes 0.
    fn size(&mut self) -> u64 {
        let magnitude = self.below(24);
        self.below((1 << magnitude).min(LARGEST))
    }
}
