//! What can an operator see and change while it runs?
//!
//! Its own listener on a thread of its own, 127.0.0.1 unless configured otherwise: a scrape never delays a request, and a compile
//! never a scrape.
//! It holds only readers of what the other rooms publish. Everything it answers stands in one table, `pages::PAGES`, which
//! `GET /` and `GET /api/v1` print.

mod api;
mod console;
mod control;
mod door;
mod host;
mod pages;
mod probes;
mod query;
mod reply;
pub mod view;

use crate::lifecycle::{Readiness, Tasks};
use crate::snapshot::Shared;
use crate::source::Report;
use crate::telemetry::families::{self, CLASSES, class_index};
use crate::telemetry::{Connections, Counter, Log, Registry, Seldom};
use bytes::Bytes;
use door::Visitor;
pub use door::{Door, open_socket};
use http::header::{ALLOW, HOST, HeaderName, HeaderValue, ORIGIN};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pages::{Answer, Page};
use query::Query;
use reply::{Refusal, Reply, refuse};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};

/// A head, or the next request on a connection, must come within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The body of a change must come within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// The body of a change is no longer than this.
const BODY_BYTES: usize = 4096;
/// No connection lives longer, whatever it does: one that does not read its answer holds a place.
const LIFETIME: Duration = Duration::from_secs(300);

/// What the admin port offers.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Whether `/api/v1` and the console are there, beside probes and metrics.
    pub api: bool,
    /// Host names that are answered beside addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Connections at a time; further ones are closed.
    pub connections: usize,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { api: true, hosts: Vec::new(), connections: 64 }
    }
}

/// What the admin port reads, and the little it can ask for.
#[derive(Clone, Debug)]
pub struct Handles {
    /// For `/metrics`.
    pub registry: Registry,
    /// For `/readyz`.
    pub readiness: Readiness,
    /// Level of the log.
    pub log: Log,
    /// Open connections.
    pub connections: Connections,
    /// What serves.
    pub shared: Shared,
    /// What became of the last change.
    pub report: watch::Receiver<Report>,
    /// Names and bound addresses of the listeners that are open.
    pub bound: watch::Receiver<Vec<(String, SocketAddr)>>,
    /// Where `POST /api/v1/drain` asks for a drain; `None` (the default of the install configuration): there is no such page.
    pub drain: Option<mpsc::Sender<()>>,
}

