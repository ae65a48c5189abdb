//! What does a pod speak? HTTP/1, HTTP/2 with prior knowledge, WebSocket and TLS, at every port: as whoever comes begins.
//!
//! What it says is which of them it was. Paths with a meaning: `/status/503` answers so, `/wait/500` answers after so many
//! milliseconds. A WebSocket says back what it hears, byte for byte.

use super::http::{Echo, Greeting};
use super::pki::{Identity, authorities};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// The key of a client that RFC 6455 section 1.3 has for an example, and the answer to it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Which certificate each pod shows, by its address. Whoever has none speaks no TLS.
#[derive(Default)]
pub struct Identities(Mutex<HashMap<IpAddr, Arc<ServerConfig>>>);

impl Identities {
    /// A pod shows this certificate from now on, and asks for a client's of these authorities, PEM, where there are some.
    pub fn show(&self, address: IpAddr, identity: &Identity, clients: Option<&str>) {
        let chain = CertificateDer::pem_slice_iter(identity.chain.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        let builder = ServerConfig::builder();
        let builder = match clients {
            Some(pem) => builder
                .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(authorities(pem))).build().unwrap()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address, Arc::new(config));
    }

    fn of(&self, address: IpAddr) -> Option<Arc<ServerConfig>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }
}

/// Answers on a connection to this address until it ends; what the other side does wrong is up to the tests.
pub async fn serve(stream: TcpStream, local: SocketAddr, identities: &Identities) -> Option<()> {
    match first(&stream).await? {
        TLS => {
            let stream = TlsAcceptor::from(identities.of(local.ip())?).accept(stream).await.ok()?;
            let (_, session) = stream.get_ref();
            let greeting = Greeting {
                server_name: session.server_name().unwrap_or_default().to_owned(),
                client: session.peer_certificates().is_some(),
            };
            let http2 = session.alpn_protocol() == Some(b"h2");
            talk(stream, http2, local, Some(greeting)).await
        }
        first => talk(stream, first == PREFACE, local, None).await,
    }
}

/// The first byte of a TLS record of a handshake.
const TLS: u8 = 0x16;
/// The first byte of the preface of HTTP/2, `PRI * HTTP/2.0`. `POST` and `PUT` begin so too: the next one tells.
const PREFACE: u8 = b'P';

/// The first byte; that of a method of HTTP/1 is never [`PREFACE`].
async fn first(stream: &TcpStream) -> Option<u8> {
    let mut seen = [0; 2];
    loop {
        return match (stream.peek(&mut seen).await.ok()?, seen) {
            (0, _) => None,
            (1, [PREFACE, _]) => {
                // Nothing tells when there is more to see than was seen.
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            (_, [PREFACE, second]) => Some(if second == b'R' { PREFACE } else { 0 }),
            (_, [first, _]) => Some(first),
        };
    }
}

async fn talk<S>(stream: S, http2: bool, local: SocketAddr, tls: Option<Greeting>) -> Option<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream);
    let service = service_fn(move |request| answer(request, local, tls.clone()));
    if http2 {
        return http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await.ok();
    }
    http1::Builder::new().serve_connection(stream, service).with_upgrades().await.ok()
}

async fn answer(
    mut request: Request<Incoming>,
    local: SocketAddr,
    tls: Option<Greeting>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.headers().get("sec-websocket-key").is_some_and(|key| key == KEY) {
        tokio::spawn(say_back(hyper::upgrade::on(&mut request)));
        let welcome = Response::builder().status(101).header(CONNECTION, "upgrade").header(UPGRADE, "websocket");
        return Ok(welcome.header("sec-websocket-accept", ACCEPT).body(Full::default()).unwrap_or_default());
    }
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let length = body.collect().await.map(|body| body.to_bytes().len()).unwrap_or_default();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let authority = head.uri.authority().map(ToString::to_string);
    let echo = Echo {
        address: local.ip(),
        port: local.port(),
        version: format!("{:?}", head.version),
        tls,
        method: head.method.to_string(),
        host: head.headers.get("host").map(text).or(authority).unwrap_or_default(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        length,
        path,
    };
    let number = |prefix: &str| head.uri.path().split_once(prefix)?.1.split('/').next()?.parse::<u16>().ok();
    if let Some(time) = number("/wait/") {
        tokio::time::sleep(Duration::from_millis(time.into())).await;
    }
    let status = number("/status/").unwrap_or(200);
    // With an end of line, for whoever reads it on a screen.
    let body = serde_json::to_string(&echo).unwrap_or_default() + "\n";
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Full::from(body)).unwrap_or_default())
}

/// Until the other side has said all.
async fn say_back(upgrade: hyper::upgrade::OnUpgrade) {
    let Ok(stream) = upgrade.await else { return };
    let mut stream = TokioIo::new(stream);
    let mut heard = vec![0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut heard).await {
        if stream.write_all(&heard[..length]).await.is_err() {
            return;
        }
    }
}
