//! What do the heads of a request and of a response say?

use super::Fields;
use http::{Method, StatusCode};

/// Protocol version of a message as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// As in access logs: `HTTP/1.1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2.0",
        }
    }
}

/// Scheme of the connection that a request came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Cleartext.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL may leave out.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The head of a request. An exchange fills `method`, `version`, `scheme`, `raw_target`, `raw_authority` (HTTP/2),
/// `protocol` and `fields`; `normalize` makes `host`, `port`, `path` and `query` of them, once, and the same canonical bytes are
/// matched and forwarded. Reused from request to request: clearing keeps the memory.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// Method.
    pub method: Method,
    /// Version as received.
    pub version: Version,
    /// Scheme of the connection (what a trusted proxy said stands in the context).
    pub scheme: Scheme,
    /// Request target as received; `*` only with OPTIONS.
    pub raw_target: Vec<u8>,
    /// `:authority` of HTTP/2 as received; empty: none.
    pub raw_authority: Vec<u8>,
    /// `:protocol` of an extended CONNECT (RFC 8441), such as `websocket`; empty: none.
    pub protocol: Vec<u8>,
    /// Host, lower case, without port and trailing dot; brackets kept around IPv6 literals. After `normalize`.
    pub host: String,
    /// Port that the client named. After `normalize`.
    pub port: Option<u16>,
    /// Canonical path, never empty, percent-escapes in upper case. After `normalize`; rewritten by filters.
    pub path: String,
    /// Query without `?`, as received; meaningful only with `has_query`. After `normalize`.
    pub query: String,
    /// Whether the target had a `?`. After `normalize`.
    pub has_query: bool,
    /// Header fields.
    pub fields: Fields,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            method: Method::GET,
            version: Version::Http11,
            scheme: Scheme::Http,
            raw_target: Vec::new(),
            raw_authority: Vec::new(),
            protocol: Vec::new(),
            host: String::new(),
            port: None,
            path: String::new(),
            query: String::new(),
            has_query: false,
            fields: Fields::default(),
        }
    }
}

impl RequestHead {
    /// Forgets the request and keeps the memory.
    pub fn clear(&mut self) {
        self.method = Method::GET;
        self.raw_target.clear();
        self.raw_authority.clear();
        self.protocol.clear();
        self.host.clear();
        self.port = None;
        self.path.clear();
        self.query.clear();
        self.has_query = false;
        self.fields.clear();
    }

    /// A normalized request, for tests and `explain`: no parsing, the parts as given.
    pub fn sample(method: Method, host: &str, path: &str) -> Self {
        let (bare, query) = path.split_once('?').unwrap_or((path, ""));
        let has_query = bare.len() != path.len();
        Self {
            method,
            host: host.to_owned(),
            path: bare.to_owned(),
            query: query.to_owned(),
            has_query,
            ..Self::default()
        }
    }

    /// The query, where the target had one.
    pub fn query(&self) -> Option<&str> {
        self.has_query.then_some(self.query.as_str())
    }
}

/// The head of a response. The reason phrase is not kept: RFC 9112 section 4 says to ignore it.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// Status.
    pub status: StatusCode,
    /// Version as received.
    pub version: Version,
    /// Header fields.
    pub fields: Fields,
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self { status: StatusCode::OK, version: Version::Http11, fields: Fields::default() }
    }
}

impl ResponseHead {
    /// Forgets the response and keeps the memory.
    pub fn clear(&mut self) {
        self.status = StatusCode::OK;
        self.fields.clear();
    }
}
