//! What is known about a request so far, beside the message itself?

use super::Scheme;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What a TLS handshake told about a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// Server name asked for, lower case.
    pub server_name: Option<Box<str>>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// Cipher suite.
    pub cipher: &'static str,
    /// Verified client certificate as the value of a Client-Cert field (RFC 9440: `:base64:`).
    pub client_certificate: Option<Box<str>>,
    /// Identity of the TLS policy that served this connection: host names with another one answer 421.
    pub policy: u64,
}

/// A check that would have refused the request but is only audited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Token of the filter: `header_check`.
    pub filter: &'static str,
    /// What did not hold: `header x-key is missing`.
    pub detail: Arc<str>,
}

/// What is known about a request so far; the record that the access log is written from.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// When its first byte came.
    pub started: Instant,
    /// Other end of the connection, or what a trusted PROXY header said.
    pub peer: SocketAddr,
    /// Our end of the connection.
    pub local: SocketAddr,
    /// The client: the peer, or what trusted proxies said (right-to-left walk).
    pub client: IpAddr,
    /// The scheme that the client used, as trusted proxies said or as the connection is.
    pub client_scheme: Scheme,
    /// TLS of the connection.
    pub tls: Option<Arc<TlsInfo>>,
    /// Status sent downstream; 0 until there is one.
    pub status: u16,
    /// Reason token where the proxy itself answered or cut (`no_route`, `upstream_reset`); `None` for a plain proxied response.
    pub reason: Option<&'static str>,
    /// Attempts made upstream.
    pub attempts: u16,
    /// The endpoint of the last attempt.
    pub endpoint: Option<SocketAddr>,
    /// Body bytes received from the client.
    pub bytes_in: u64,
    /// Body bytes sent to the client.
    pub bytes_out: u64,
    /// From the start to the head of the upstream's response.
    pub upstream_head: Option<Duration>,
    /// The first check of the listener that would have refused the request.
    pub audited_by_listener: Option<Audit>,
    /// The same of the route.
    pub audited: Option<Audit>,
}

impl RequestContext {
    /// A request that came in now on a connection between `peer` and `local`.
    pub fn new(
        started: Instant,
        peer: SocketAddr,
        local: SocketAddr,
        scheme: Scheme,
        tls: Option<Arc<TlsInfo>>,
    ) -> Self {
        Self {
            started,
            peer,
            local,
            client: peer.ip(),
            client_scheme: scheme,
            tls,
            status: 0,
            reason: None,
            attempts: 0,
            endpoint: None,
            bytes_in: 0,
            bytes_out: 0,
            upstream_head: None,
            audited_by_listener: None,
            audited: None,
        }
    }
}
