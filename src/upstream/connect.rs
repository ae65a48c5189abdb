//! How is a connection to an endpoint made?

use super::cluster::Cluster;
use super::endpoint::{Endpoint, Outcome};
use super::proxy_header;
use super::shared::OpeningFailed;
use super::stream::UpstreamStream;
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
    let stream = within.await.map_err(ConnectError::Timeout)??;
    cluster.ward.meters.connected(start.elapsed());
    Ok(stream)
}

async fn establish(
    cluster: &Cluster,
    endpoint: &Endpoint,
    client: Option<(SocketAddr, SocketAddr)>,
) -> Result<UpstreamStream, ConnectError> {
    let mut stream = TcpStream::connect(endpoint.address).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectError::Refused(error),
        _ => ConnectError::Io(error),
    })?;
    tune(&stream).map_err(ConnectError::Io)?;
    if let Some(version) = cluster.spec().proxy_header {
        let header = proxy_header::encode(version, client);
        stream.write_all(&header).await.map_err(ConnectError::Io)?;
    }
    if cluster.spec().tls.is_none() {
        return Ok(UpstreamStream::Tcp(stream));
    }
    secure(cluster, stream).await
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL))?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

async fn secure(cluster: &Cluster, stream: TcpStream) -> Result<UpstreamStream, ConnectError> {
    let (Some(config), Some(name)) = (&cluster.tls, &cluster.server_name) else {
        let what = "the cluster's TLS settings are not usable";
        return Err(ConnectError::Tls(io::Error::new(io::ErrorKind::InvalidInput, what)));
    };
    let connector = TlsConnector::from(config.clone());
    let stream = connector.connect(name.clone(), stream).await.map_err(ConnectError::Tls)?;
    if cluster.spec().protocol == UpstreamProtocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(ConnectError::NoHttp2);
    }
    Ok(UpstreamStream::Tls(Box::new(stream)))
}