/// Answers requests at `door` until it is dropped. Runs on the admin thread.
pub async fn serve(door: impl Into<Door>, config: AdminConfig, handles: Handles, tasks: Tasks) {
    let door = door.into();
    let places = Arc::new(Semaphore::new(config.connections));
    let desk = Arc::new(Desk::new(config, handles));
    let warn = Seldom::new(Duration::from_secs(10));
    loop {
        let visitor = match door.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(before) = warn.allow() {
                    tracing::warn!(%error, before, "admin connection cannot be accepted");
                }
                // Out of descriptors, most often: a pause lets others close theirs.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let desk = Arc::clone(&desk);
        let connection = async move {
            match visitor {
                Visitor::Port(stream, peer) => converse(stream, peer, desk).await,
                Visitor::Socket(stream) => converse(stream, door::HERE, desk).await,
            }
            drop(place);
        };
        tasks.spawn_passing("admin connection", connection).detach();
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr, desk: Arc<Desk>) {
    let service = service_fn(move |request| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(desk.answer(request, peer).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(16 * 1024);
    // How the connection ends is the client's affair: garbage, silence and a reset need no line in the log.
    let _ = timeout(LIFETIME, builder.serve_connection(TokioIo::new(stream), service)).await;
}

/// Handles and settings, shared by all connections.
#[derive(Debug)]
struct Desk {
    config: AdminConfig,
    handles: Handles,
    answered: Vec<Counter>,
    state: probes::State,
}

impl Desk {
    fn new(config: AdminConfig, handles: Handles) -> Self {
        let counter = |class| handles.registry.counter(&families::ADMIN_REQUESTS, &[("class", class)]);
        let answered = CLASSES.into_iter().map(counter).collect();
        let state = probes::State::new(&handles);
        Self { config, handles, answered, state }
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Reply {
        let reply = self.route(request, peer).await.unwrap_or_else(|refusal| *refusal);
        if let Some(counter) = self.answered.get(class_index(reply.status().as_u16())) {
            counter.add(1);
        }
        reply
    }

    async fn route(&self, request: Request<Incoming>, peer: SocketAddr) -> Result<Reply, Refusal> {
        self.check_host(&request)?;
        let page = self.find(request.method(), request.uri().path())?;
        let query = Query::parse(request.uri().query().unwrap_or_default());
        match page.answer {
            Answer::Read(read) => Ok(read(self, &query)),
            Answer::Change(change) => {
                check_origin(&request, peer)?;
                let body = read_body(request).await?;
                Ok(change(self, &body, peer))
            }
        }
    }

    fn check_host(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        let header = request.headers().get(HOST).map(|value| value.to_str().unwrap_or_default());
        let target = request.uri().authority().map(http::uri::Authority::as_str);
        // HTTP/1.0 needs no Host; no browser leaves it out.
        let named = header.into_iter().chain(target);
        if named.into_iter().all(|host| host::is_allowed(host, &self.config.hosts)) {
            return Ok(());
        }
        let hint = "ask by address or localhost, or list the name in the install configuration";
        Err(refuse(StatusCode::MISDIRECTED_REQUEST, "this host name is not served here", hint))
    }

    fn find(&self, method: &Method, path: &str) -> Result<&'static Page, Refusal> {
        let mut here = self.pages().filter(|page| page.path == path).peekable();
        if here.peek().is_none() {
            return Err(refuse(StatusCode::NOT_FOUND, "there is no such page", "GET / lists what there is"));
        }
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let allowed: Vec<&Page> = here.collect();
        let found = allowed.iter().find(|page| page.method == method);
        found.copied().ok_or_else(|| {
            let methods: Vec<_> = allowed.iter().map(|page| page.method.as_str()).collect();
            let mut reply = refuse(StatusCode::METHOD_NOT_ALLOWED, "this page is not for that method", "");
            if let Ok(methods) = HeaderValue::from_str(&methods.join(", ")) {
                reply.headers_mut().insert(ALLOW, methods);
            }
            reply
        })
    }

    /// The pages that are there with this configuration.
    fn pages(&self) -> impl Iterator<Item = &'static Page> {
        let (api, drain) = (self.config.api, self.handles.drain.is_some());
        pages::PAGES.iter().filter(move |page| match page.needs {
            pages::Needs::Nothing => true,
            pages::Needs::Api => api,
            pages::Needs::Drain => api && drain,
        })
    }
}

/// Changes are for this machine, and not for pages of other origins in a browser on it.
fn check_origin(request: &Request<Incoming>, peer: SocketAddr) -> Result<(), Refusal> {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    if !is_local(peer) {
        let hint = "ask from the machine itself";
        return Err(refuse(StatusCode::FORBIDDEN, "changes are taken from a loopback address only", hint));
    }
    let same = request.headers().get(SITE).is_none_or(|site| site == "same-origin" || site == "none");
    if !same || (request.headers().contains_key(ORIGIN) && !request.headers().contains_key(SITE)) {
        return Err(refuse(StatusCode::FORBIDDEN, "changes are not taken from other origins", ""));
    }
    Ok(())
}

fn is_local(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

async fn read_body(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let body = timeout(BODY_TIMEOUT, Limited::new(request.into_body(), BODY_BYTES).collect()).await;
    match body {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body cannot be read or is too long", "")),
        Err(_) => Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come in time", "")),
    }
}

#[cfg(test)]
mod tests;
