//! Which TLS handshakes succeed, and what does the client hear of those that do not?
//!
//! rustls reads the ClientHello, however it is cut into records and segments; the current snapshot's names say what serves it.
//! A name that nothing serves gets the alert unrecognized_name and never somebody else's certificate.

use crate::message::TlsInfo;
use crate::message::tls_stream::{Block, TlsStream};
use crate::tls::{self, ServerNames};
use rustls::server::{Accepted, Acceptor};
use rustls::{AlertDescription, HandshakeKind};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

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

    fn of_hello(error: rustls::Error) -> Self {
        match error {
            error @ rustls::Error::InvalidMessage(_) => Self::NotTls(error),
            error => Self::of_tls(error),
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
pub(super) async fn shake(mut stream: TcpStream, local: IpAddr, names: &ServerNames) -> Result<Shaken, Failure> {
    let mut received = Block::default();
    let name = hello(&mut stream, &mut received).await?;
    let found = match &name {
        Some(name) => names.find(Some(name)),
        None => names.find_nameless(local),
    };
    let Some(found) = found else {
        refuse(stream).await;
        return Err(name.map_or(Failure::NoName, Failure::UnknownName));
    };
    let stream = TlsStream::accept(stream, received, found.config.clone()).await.map_err(Failure::of_rest)?;
    let connection = stream.connection();
    let info = tls::info(connection, name.as_deref(), found.policy);
    let alpn_h2 = connection.alpn_protocol() == Some(b"h2");
    let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok(Shaken { stream, info, alpn_h2, resumed })
}

/// Reads until the ClientHello is there, and says which name it asks for. Everything that came stays in `received`: the connection
/// that is made for the name reads it again.
async fn hello(stream: &mut TcpStream, received: &mut Block) -> Result<Option<String>, Failure> {
    let mut acceptor = Acceptor::default();
    loop {
        let known = received.bytes().len();
        if poll_fn(|cx| received.poll_fill(stream, cx)).await.map_err(Failure::Io)? == 0 {
            return Err(Failure::Io(ErrorKind::UnexpectedEof.into()));
        }
        match feed(&mut acceptor, received.bytes().get(known..).unwrap_or_default()) {
            Ok(None) => {}
            Ok(Some(accepted)) => return Ok(accepted.client_hello().server_name().map(str::to_owned)),
            Err((failure, alert)) => {
                let _ = stream.write_all(&alert).await;
                return Err(failure);
            }
        }
    }
}

/// Shows what came to rustls, which bounds how much it takes. An error is with what the client is to be told.
fn feed(acceptor: &mut Acceptor, mut came: &[u8]) -> Result<Option<Accepted>, (Failure, Vec<u8>)> {
    use rustls::Error as E;
    while !came.is_empty() {
        match acceptor.read_tls(&mut came) {
            Ok(0) => return Err((Failure::Io(ErrorKind::InvalidData.into()), Vec::new())),
            Ok(_) => {}
            Err(error) => return Err((Failure::Io(error), Vec::new())),
        }
        let accepted = acceptor.accept().map_err(|(error, mut alert)| {
            let mut told = Vec::new();
            let _ = alert.write_all(&mut told);
            // rustls says nothing to who begins with something else.
            if told.is_empty()
                && matches!(error, E::InappropriateMessage { .. } | E::InappropriateHandshakeMessage { .. })
            {
                told.extend(fatal(AlertDescription::UnexpectedMessage));
            }
            (Failure::of_hello(error), told)
        })?;
        if accepted.is_some() {
            return Ok(accepted);
        }
    }
    Ok(None)
}

/// Sends a fatal unrecognized_name (RFC 6066 section 3). What the client did not read of it is no matter of ours.
async fn refuse(mut stream: TcpStream) {
    let _ = stream.write_all(&fatal(AlertDescription::UnrecognisedName)).await;
    let _ = stream.shutdown().await;
}

/// Nothing is encrypted yet, so the record is five bytes of header (alert, version, length) and two of alert, in every version.
fn fatal(alert: AlertDescription) -> [u8; 7] {
    const FATAL: u8 = 2;
    [21, 3, 3, 0, 2, FATAL, u8::from(alert)]
}

/// Errors of rustls come wrapped.
fn rustls_error(error: io::Error) -> Result<rustls::Error, io::Error> {
    if error.kind() != ErrorKind::InvalidData {
        return Err(error);
    }
    error.downcast::<rustls::Error>()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Gate, on_worker};
    use super::*;
    use crate::telemetry::families;
    use crate::tls::testing::{Authority, Client, binding, certificate, listener};
    use rustls::ClientConnection;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;
    use tokio::time::Instant;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client;

    /// A gate where `a.test` and 127.0.0.1 are served, and a client that trusts it.
    fn gate() -> (Gate, Client) {
        let authority = Authority::new();
        let gate = Gate::open(1, [listener()]);
        let specs = [certificate("a", [authority.issue(&["a.test", "127.0.0.1"])])];
        let (names, problems) = ServerNames::compile(&listener(), &[binding(&[], "a")], &specs, None);
        assert_eq!(problems, []);
        gate.set(Arc::new(listener()), Some(names));
        (gate, Client::of(&authority))
    }

    async fn connect(gate: &Gate, client: &Client, name: &str) -> io::Result<client::TlsStream<TcpStream>> {
        let stream = gate.connect("https").await;
        TlsConnector::from(client.config()).connect(name.to_owned().try_into().unwrap(), stream).await
    }

    fn failures(gate: &Gate, reason: &str) -> u64 {
        gate.counter(&families::TLS_FAILURES, &[("listener", "https"), ("reason", reason)]).get()
    }

    #[test]
    fn a_name_that_is_served_is_shaken_hands_with_and_bytes_flow() {
        on_worker(async {
            let (mut gate, client) = gate();
            let mut stream = connect(&gate, &client, "a.test").await.unwrap();
            let mut incoming = gate.next().await;
            let tls = incoming.tls.clone().unwrap();
            assert_eq!((tls.server_name.as_deref(), tls.version), (Some("a.test"), "TLSv1.3"));
            assert!(incoming.alpn_h2 && incoming.stream.is_tls());
            stream.write_all(b"x").await.unwrap();
            stream.flush().await.unwrap();
            assert_eq!(incoming.stream.read_u8().await.unwrap(), b'x');
            incoming.stream.write_all(b"y").await.unwrap();
            incoming.stream.shutdown().await.unwrap();
            assert_eq!((stream.read_u8().await.unwrap(), stream.read(&mut [0]).await.unwrap()), (b'y', 0));
            let version = [("listener", "https"), ("version", "TLSv1.3")];
            assert_eq!(gate.counter(&families::TLS_HANDSHAKES, &version).get(), 1);
        });
    }

    #[test]
    fn a_client_of_an_address_gets_the_certificate_that_has_it() {
        on_worker(async {
            let (mut gate, client) = gate();
            let _stream = connect(&gate, &client, "127.0.0.1").await.unwrap();
            assert_eq!(gate.next().await.tls.unwrap().server_name, None);
        });
    }

    #[test]
    fn a_name_that_nothing_serves_gets_an_alert_that_says_so() {
        on_worker(async {
            let (gate, client) = gate();
            let error = connect(&gate, &client, "b.test").await.unwrap_err();
            let alert = rustls::Error::AlertReceived(AlertDescription::UnrecognisedName);
            assert_eq!(rustls_error(error).unwrap(), alert);
            gate.until(|gate| failures(gate, "unknown_name") == 1).await;
        });
    }

    #[test]
    fn a_client_that_refuses_our_certificate_is_counted_as_such() {
        on_worker(async {
            let (gate, _) = gate();
            assert!(connect(&gate, &Client::of(&Authority::new()), "a.test").await.is_err());
            gate.until(|gate| failures(gate, "client_alert") == 1).await;
        });
    }

    #[test]
    fn http_on_a_tls_port_is_no_tls() {
        on_worker(async {
            let (gate, _) = gate();
            let mut stream = gate.connect("https").await;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer.first(), Some(&21), "an alert");
            gate.until(|gate| failures(gate, "not_tls") == 1).await;
        });
    }

    #[test]
    fn a_hello_in_pieces_is_put_together() {
        on_worker(async {
            let (gate, client) = gate();
            let mut hello = Vec::new();
            let mut connection = ClientConnection::new(client.config(), "a.test".try_into().unwrap()).unwrap();
            connection.write_tls(&mut hello).unwrap();
            let mut stream = gate.connect("https").await;
            stream.set_nodelay(true).unwrap();
            for piece in hello.chunks(40) {
                stream.write_all(piece).await.unwrap();
                gate.turn().await;
            }
            assert_eq!(stream.read_u8().await.unwrap(), 22, "the server's part of the handshake");
        });
    }

    /// A ClientHello, the message without its record.
    fn hello(client: &Client) -> Vec<u8> {
        let mut record = Vec::new();
        let mut connection = ClientConnection::new(client.config(), "a.test".try_into().unwrap()).unwrap();
        connection.write_tls(&mut record).unwrap();
        record.split_off(5)
    }

    #[test]
    fn a_hello_in_many_records_is_put_together() {
        on_worker(async {
            let (gate, client) = gate();
            for size in [1, 3, 100] {
                let mut stream = gate.connect("https").await;
                let hello = hello(&client);
                let records = hello.chunks(size).map(|part| [&[22, 3, 1, 0, part.len() as u8], part].concat());
                stream.write_all(&records.collect::<Vec<_>>().concat()).await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), 22, "the server's part of the handshake");
            }
        });
    }

    #[test]
    fn a_hello_that_does_not_end_is_cut() {
        on_worker(async {
            let (gate, _) = gate();
            let mut stream = gate.connect("https").await;
            // It says that it is 65535 bytes long, of which a record holds one.
            stream.write_all(&[22, 3, 1, 0, 4, 1, 0, 0xff, 0xff]).await.unwrap();
            let records = [22, 3, 1, 0, 1, 0].repeat(20_000);
            let (mut from, mut to) = stream.split();
            let sent = async { to.write_all(&records).await.is_ok() };
            let came = async { from.read(&mut [0]).await.unwrap_or(0) };
            assert_eq!(tokio::join!(sent, came).1, 0);
            gate.until(|gate| failures(gate, "connection") == 1).await;
        });
    }

    #[test]
    fn a_handshake_that_does_not_end_in_time_is_cut() {
        on_worker(async {
            tokio::time::pause();
            let (gate, _) = gate();
            let mut stream = gate.connect("https").await;
            stream.write_all(&[22, 3, 1]).await.unwrap();
            let begun = Instant::now();
            assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
            assert!(begun.elapsed() >= Duration::from_secs(10));
            gate.until(|gate| failures(gate, "timeout") == 1).await;
        });
    }

    #[test]
    fn a_listener_without_any_certificate_refuses_every_name() {
        on_worker(async {
            let (gate, client) = gate();
            gate.set(Arc::new(listener()), None);
            assert!(connect(&gate, &client, "a.test").await.is_err());
            gate.until(|gate| failures(gate, "unknown_name") == 1).await;
        });
    }
}
