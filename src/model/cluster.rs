//! What is an upstream service, and how is it treated?

use super::{Authorities, FieldName, Origin};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A named upstream service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpec {
    /// `namespace/service[:port]`, or any name without blanks in files.
    pub name: Arc<str>,
    /// Where it was said.
    pub origin: Origin,
    /// Its addresses. Compared apart from the rest: other endpoints alone never make a new cluster.
    pub endpoints: Vec<EndpointSpec>,
    /// Whether memberships say its endpoints instead; default no. A name that a file has too keeps what the file says.
    pub followed: bool,
    /// How it is spoken to; default HTTP/1.1.
    pub protocol: UpstreamProtocol,
    /// TLS towards it; `None`: cleartext.
    pub tls: Option<Box<UpstreamTlsSpec>>,
    /// PROXY header sent first on each connection; `None`: none.
    pub proxy_header: Option<ProxyHeader>,
    /// Who is picked.
    pub balance: BalancePolicy,
    /// Active checks; `None`: none.
    pub health_check: Option<Box<HealthCheckSpec>>,
    /// Passive ejection; on by default.
    pub outlier: Option<OutlierSpec>,
    /// A new endpoint's share grows from a tenth to all of it in this time; zero: at once (default).
    pub slow_start: Duration,
    /// To establish a connection, TLS included; default 2 s.
    pub connect_timeout: Duration,
    /// Idle pooled connections are closed after this; default 30 s (below the keep-alive of common servers).
    pub idle_timeout: Duration,
    /// Idle connections kept for each endpoint and worker; default 128.
    pub max_idle: u32,
    /// Requests in flight to one endpoint, over all workers; 0: no limit (default).
    pub max_in_flight: u32,
    /// Requests that may wait for a place, over all workers; default 1024.
    pub max_queue: u32,
    /// How long a request may wait for a place; default 5 s, then 503.
    pub queue_timeout: Duration,
    /// Retries as a percentage of requests in flight and recent requests; default 20. Three a second are always allowed.
    pub retry_budget: u32,
}

impl ClusterSpec {
    /// A cluster of these addresses with every default.
    pub fn new(name: impl Into<Arc<str>>, origin: Origin, endpoints: Vec<EndpointSpec>) -> Self {
        Self {
            name: name.into(),
            origin,
            endpoints,
            followed: false,
            protocol: UpstreamProtocol::Http1,
            tls: None,
            proxy_header: None,
            balance: BalancePolicy::LeastRequest,
            health_check: None,
            outlier: Some(OutlierSpec::default()),
            slow_start: Duration::ZERO,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(30),
            max_idle: 128,
            max_in_flight: 0,
            max_queue: 1024,
            queue_timeout: Duration::from_secs(5),
            retry_budget: 20,
        }
    }
}

/// One address of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointSpec {
    /// Where it listens.
    pub address: SocketAddr,
    /// Share among endpoints; default 1, 0 takes no new requests.
    pub weight: u32,
    /// How far it is from this gate; default: it makes no difference.
    pub near: Nearness,
}

impl EndpointSpec {
    /// An endpoint of this weight at no particular distance.
    pub fn new(address: SocketAddr, weight: u32) -> Self {
        Self { address, weight, near: Nearness::Anywhere }
    }
}

/// How far an endpoint is from this gate. The nearest come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nearness {
    /// On the same node.
    Node,
    /// In the same zone, or hinted to it.
    Zone,
    /// Anywhere.
    #[default]
    Anywhere,
}

impl Nearness {
    /// The one of this number, as `near as u8` gives it.
    pub fn of(number: u8) -> Self {
        const { assert!(Self::Node as u8 == 0 && Self::Zone as u8 == 1) };
        match number {
            0 => Self::Node,
            1 => Self::Zone,
            _ => Self::Anywhere,
        }
    }
}

/// How a cluster is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: by ALPN over TLS, with prior knowledge in cleartext (gRPC).
    Http2,
}

/// TLS towards a cluster. There is no way to switch verification off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTlsSpec {
    /// Certificate authorities that are trusted.
    pub ca: Authorities,
    /// Server name asked for and verified.
    pub server_name: String,
    /// Client certificate and key, by the name of a certificate.
    pub client_certificate: Option<String>,
}

/// Version of the PROXY header sent upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// Who is picked among the endpoints that are healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BalancePolicy {
    /// Of two at random, the one with fewer requests in flight for its weight (power of two choices). The default. The only one
    /// that prefers near endpoints: from the nearest that are well, until they are busy compared with the others.
    LeastRequest,
    /// In turn, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
    /// The same endpoint for the same key, on every instance; a request without the key goes by `LeastRequest`.
    Hash(HashKey),
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// A request header's first value.
    Header(FieldName),
    /// A cookie's value.
    Cookie(String),
    /// The client's address.
    Source,
}

/// Active checks of every endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckSpec {
    /// What is asked.
    pub check: HealthCheck,
    /// Pause between two checks, with 10 % jitter; default 5 s.
    pub interval: Duration,
    /// Limit for one check; default 2 s.
    pub timeout: Duration,
    /// Successes in a row until an endpoint is healthy again; default 2.
    pub healthy: u32,
    /// Failures in a row until it is not; default 3.
    pub unhealthy: u32,
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// `GET path` answered by 200-399 (or by `status`, where given).
    Http {
        /// Path to ask.
        path: String,
        /// Host header; default the TLS server name, else the endpoint's address.
        host: Option<String>,
        /// The one status that is healthy.
        status: Option<u16>,
    },
    /// `grpc.health.v1.Health/Check` answers SERVING for this service (empty: the whole server).
    Grpc {
        /// Service name.
        service: String,
    },
    /// A connection can be made.
    Tcp,
}

/// Passive ejection by what real traffic meets. Never more than half of the endpoints at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierSpec {
    /// Failures in a row (connect, reset, timeout, 502-504) until an endpoint is put aside; default 5.
    pub failures: u32,
    /// First time aside; doubled each time up to 10 times, default 10 s. Then one request probes it.
    pub ejection: Duration,
}

impl Default for OutlierSpec {
    fn default() -> Self {
        Self { failures: 5, ejection: Duration::from_secs(10) }
    }
}
