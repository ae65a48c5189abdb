//! What stands before and behind the proxy and speaks HTTP/2?

use super::client::{tcp, tls};
use super::{until, within};
use ::h2::client::{ResponseFuture, SendRequest};
use ::h2::server::{Connection, SendResponse};
use ::h2::{Reason, RecvStream, SendStream};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A connection to the proxy that carries HTTP/2.
pub struct H2Client {
    pub send: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), ::h2::Error>>,
}

/// A response as far as it came.
#[derive(Debug)]
pub struct H2Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// Why the stream was reset before its end.
    pub reset: Option<Reason>,
}

impl H2Response {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }

    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name).map(|v| v.to_str().unwrap())
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        assert_eq!(self.reset, None, "the stream was reset: {self:?}");
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl H2Client {
    pub async fn cleartext(address: SocketAddr) -> Self {
        Self::over(tcp(address).await).await
    }

    pub async fn tls(address: SocketAddr, config: &Arc<rustls::ClientConfig>, name: &str) -> Self {
        let stream = tls(address, config, name).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(stream).await
    }

    /// Grants each stream no more than `window` bytes of its response.
    pub async fn with_window(address: SocketAddr, window: u32) -> Self {
        let mut builder = ::h2::client::Builder::new();
        Self::built(tcp(address).await, builder.initial_window_size(window)).await
    }

    pub async fn over(io: impl super::wire::Io + 'static) -> Self {
        // A window of the connection that no single stream can fill.
        let mut builder = ::h2::client::Builder::new();
        Self::built(io, builder.initial_connection_window_size(16 * 1024 * 1024)).await
    }

    async fn built(io: impl super::wire::Io + 'static, builder: &::h2::client::Builder) -> Self {
        let handshake = builder.handshake(io);
        let (send, connection) = within("the HTTP/2 preface", handshake).await.unwrap();
        Self { send, driver: tokio::spawn(connection) }
    }

    /// Waits until the proxy's settings allow extended CONNECT.
    pub async fn extended_connect(&self) {
        until("extended CONNECT", || async { self.send.is_extended_connect_protocol_enabled().then_some(()) }).await;
    }

    /// Opens a stream: its response, and its body to be sent.
    pub async fn open(&mut self, request: Request<()>, end: bool) -> (ResponseFuture, SendStream<Bytes>) {
        self.send = within("room for a stream", self.send.clone().ready()).await.unwrap();
        self.send.send_request(request, end).unwrap()
    }

    pub async fn request(&mut self, request: Request<()>, body: &[u8]) -> H2Response {
        self.exchange(request, body, None).await.unwrap()
    }

    /// A whole exchange, or why there was no response.
    pub async fn exchange(
        &mut self,
        request: Request<()>,
        body: &[u8],
        trailers: Option<HeaderMap>,
    ) -> Result<H2Response, ::h2::Error> {
        let (response, mut stream) = self.open(request, body.is_empty() && trailers.is_none()).await;
        if !body.is_empty() {
            // A stream that was answered early and reset takes no more: the answer counts.
            let _ = stream.send_data(Bytes::copy_from_slice(body), trailers.is_none());
        }
        if let Some(trailers) = trailers {
            let _ = stream.send_trailers(trailers);
        }
        Ok(collect(within("a response", response).await?).await)
    }

    pub async fn get(&mut self, scheme: &str, host: &str, path: &str) -> H2Response {
        self.request(request("GET", &format!("{scheme}://{host}{path}")), b"").await
    }

    /// How the connection ended: `Ok` after a GOAWAY without error.
    pub async fn end(self) -> Result<(), ::h2::Error> {
        drop(self.send);
        within("the end of the connection", self.driver).await.unwrap()
    }

    /// How the connection ended, of the proxy's own accord.
    pub async fn closed(&mut self) -> Result<(), ::h2::Error> {
        within("the end of the connection", &mut self.driver).await.unwrap()
    }

    /// Drops the connection without a word.
    pub fn vanish(self) {
        self.driver.abort();
    }
}

