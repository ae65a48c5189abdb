//! What does an address answer to one GET?
//!
//! No certificate is verified here: nothing secret is sent, and a self-signed pod or a gate without its certificates yet must be
//! comparable too. What serves traffic verifies always (`tls::client`).

use crate::upstream::io::Beside;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How this command calls itself; a body that holds it echoes the request.
pub(super) const AGENT: &str = concat!("tidegate-audit/", env!("CARGO_PKG_VERSION"));
/// Longest body that is read.
const LONGEST: usize = 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum AskError {
    #[error("nobody listens")]
    Connect(#[source] io::Error),
    #[error("no answer in time")]
    Late,
    #[error("no TLS")]
    Tls(#[source] io::Error),
    #[error("the request cannot be written")]
    Request(#[from] http::Error),
    #[error("no HTTP")]
    Exchange(#[from] hyper::Error),
    #[error("the body cannot be read, or has more than 1 MiB")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Where; the first that lets connect.
    pub(super) at: Vec<SocketAddr>,
    /// Whether by TLS.
    pub(super) tls: bool,
    /// Whether in HTTP/2: with prior knowledge in cleartext, offered alone in TLS.
    pub(super) http2: bool,
    /// The host; it is the server name of TLS too.
    pub(super) host: String,
    /// The path.
    pub(super) path: String,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Who answered.
    pub(super) peer: SocketAddr,
    /// The address from which it was asked.
    pub(super) local: IpAddr,
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) body: Bytes,
}

impl Question {
    /// Asks; everything together takes no longer than `patience`.
    pub(super) async fn ask(&self, patience: Duration) -> Result<Answer, AskError> {
        timeout(patience, self.exchange(patience)).await.unwrap_or(Err(AskError::Late))
    }

    async fn exchange(&self, patience: Duration) -> Result<Answer, AskError> {
        let stream = connect(&self.at, patience).await?;
        let ends = stream.peer_addr().and_then(|peer| Ok((peer, stream.local_addr()?.ip())));
        let (peer, local) = ends.map_err(AskError::Connect)?;
        let (status, headers, body) = match self.tls {
            true => self.over(secure(stream, &self.host, self.http2).await?).await?,
            false => self.over(stream).await?,
        };
        let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        Ok(Answer { peer, local, status, content_type, body })
    }

    async fn over<S>(&self, stream: S) -> Result<Heard, AskError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if self.http2 {
            let scheme = if self.tls { "https" } else { "http" };
            let request = Request::get(format!("{scheme}://{}{}", self.host, self.path)).header(USER_AGENT, AGENT);
            let request = request.body(Full::<Bytes>::default())?;
            let (mut sender, connection) = http2::handshake(Beside::default(), TokioIo::new(stream)).await?;
            return beside(connection, async { heard(sender.send_request(request).await?).await }).await;
        }
        let request = Request::get(&self.path).header(HOST, &self.host).header(USER_AGENT, AGENT);
        let request = request.header(CONNECTION, "close").body(Full::<Bytes>::default())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        beside(connection, async { heard(sender.send_request(request).await?).await }).await
    }
}

/// Status, fields and body.
type Heard = (u16, HeaderMap, Bytes);

async fn heard(response: Response<Incoming>) -> Result<Heard, AskError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LONGEST).collect().await.map_err(AskError::Body)?;
    Ok((head.status.as_u16(), head.headers, body.to_bytes()))
}

/// The connection runs while the exchange does, without a task of its own.
async fn beside<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    tokio::select! {
        biased;
        done = &mut exchange => done,
        _ = &mut connection => exchange.await,
    }
}

/// Connects to all at once and takes the first: pods and some addresses of nodes are often out of reach.
pub(super) async fn connect(at: &[SocketAddr], patience: Duration) -> Result<TcpStream, AskError> {
    let mut tries: FuturesUnordered<_> = at.iter().map(|address| TcpStream::connect(*address)).collect();
    let first = async {
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address is known");
        while let Some(tried) = tries.next().await {
            match tried {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(AskError::Connect(last))
    };
    timeout(patience, first).await.unwrap_or(Err(AskError::Late))
}

/// TLS with whatever certificate there is. An address as host sends no server name.
pub(super) async fn secure(stream: TcpStream, host: &str, http2: bool) -> Result<TlsStream<TcpStream>, AskError> {
    let wrong = |error: rustls::Error| AskError::Tls(io::Error::other(error));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Anyone(provider.signature_verification_algorithms.supported_schemes()));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(wrong)?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let name = ServerName::try_from(host.to_owned()).map_err(|error| AskError::Tls(io::Error::other(error)))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(AskError::Tls)
}

/// Trusts every certificate.
#[derive(Debug)]
struct Anyone(Vec<SignatureScheme>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::service::service_fn;
    use std::convert::Infallible;
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn who_speaks_http_2_alone_answers_a_question_in_it_and_no_other() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = vec![listener.local_addr().unwrap()];
        let serve = async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service_fn(|request: Request<Incoming>| async move {
                    let said = format!("{:?} {} {:?}", request.version(), request.uri(), request.headers()[USER_AGENT]);
                    Ok::<_, Infallible>(Response::builder().status(415).body(Full::<Bytes>::from(said)).unwrap())
                });
                let server = hyper::server::conn::http2::Builder::new(Beside::default());
                // How it ends is up to the questions.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            }
        };
        let ask = async |http2| {
            let question = Question { at: at.clone(), tls: false, http2, host: "a.test".into(), path: "/x".into() };
            question.ask(Duration::from_secs(5)).await
        };
        tokio::select! {
            () = serve => unreachable!(),
            () = async {
                let answer = ask(true).await.unwrap();
                let said = format!("HTTP/2.0 http://a.test/x {AGENT:?}");
                assert_eq!((answer.status, answer.body), (415, said.into()));
                assert!(matches!(ask(false).await, Err(AskError::Exchange(_))));
            } => {}
        }
    }
}
