//! Which TLS handshakes succeed, and what does the client hear of those that do not?
//!
//! rustls reads the ClientHello, however it is cut into records and segments; the current snapshot's names say what serves it.
//! A name that nothing serves gets the alert unrecognized_name and never somebody else's certificate.

use crate::message::TlsInfo;
use crate::tls::{self, ServerNames};
use rustls::server::Acceptor;
use rustls::{AlertDescription, HandshakeKind};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// A handshake that succeeded.
#[derive(Debug)]
pub(super) struct Shaken {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) info: TlsInfo,
    pub(super) alpn_h2: bool,
    pub(super) resumed: bool,
}

/// Why a handshake failed.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("it took too long")]
    Timeout,
    #[error("no certificate for the server name {0:?}")]
    UnknownName(String),
    #[error("no certificate for clients that send no server name")]
    NoName,
    #[error("what came is not TLS")]
    NotTls(#[source] rustls::Error),
    #[error("the client's certificate was refused")]
    ClientCertificate(#[source] rustls::Error),
    #[error("no version, cipher or protocol in common")]
    Incompatible(#[source] rustls::Error),
    #[error("the client refused")]
    ClientAlert(#[source] rustls::Error),
    #[error("the client broke the protocol")]
    Protocol(#[source] rustls::Error),
    #[error("the connection broke")]
    Io(#[source] io::Error),
}

impl Failure {
    /// Every value of the metric's label.
    pub(super) const REASONS: [&'static str; 8] = [
        "timeout",
        "unknown_name",
        "not_tls",
        "client_certificate",
        "incompatible",
        "client_alert",
        "protocol",
        "connection",
    ];

    /// The value of the metric's label.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::UnknownName(_) | Self::NoName => "unknown_name",
            Self::NotTls(_) => "not_tls",
            Self::ClientCertificate(_) => "client_certificate",
            Self::Incompatible(_) => "incompatible",
            Self::ClientAlert(_) => "client_alert",
            Self::Protocol(_) => "protocol",
            Self::Io(_) => "connection",
        }
    }

    fn of_hello(error: io::Error) -> Self {
        match rustls_error(error) {
            Ok(error @ rustls::Error::InvalidMessage(_)) => Self::NotTls(error),
            Ok(error) => Self::of_tls(error),
            Err(error) => Self::Io(error),
        }
    }

    fn of_rest(error: io::Error) -> Self {
        rustls_error(error).map_or_else(Self::Io, Self::of_tls)
    }

    fn of_tls(error: rustls::Error) -> Self {
        use rustls::Error as E;
        match error {
            E::NoCertificatesPresented | E::InvalidCertificate(_) => Self::ClientCertificate(error),
            E::PeerIncompatible(_) | E::NoApplicationProtocol => Self::Incompatible(error),
            E::AlertReceived(_) => Self::ClientAlert(error),
            error => Self::Protocol(error),
        }
    }
}

/// Shakes hands as the name in the ClientHello asks for. The caller bounds the time.
pub(super) async fn shake(stream: TcpStream, local: IpAddr, names: &ServerNames) -> Result<Shaken, Failure> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(Failure::of_hello)?;
    let name = start.client_hello().server_name().map(str::to_owned);
    let found = match &name {
        Some(name) => names.find(Some(name)),
        None => names.find_nameless(local),
    };
    let Some(found) = found else {
        refuse(start.io).await;
        return Err(name.map_or(Failure::NoName, Failure::UnknownName));
    };
    let stream = start.into_stream(found.config.clone()).await.map_err(Failure::of_rest)?;
    let connection = stream.get_ref().1;
    let info = tls::info(connection, found.policy);
    let alpn_h2 = connection.alpn_protocol() == Some(b"h2");
    let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok(Shaken { stream, info, alpn_h2, resumed })
}

/// Sends a fatal unrecognized_name (RFC 6066 section 3). Nothing is encrypted yet, so the record is five bytes of header (alert,
/// version, length) and two of alert, in every version. What the client did not read of it is no matter of ours.
async fn refuse(mut stream: TcpStream) {
    const FATAL: u8 = 2;
    let alert = [21, 3, 3, 0, 2, FATAL, u8::from(AlertDescription::UnrecognisedName)];
    let _ = stream.write_all(&alert).await;
    let _ = stream.shutdown().await;
}

/// tokio-rustls wraps rustls' errors.
fn rustls_error(error: io::Error) -> Result<rustls::Error, io::Error> {
    if error.kind() != ErrorKind::InvalidData {
        return Err(error);
    }
    error.downcast::<rustls::Error>()
}
