//! What is a bound address, and what holds for everything that comes in there?

use super::{ClientAuthSpec, Origin, Policy};
use std::net::SocketAddr;
use std::time::Duration;

/// A bound address and port, its protocol and TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerSpec {
    /// Unique name, such as `http` or `https`; `https#2` is the second address of `https`.
    pub name: String,
    /// Where it was said.
    pub origin: Origin,
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// Cleartext or TLS.
    pub protocol: ListenerProtocol,
    /// Networks whose connections begin with a PROXY header (v1 or v2); from others it is a syntax error like any garbage.
    pub proxy_protocol_from: Vec<ipnet::IpNet>,
    /// Networks whose `X-Forwarded-*` and `Forwarded` are believed; others' are replaced.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Answer every request with a redirect to https.
    pub https_redirect: Option<HttpsRedirect>,
    /// Filters of every request that comes in here.
    pub policies: Vec<Policy>,
    /// What becomes of a path with an escaped slash.
    pub encoded_slash: EncodedSlash,
    /// What the proxy tells upstreams and clients about itself and the connection.
    pub headers: ProxyHeaders,
    /// Limits.
    pub limits: Limits,
    /// Timeouts.
    pub timeouts: TimeoutSpec,
}

impl ListenerSpec {
    /// Whether this is the listener of that name, or one of its further addresses (`NAME#2`).
    pub fn is_called(&self, name: &str) -> bool {
        let rest = self.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
    }
}

/// Cleartext or TLS.
#[derive(Clone, Debug, PartialEq)]
pub enum ListenerProtocol {
    /// HTTP/1 and HTTP/2 with prior knowledge, in cleartext.
    Http,
    /// HTTP/1 and HTTP/2 by ALPN over TLS.
    Https(TlsSpec),
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsSpec {
    /// Oldest version; default 1.2.
    pub min_version: TlsVersion,
    /// Client certificates; `None`: not asked for.
    pub client_auth: Option<ClientAuthSpec>,
    /// Served for server names without a binding and for clients that send none; `None`: a TLS alert.
    pub default_certificate: Option<String>,
    /// Offer HTTP/2; default true.
    pub http2: bool,
}

/// TLS versions that rustls speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// Redirect of a whole listener to https.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsRedirect {
    /// Port of the target; left out of the URL where it is 443.
    pub port: u16,
    /// 301 or 308; default 308.
    pub status: u16,
}

/// Headers that the proxy itself writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyHeaders {
    /// X-Forwarded-For, -Proto, -Host, -Port to the upstream; default true. Untrusted clients' own are dropped in any case.
    pub x_forwarded: bool,
    /// Forwarded (RFC 7239) to the upstream; default false.
    pub forwarded: bool,
    /// X-Request-Id to the upstream, kept from trusted proxies, made otherwise; default true.
    pub request_id: bool,
    /// Via in both directions (RFC 9110 section 7.6.3); default false.
    pub via: bool,
    /// The Server header of responses.
    pub server: ServerHeader,
    /// Header names of requests that hold other characters than letters, digits and hyphens.
    pub odd_names: OddNames,
}

impl Default for ProxyHeaders {
    fn default() -> Self {
        Self {
            x_forwarded: true,
            forwarded: false,
            request_id: true,
            via: false,
            server: ServerHeader::Keep,
            odd_names: OddNames::Refuse,
        }
    }
}

/// What becomes of a path with `%2F`, which some servers decode before they part the path and others after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncodedSlash {
    /// The request is refused.
    #[default]
    Refuse,
    /// It stays as it is, a part of its segment; refused where by the other reading it would be of another route, or have dot segments.
    Keep,
}

/// What becomes of a header name that an upstream may take for another one: to CGI `X_Real_IP` is `X-Real-IP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OddNames {
    /// The request is refused (default).
    Refuse,
    /// The field is left out, as by nginx.
    Drop,
}

/// What becomes of the Server header of responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerHeader {
    /// The upstream's own (default).
    Keep,
    /// None.
    Remove,
    /// This text.
    Set(String),
}

/// What one listener takes at the most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time over all workers; default 100 000, held below the file-descriptor limit.
    pub connections: u32,
    /// Connections at a time from one source address; default 0: no limit (many clients may share an address).
    pub connections_per_source: u32,
    /// Bytes of a request's head over HTTP/1; 431 beyond; default 32 KiB.
    pub head_bytes: u32,
    /// The same over HTTP/2, counted as RFC 9113 section 6.5.2 does: 32 bytes more for each field. Default as `head_bytes`.
    pub http2_head_bytes: u32,
    /// Bytes of a request's target; 414 beyond; default 8 KiB.
    pub target_bytes: u32,
    /// Header fields of a request; 431 beyond; default 100.
    pub headers: u32,
    /// HTTP/2 streams at a time on one connection; default 100.
    pub streams: u32,
    /// Requests on one connection until it is closed; 0: no limit (default).
    pub requests_per_connection: u32,
    /// Bytes a second that a request's body must bring on average; 408 below; 0: no limit; default 100. Not for gRPC, whose bodies
    /// are conversations, nor once the answer has begun.
    pub body_rate: u32,
}

impl Limits {
    /// Largest `head_bytes`: a head of HTTP/1 is read into one block of memory, and this is the largest there is.
    pub const MAX_HEAD: u32 = 256 * 1024;
    /// Largest `http2_head_bytes`: a head that is a few bytes on the wire is held whole once it is decompressed, for each stream
    /// (CVE-2026-49975).
    pub const MAX_HTTP2_HEAD: u32 = 32 * 1024;
    /// Largest `headers`: heads are parsed into a table of this size.
    pub const MAX_HEADERS: u32 = 256;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            connections_per_source: 0,
            head_bytes: 32 * 1024,
            http2_head_bytes: 32 * 1024,
            target_bytes: 8 * 1024,
            headers: 100,
            streams: 100,
            requests_per_connection: 0,
            body_rate: 100,
        }
    }
}

/// How long a listener waits for its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeoutSpec {
    /// TLS handshake and PROXY header; default 10 s.
    pub handshake: Duration,
    /// From the first byte (or the accept) to the end of a request's head; 408 beyond; default 10 s.
    pub head: Duration,
    /// Between two requests; default 60 s.
    pub keep_alive: Duration,
    /// Longest silence while a body is awaited or written; default 60 s.
    pub idle: Duration,
    /// How far a request's body may fall behind [`Limits::body_rate`]; default 30 s.
    pub body: Duration,
}

impl Default for TimeoutSpec {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            body: Duration::from_secs(30),
        }
    }
}