pub fn request(method: &str, uri: &str) -> Request<()> {
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

/// Informational responses until the final one: status and the Link field.
pub async fn informational(response: &mut ResponseFuture) -> Vec<(u16, String)> {
    let mut seen = Vec::new();
    while let Some(head) = within("a response", std::future::poll_fn(|cx| response.poll_informational(cx))).await {
        let head = head.unwrap();
        let link = head.headers().get("link").map(|v| v.to_str().unwrap().to_owned());
        seen.push((head.status().as_u16(), link.unwrap_or_default()));
    }
    seen
}

/// Reads a body to its end.
pub async fn collect(response: Response<RecvStream>) -> H2Response {
    let (head, mut body) = response.into_parts();
    let mut found =
        H2Response { status: head.status.as_u16(), headers: head.headers, body: vec![], trailers: None, reset: None };
    while let Some(chunk) = within("a chunk", body.data()).await {
        match chunk {
            Ok(chunk) => {
                body.flow_control().release_capacity(chunk.len()).unwrap();
                found.body.extend_from_slice(&chunk);
            }
            Err(e) => {
                found.reset = Some(e.reason().unwrap_or(Reason::NO_ERROR));
                return found;
            }
        }
    }
    match within("trailers", body.trailers()).await {
        Ok(trailers) => found.trailers = trailers,
        Err(e) => found.reset = Some(e.reason().unwrap_or(Reason::NO_ERROR)),
    }
    found
}

/// A request as an upstream received it.
#[derive(Clone, Debug)]
pub struct H2Request {
    pub method: String,
    pub uri: http::Uri,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl H2Request {
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.get_all(name).iter();
        let first = all.next().map(|v| v.to_str().unwrap());
        assert!(all.next().is_none(), "{name} was sent twice: {self:?}");
        first
    }
}

/// A listening HTTP/2 upstream.
pub struct H2Upstream {
    pub address: SocketAddr,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    requests: Mutex<Vec<H2Request>>,
    connections: Mutex<usize>,
}

/// A stream that an upstream has to answer.
pub struct Exchange {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
    log: Arc<Log>,
}

impl Exchange {
    /// Reads the request to its end and notes it; `None` when it was reset.
    pub async fn read(&mut self) -> Option<H2Request> {
        let mut body = Vec::new();
        let stream = self.request.body_mut();
        while let Some(chunk) = stream.data().await {
            let chunk = chunk.ok()?;
            stream.flow_control().release_capacity(chunk.len()).unwrap();
            body.extend_from_slice(&chunk);
        }
        let trailers = stream.trailers().await.ok()?;
        Some(self.noted(body, trailers))
    }

    /// Notes the request by its head alone.
    pub fn note(&self) {
        self.noted(Vec::new(), None);
    }

    fn noted(&self, body: Vec<u8>, trailers: Option<HeaderMap>) -> H2Request {
        let request = H2Request {
            method: self.request.method().to_string(),
            uri: self.request.uri().clone(),
            headers: self.request.headers().clone(),
            body,
            trailers,
        };
        self.log.requests.lock().unwrap().push(request.clone());
        request
    }

    /// Sends a head with these fields.
    pub fn head(&mut self, status: u16, fields: &[(&str, &str)], end: bool) -> SendStream<Bytes> {
        let mut head = Response::builder().status(status);
        for (name, value) in fields {
            head = head.header(*name, *value);
        }
        self.respond.send_response(head.body(()).unwrap(), end).unwrap()
    }

    /// Sends an informational response with one field.
    pub fn inform(&mut self, status: u16, name: &str, value: &str) {
        let head = Response::builder().status(status).header(name, value).body(()).unwrap();
        self.respond.send_informational(head).unwrap();
    }

    /// Sends a whole response.
    pub fn reply(&mut self, status: u16, fields: &[(&str, &str)], body: &[u8], trailers: &[(&str, &str)]) {
        let mut stream = self.head(status, fields, body.is_empty() && trailers.is_empty());
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body), trailers.is_empty()).unwrap();
        }
        if !trailers.is_empty() {
            stream.send_trailers(header_map(trailers)).unwrap();
        }
    }
}

