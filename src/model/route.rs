//! What is matched, and what is done with it?

use super::{FieldName, HostPattern, Origin, Policy};
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;
use std::time::Duration;

/// One route: match, filters, action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Unique and stable name, given or derived from host and path: `shop.example.com/api/`.
    pub name: String,
    /// Where it was said.
    pub origin: Origin,
    /// Listeners that serve it, by name; empty: all.
    pub listeners: Vec<String>,
    /// Hosts it answers to; empty: any host.
    pub hosts: Vec<HostPattern>,
    /// What must hold beside the host.
    pub matches: Match,
    /// Filters of the host and of the route together; the stages fix their order, not this list.
    pub policies: Vec<Policy>,
    /// What is done with a request that matches.
    pub action: Action,
    /// From the request's head to the last byte of the response; `None` (default): no limit but silence, so that
    /// event streams and large bodies are not cut. Never for upgrades.
    pub request_timeout: Option<Duration>,
    /// From sending an attempt to the head of its response; `None`: only the request's limit.
    pub try_timeout: Option<Duration>,
    /// Longest silence in either body; default 60 s.
    pub idle_timeout: Duration,
    /// When and how often an attempt is repeated.
    pub retry: RetrySpec,
}

/// Conditions beside the host, all of which must hold. Precedence among routes of one host as in Gateway API: exact path,
/// longest regular expression, longest prefix; then method, then number of header and then of query conditions; then the oldest,
/// then the name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// The path.
    pub path: PathMatch,
    /// Any of these methods; empty: every method.
    pub methods: Vec<http::Method>,
    /// Each of these header conditions.
    pub headers: Vec<(FieldName, StringMatch)>,
    /// Each of these query conditions; names and values compared after percent-decoding.
    pub query: Vec<(String, StringMatch)>,
    /// Client address in any of these networks; empty: every address.
    pub sources: Vec<ipnet::IpNet>,
}

/// How the canonical path is matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path: `=/health`.
    Exact(String),
    /// Whole segments: `/api` and `/api/` cover `/api` and `/api/x`, never `/apix` (Gateway API PathPrefix).
    Prefix(String),
    /// The whole path matches the expression: `~^/item/[0-9]+$` (anchored at both ends in any case).
    Regex(String),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".into())
    }
}

/// How a header or query value is matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringMatch {
    /// The whole value.
    Exact(String),
    /// The whole value matches the expression.
    Regex(String),
    /// There is such a header or query parameter.
    Present,
    /// There is none.
    Absent,
}

/// What is done with a request that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send it to one of these clusters, by weight.
    Forward(Vec<WeightedCluster>),
    /// Answer with a redirect. Boxed, as the next: nearly all of thousands of routes forward, which takes a fifth.
    Redirect(Box<RedirectSpec>),
    /// Answer directly.
    Respond(Box<RespondSpec>),
}

/// A cluster and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedCluster {
    /// The cluster's name: `shop/web`, `shop/api:8080`.
    pub cluster: Arc<str>,
    /// Share among the weights of the route; 0 gets nothing. Default 1.
    pub weight: u32,
}

/// A redirect; what is `None` is taken from the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectSpec {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Host name without port.
    pub host: Option<String>,
    /// Port; left out of the URL where it is the scheme's own.
    pub port: Option<u16>,
    /// New path; the query is kept.
    pub path: Option<super::PathRewrite>,
    /// 301, 302, 303, 307 or 308; default 302.
    pub status: u16,
}

/// A direct response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RespondSpec {
    /// 200 to 599.
    pub status: u16,
    /// Headers to send.
    pub headers: Vec<(FieldName, String)>,
    /// The body; `content-type: text/plain; charset=utf-8` unless a header says otherwise.
    pub body: String,
}

/// When an attempt is repeated, at another endpoint where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySpec {
    /// Attempts in all, the first included; default 2. Refused connections do not count beyond the endpoints there are.
    pub attempts: u32,
    /// On which failures; default `[Connect, Reset]`.
    pub on: SmallVec<[RetryOn; 4]>,
    /// Pause before the third attempt (the second goes out at once), doubled for each further one up to 5 s; up to a half of it
    /// is left out by chance. Default 25 ms.
    pub backoff: Duration,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self { attempts: 2, on: smallvec![RetryOn::Connect, RetryOn::Reset], backoff: Duration::from_millis(25) }
    }
}

/// A failure that may be repeated. All but `Connect` only for idempotent methods (RFC 9110 section 9.2.2) unless nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// No connection could be made.
    Connect,
    /// The connection ended before the head of the response.
    Reset,
    /// No head of the response within the time of one try.
    Timeout,
    /// This status of the response (500-599, 429).
    Status(u16),
}
