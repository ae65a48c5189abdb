//! How is a connection to an endpoint made?

use super::cluster::Cluster;
use super::endpoint::{Endpoint, Outcome};
use super::proxy_header;
use super::shared::OpeningFailed;
use super::stream::{Line, UpstreamStream};
use crate::model::UpstreamProtocol;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, error::Elapsed};
use tokio_rustls::TlsConnector;

/// An idle peer is asked after this whether it still lives, and then this often.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes that are not acknowledged for so long end the connection: a node without power answers nothing, and the kernel would go on
/// for a quarter of an hour. It bounds a window that stays closed, too, hence no shorter than usual idle timeouts.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused(#[source] io::Error),
    /// Not within the connect timeout, TLS included.
    #[error("no connection in time")]
    Timeout(#[source] Elapsed),
    /// The certificate was not accepted, or TLS failed in another way.
    #[error("TLS failed")]
    Tls(#[source] io::Error),
    /// HTTP/2 is wanted and the other end does not speak it.
    #[error("the endpoint does not speak HTTP/2 over TLS (ALPN)")]
    NoHttp2,
    /// Another request's attempt, for which this one waited, failed.
    #[error(transparent)]
    Other(#[from] OpeningFailed),
    /// No route, no descriptor, a reset while connecting.
    #[error("connecting failed")]
    Io(#[source] io::Error),
}

impl ConnectError {
    /// What to report to the endpoint; `None` where another request reported it already.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Refused(_) | Self::Timeout(_) | Self::Io(_) => Some(Outcome::ConnectFailed),
            Self::Tls(_) | Self::NoHttp2 => Some(Outcome::TlsFailed),
            Self::Other(_) => None,
        }
    }
}

/// Connects to an endpoint: TCP, the PROXY header where the cluster wants one, TLS; all within the connect timeout. `client` is
/// both ends of the downstream connection, source and destination, as the PROXY header tells them.
pub async fn connect(
    cluster: &Cluster,
    endpoint: &Endpoint,
    client: (SocketAddr, SocketAddr),
) -> Result<UpstreamStream, ConnectError> {
    connect_for(cluster, endpoint, Some(client)).await
}

/// The same for nobody but ourselves (health checks) where there is no client.
pub(crate) async fn connect_for(
    cluster: &Cluster,
    endpoint: &Endpoint,
    client: Option<(SocketAddr, SocketAddr)>,
) -> Result<UpstreamStream, ConnectError> {
    let start = Instant::now();
    let within = tokio::time::timeout(cluster.spec().connect_timeout, establish(cluster, endpoint, client));
    let line = within.await.map_err(ConnectError::Timeout)??;
    cluster.ward.meters.connected(start.elapsed());
    Ok(UpstreamStream::new(line, cluster.ward.meters.open()))
}

async fn establish(
    cluster: &Cluster,
    endpoint: &Endpoint,
    client: Option<(SocketAddr, SocketAddr)>,
) -> Result<Line, ConnectError> {
    let mut stream = TcpStream::connect(endpoint.address()).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused(error),
        _ => ConnectError::Io(error),
    })?;
    tune(&stream).map_err(ConnectError::Io)?;
    if let Some(version) = cluster.spec().proxy_header {
        let header = proxy_header::encode(version, client);
        stream.write_all(&header).await.map_err(ConnectError::Io)?;
    }
    if cluster.spec().tls.is_none() {
        return Ok(Line::Tcp(stream));
    }
    secure(cluster, stream).await
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL))?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