pub fn header_map(fields: &[(&str, &str)]) -> HeaderMap {
    fields.iter().map(|(n, v)| (n.parse::<http::HeaderName>().unwrap(), v.parse().unwrap())).collect()
}

impl H2Upstream {
    /// Runs `script` for each stream.
    pub async fn start<S, F>(script: S) -> Self
    where
        S: Fn(Exchange) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen(None, script).await
    }

    /// The same behind TLS; the configuration offers `h2`.
    pub async fn start_tls<S, F>(config: Arc<rustls::ServerConfig>, script: S) -> Self
    where
        S: Fn(Exchange) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen(Some(TlsAcceptor::from(config)), script).await
    }

    /// The same, and its settings allow extended CONNECT.
    pub async fn start_with_connect<S, F>(script: S) -> Self
    where
        S: Fn(Exchange) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut builder = ::h2::server::Builder::new();
        builder.enable_connect_protocol();
        Self::listen_as(builder, None, script).await
    }

    /// The same, and it takes no byte of a body.
    pub async fn start_without_window<S, F>(script: S) -> Self
    where
        S: Fn(Exchange) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut builder = ::h2::server::Builder::new();
        builder.initial_window_size(0);
        Self::listen_as(builder, None, script).await
    }

    async fn listen<S, F>(tls: Option<TlsAcceptor>, script: S) -> Self
    where
        S: Fn(Exchange) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::listen_as(::h2::server::Builder::new(), tls, script).await
    }

    async fn listen_as<S, F>(builder: ::h2::server::Builder, tls: Option<TlsAcceptor>, script: S) -> Self
    where
        S: Fn(Exchange) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let script = Arc::new(script);
        Self::connections(builder, tls, move |mut connection, log| {
            let script = script.clone();
            async move {
                let mut streams = JoinSet::new();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    streams.spawn(script(Exchange { request, respond, log: log.clone() }));
                }
            }
        })
        .await
    }

    /// Answers the first `streams` streams of each connection with 200 and a text, then says GOAWAY.
    pub async fn going_away_after(streams: usize, text: &'static str) -> Self {
        Self::connections(::h2::server::Builder::new(), None, move |mut connection, log| async move {
            for number in 1.. {
                let Some(Ok((request, respond))) = connection.accept().await else { return };
                if number == streams {
                    connection.graceful_shutdown();
                }
                let mut exchange = Exchange { request, respond, log: log.clone() };
                tokio::spawn(async move {
                    if exchange.read().await.is_some() {
                        exchange.reply(200, &[], text.as_bytes(), &[]);
                    }
                });
            }
        })
        .await
    }

    async fn connections<S, F>(builder: ::h2::server::Builder, tls: Option<TlsAcceptor>, serve: S) -> Self
    where
        S: Fn(Connection<Box<dyn super::wire::Io>, Bytes>, Arc<Log>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::<Log>::default();
        let noted = log.clone();
        tokio::spawn(async move {
            let mut running = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Some(io) = accept(stream, tls.as_ref()).await else { continue };
                let Ok(connection) = builder.handshake(io).await else { continue };
                *log.connections.lock().unwrap() += 1;
                running.spawn(serve(connection, log.clone()));
            }
        });
        Self { address, log: noted }
    }

    pub fn requests(&self) -> Vec<H2Request> {
        self.log.requests.lock().unwrap().clone()
    }

    #[track_caller]
    pub fn request(&self) -> H2Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "requests of the upstream: {requests:?}");
        requests.into_iter().next().unwrap()
    }

    pub fn connection_count(&self) -> usize {
        *self.log.connections.lock().unwrap()
    }
}

impl std::fmt::Display for H2Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

async fn accept(stream: TcpStream, tls: Option<&TlsAcceptor>) -> Option<Box<dyn super::wire::Io>> {
    stream.set_nodelay(true).unwrap();
    match tls {
        None => Some(Box::new(stream)),
        Some(tls) => Some(Box::new(tls.accept(stream).await.ok()?)),
    }
}

/// A gRPC message: flag, length, bytes.
pub fn grpc_frame(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    frame
}
