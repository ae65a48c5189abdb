//! How does a client ask, over a real socket, from wherever it stands?

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// No answer of a gate takes this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A response, whole.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The certificate the other side showed, DER.
    pub certificate: Option<CertificateDer<'static>>,
}

/// What an echo pod says of a request.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
pub struct Echo {
    /// The address of the pod, as the request reached it.
    pub address: std::net::IpAddr,
    pub port: u16,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub version: String,
    /// What is known of a TLS connection; `None`: it came in cleartext.
    pub tls: Option<Greeting>,
    pub method: String,
    pub path: String,
    pub host: String,
    /// By lower-case name; the last value of each.
    pub headers: std::collections::BTreeMap<String, String>,
    /// Bytes of the request's body.
    pub length: usize,
}

/// What an echo pod says of a TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Greeting {
    pub server_name: String,
    /// Whether the client showed a certificate, which was verified.
    pub client: bool,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What the echo pod said; the reason when it was no echo.
    pub fn echo(&self) -> Result<Echo, String> {
        serde_json::from_slice(&self.body).map_err(|_| format!("no echo but {}: {}", self.status, self.text().trim()))
    }

    /// The same response when it has this status, for `eventually`.
    pub fn expect(self, status: u16) -> Result<Self, String> {
        if self.status == status { Ok(self) } else { Err(format!("{} {}", self.status, self.text().trim())) }
    }
}

/// A GET request for this host and path.
pub fn get(host: &str, path: &str) -> Request<Full<Bytes>> {
    request("GET", host, path, &[], "")
}

pub fn request(method: &str, host: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body.to_owned())).unwrap()
}

/// Sends a request over a connection of its own.
pub async fn send(to: SocketAddr, request: Request<Full<Bytes>>) -> Result<Response, String> {
    in_time(to, async {
        let stream = TcpStream::connect(to).await.map_err(|e| e.to_string())?;
        exchange(stream, request).await
    })
    .await
}

/// The same over TLS, with this server name.
pub async fn send_tls(
    to: SocketAddr,
    name: &str,
    trust: Arc<ClientConfig>,
    request: Request<Full<Bytes>>,
) -> Result<Response, String> {
    in_time(to, async {
        let stream = TcpStream::connect(to).await.map_err(|e| e.to_string())?;
        let name = ServerName::try_from(name.to_owned()).map_err(|e| e.to_string())?;
        let stream = TlsConnector::from(trust).connect(name, stream).await.map_err(|e| format!("TLS: {e}"))?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|c| c.clone().into_owned());
        Ok(Response { certificate: shown, ..exchange(stream, request).await? })
    })
    .await
}

/// Sends a request over a connection that is there.
pub async fn send_over(stream: std::net::TcpStream, request: Request<Full<Bytes>>) -> Result<Response, String> {
    let to = stream.peer_addr().map_err(|e| e.to_string())?;
    stream.set_nonblocking(true).map_err(|e| e.to_string())?;
    let stream = TcpStream::from_std(stream).map_err(|e| e.to_string())?;
    in_time(to, exchange(stream, request)).await
}

/// A connection that takes one request after the other.
pub struct Connection(http1::SendRequest<Full<Bytes>>);

impl Connection {
    pub async fn open(to: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(to).await.map_err(|e| e.to_string())?;
        start(stream).await.map(Self)
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response, String> {
        self.0.ready().await.map_err(|e| format!("closed: {}", chain(&e)))?;
        respond(&mut self.0, request).await
    }

    /// Whether the other side closed it.
    pub fn closed(&self) -> bool {
        self.0.is_closed()
    }
}

async fn in_time<T>(to: SocketAddr, asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    answer.unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}"))).map_err(|why| format!("{to}: {why}"))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    respond(&mut start(stream).await?, request).await
}

async fn start<S>(stream: S) -> Result<http1::SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| chain(&e))?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn respond(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response, String> {
    let response = sender.send_request(request).await.map_err(|e| chain(&e))?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|e| format!("the body of a {}: {}", head.status, chain(&e)))?;
    Ok(Response { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes(), certificate: None })
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