async fn secure(cluster: &Cluster, stream: TcpStream) -> Result<Line, ConnectError> {
    let (Some(config), Some(name)) = (&cluster.tls, cluster.server_name.as_deref()) else {
        let what = "the cluster's TLS settings are not usable";
        return Err(ConnectError::Tls(io::Error::new(io::ErrorKind::InvalidInput, what)));
    };
    let connector = TlsConnector::from(config.clone());
    let stream = connector.connect(name.clone(), stream).await.map_err(ConnectError::Tls)?;
    if cluster.spec().protocol == UpstreamProtocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(ConnectError::NoHttp2);
    }
    Ok(Line::Tls(Box::new(stream)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Conn;
    use crate::model::{ClusterSpec, Pem, ProxyHeader, UpstreamTlsSpec};
    use crate::telemetry::metrics::Registry;
    use crate::upstream::testing::{at, members};
    use std::error::Error;
    use std::sync::Arc;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn client() -> (SocketAddr, SocketAddr) {
        ("192.0.2.1:4000".parse().unwrap(), "192.0.2.2:443".parse().unwrap())
    }

    async fn reach(spec: &ClusterSpec) -> Result<UpstreamStream, ConnectError> {
        let http2 = spec.protocol == UpstreamProtocol::Http2;
        let tls = spec.tls.as_ref().and_then(|tls| crate::tls::client_config(tls, None, http2).ok());
        let cluster = Cluster::new(spec, tls, &Registry::new(1, 1000));
        connect(&cluster, &members(&cluster)[0], client()).await
    }

    /// A certificate authority of one certificate, and the other side's use of it.
    fn authority(name: &str, alpn: &[&str]) -> (UpstreamTlsSpec, TlsAcceptor) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_no_client_auth();
        let mut config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        let ca = Pem(made.cert.pem().into_bytes().into());
        let spec = UpstreamTlsSpec { ca: ca.into(), server_name: name.to_owned(), client_certificate: None };
        (spec, TlsAcceptor::from(Arc::new(config)))
    }

    /// Accepts one connection, with TLS, and says hello on it.
    async fn greet(listener: TcpListener, acceptor: TlsAcceptor) {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = acceptor.accept(stream).await {
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_connection_sends_small_writes_at_once_and_notices_a_dead_peer() {
        let (_listener, address) = listener().await;
        let stream = reach(&at(address)).await.unwrap();
        let socket = SockRef::from(stream.socket());
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
        assert_eq!(socket.linger().unwrap(), None);
    }

    #[tokio::test]
    async fn open_connections_are_counted_until_they_are_dropped() {
        let (_listener, address) = listener().await;
        let cluster = crate::upstream::testing::cluster(&at(address));
        let endpoint = members(&cluster).remove(0);
        let one = connect(&cluster, &endpoint, client()).await.unwrap();
        let two = connect(&cluster, &endpoint, client()).await.unwrap();
        assert_eq!(cluster.ward.meters.open().get(), 2);
        drop((one, two));
        assert_eq!(cluster.ward.meters.open().get(), 0);
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_refuses() {
        let (listener, address) = listener().await;
        drop(listener);
        let error = reach(&at(address)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused(_)), "{error:?}");
        assert!(error.source().is_some());
        assert_eq!(error.outcome(), Some(Outcome::ConnectFailed));
    }

    #[tokio::test]
    async fn the_proxy_header_comes_first() {
        for (version, wanted) in [
            (ProxyHeader::V1, &b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 443\r\n"[..]),
            (ProxyHeader::V2, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x0f\xa0\x01\xbb"),
        ] {
            let (listener, address) = listener().await;
            let spec = ClusterSpec { proxy_header: Some(version), ..at(address) };
            let (mut stream, accepted) = (reach(&spec).await.unwrap(), listener.accept().await.unwrap());
            stream.write_all(b"GET").await.unwrap();
            drop(stream);
            let (mut accepted, mut received) = (accepted.0, Vec::new());
            accepted.read_to_end(&mut received).await.unwrap();
            assert_eq!(received, [wanted, b"GET"].concat());
        }
    }

    #[tokio::test]
    async fn tls_is_spoken_with_the_name_that_was_asked_for() {
        let (listener, address) = listener().await;
        let (tls, acceptor) = authority("shop.test", &["http/1.1"]);
        let greeting = tokio::spawn(greet(listener, acceptor));
        let mut stream = reach(&ClusterSpec { tls: Some(tls.into()), ..at(address) }).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        greeting.await.unwrap();
    }

    #[tokio::test]
    async fn a_certificate_of_another_name_is_not_accepted() {
        let (listener, address) = listener().await;
        let (mut tls, acceptor) = authority("shop.test", &[]);
        tls.server_name = "desk.test".into();
        let greeting = tokio::spawn(greet(listener, acceptor));
        let error = reach(&ClusterSpec { tls: Some(tls.into()), ..at(address) }).await.unwrap_err();
        assert!(matches!(error, ConnectError::Tls(_)), "{error:?}");
        assert_eq!(error.outcome(), Some(Outcome::TlsFailed));
        greeting.await.unwrap();
    }

    #[tokio::test]
    async fn http2_over_tls_must_be_agreed_on() {
        for (alpn, agreed) in [(&["h2"][..], true), (&[][..], false)] {
            let (listener, address) = listener().await;
            let (tls, acceptor) = authority("shop.test", alpn);
            let greeting = tokio::spawn(greet(listener, acceptor));
            let spec = ClusterSpec { tls: Some(tls.into()), protocol: UpstreamProtocol::Http2, ..at(address) };
            match reach(&spec).await {
                Ok(_) => assert!(agreed),
                Err(error) => assert!(!agreed && matches!(error, ConnectError::NoHttp2), "{error:?}"),
            }
            greeting.abort();
        }
    }

    #[tokio::test]
    async fn without_usable_tls_settings_nothing_goes_out_in_cleartext() {
        let (_listener, address) = listener().await;
        let tls =
            UpstreamTlsSpec { ca: Pem::default().into(), server_name: "shop.test".into(), client_certificate: None };
        let error = reach(&ClusterSpec { tls: Some(tls.into()), ..at(address) }).await.unwrap_err();
        assert!(matches!(error, ConnectError::Tls(_)), "{error:?}");
    }

    #[tokio::test]
    async fn the_connect_timeout_covers_the_tls_handshake() {
        let (_listener, address) = listener().await;
        let (tls, _) = authority("shop.test", &[]);
        let connect_timeout = Duration::from_millis(20);
        let error = reach(&ClusterSpec { tls: Some(tls.into()), connect_timeout, ..at(address) }).await.unwrap_err();
        assert!(matches!(error, ConnectError::Timeout(_)), "{error:?}");
    }

    #[tokio::test]
    async fn an_idle_connection_is_so_until_its_other_end_speaks_or_closes() {
        let (listener, address) = listener().await;
        for says in [&b"x"[..], b""] {
            let mut conn = Conn::new(reach(&at(address)).await.unwrap());
            let (mut other, _) = listener.accept().await.unwrap();
            assert!(conn.is_idle());
            other.write_all(says).await.unwrap();
            drop(other);
            conn.stream().socket().readable().await.unwrap();
            assert!(!conn.is_idle());
        }
    }
}
