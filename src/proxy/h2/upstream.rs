//! How is a request sent over HTTP/2 to an upstream?

use super::body::RecvBody;
use super::convert;
use super::duplex::Duplex;
use super::line::{self, Counted, Line};
use super::pump::{Failed, Pump};
use crate::http1::{BodyKind, BodySource, Deadline, RelayError, framing};
use crate::message::{FieldId, Version, hop};
use crate::proxy::error::ProxyError;
use crate::proxy::push::{MAX_INFORMATIONAL, await_head, inform, watched};
use crate::proxy::remote::{Remote, Wire};
use crate::proxy::request::{Downstream, Request};
use crate::proxy::websocket;
use crate::proxy::worker::Connection;
use crate::upstream::{Cluster, ConnectError, Endpoint, Keep, Lease, Outcome, Permit, Shared};
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Response, StatusCode};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// Streams that one connection carries at once before another is opened.
const STREAMS: u32 = 100;

/// A place on a connection.
pub enum Stream {
    /// On one that other requests use, too.
    Shared(Lease<Line>),
    /// On one of its own: it began with a PROXY header, which speaks for one client.
    Own(Line),
}

impl Stream {
    fn line(&mut self) -> &mut Line {
        match self {
            Self::Shared(lease) => lease.handle(),
            Self::Own(line) => line,
        }
    }

    /// The connection takes no more requests.
    fn retire(&self) {
        if let Self::Shared(lease) = self {
            lease.retire();
        }
    }
}

/// The HTTP/2 connections of one worker.
pub struct Lines(Shared<Line>);

impl Default for Lines {
    fn default() -> Self {
        Self(Shared::new(STREAMS))
    }
}

impl Lines {
    /// Forgets connections that died or were idle too long.
    pub fn sweep(&self) {
        self.0.sweep(Instant::now(), |line| !line.is_closed());
    }
}

/// A place on a connection to the endpoint, made where there is none.
pub async fn stream_to(
    connection: &Connection,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
) -> Result<Stream, ConnectError> {
    let ends = (connection.peer, connection.local);
    let open = async || line::open(cluster, endpoint, ends).await;
    if !cluster.may_reuse_connections() {
        return open().await.map(Stream::Own);
    }
    let spec = cluster.spec();
    let keep = Keep { max_idle: spec.max_idle, idle_timeout: spec.idle_timeout };
    connection.worker.lines.0.obtain(endpoint, keep, |line| !line.is_closed(), open).await.map(Stream::Shared)
}

/// A request on a stream.
pub struct H2Wire {
    /// Takes the request's body.
    out: SendStream<Bytes>,
    pump: Pump,
    answer: ResponseFuture,
    /// Gives the response's body; `None` before its head.
    pub(in crate::proxy) body: Option<RecvBody>,
    /// Its place on a connection; given back when dropped.
    stream: Stream,
    _counted: Counted,
}

impl H2Wire {
    /// Moves the request's body on. `moved` counts what was taken of it: that is gone for another attempt, sent or not.
    pub fn poll_push<B: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut B,
        moved: &mut u64,
    ) -> Poll<Result<(), RelayError>> {
        let before = self.pump.taken();
        let polled = self.pump.poll(cx, down, &mut self.out, &mut 0, hop::strip_request_trailers);
        *moved += self.pump.taken() - before;
        polled.map_err(|failed| match failed {
            Failed::Source(error) => RelayError::Source(error),
            Failed::Sink => RelayError::Sink(io::ErrorKind::BrokenPipe.into()),
        })
    }

    /// Whether a piece of the request's body waits for the upstream.
    pub fn is_held_up(&self) -> bool {
        self.pump.is_held_up()
    }

    /// The stream as a connection, after the head of the answer.
    pub(in crate::proxy) fn tunnel(&mut self) -> Option<Duplex<'_>> {
        Some(Duplex { from: self.body.as_mut()?, to: &mut self.out })
    }

    /// The next head of the answer: informational ones, then the final one.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, h2::Error>> {
        match self.answer.poll_informational(cx) {
            Poll::Ready(Some(head)) => Poll::Ready(head.map(Head::Informational)),
            Poll::Ready(None) => Pin::new(&mut self.answer).poll(cx).map_ok(Head::Final),
            Poll::Pending => Poll::Pending,
        }
    }
}

enum Head {
    Informational(Response<()>),
    Final(Response<RecvStream>),
}

/// Sends the request and waits for the head of the answer.
pub async fn send<D: Downstream>(
    mut stream: Stream,
    (endpoint, cluster, permit): (Arc<Endpoint>, Arc<Cluster>, Permit),
    request: &mut Request,
    down: &mut D,
    body: BodyKind,
    deadline: &mut Deadline,
) -> Result<Remote, ProxyError> {
    let connects = request.upgrade.eq_ignore_ascii_case(b"websocket");
    if connects {
        check_websocket(&mut stream, request, down, deadline).await?;
    }
    let empty = !connects && matches!(body, BodyKind::None | BodyKind::Length(0));
    let protocol = connects.then(|| Protocol::from_static("websocket"));
    let message =
        convert::to_request(&request.head, cluster.spec().tls.is_some(), protocol).ok_or(ProxyError::Malformed)?;
    let counted = stream.line().count();
    let Ok((answer, out)) = stream.line().send.send_request(message, empty) else {
        // It has ended, was told to go away, or has no numbers left for streams; nothing was sent.
        stream.retire();
        return Err(ProxyError::Unprocessed);
    };
    let wire = H2Wire { out, pump: Pump::default(), answer, body: None, stream, _counted: counted };
    let mut remote = Remote::new(Wire::H2(Box::new(wire)), false, endpoint, cluster, permit);
    (remote.sent, remote.keep) = (empty || connects, true);
    let response = match answer_head(&mut remote, request, down, deadline).await {
        Ok(response) => response,
        Err(error) => {
            report(&remote.endpoint, &error);
            return Err(error);
        }
    };
    remote.endpoint.report(Outcome::Status(response.status().as_u16()));
    let now = Instant::now();
    remote.endpoint.answered(now - request.asked);
    request.ctx.upstream_head = Some(now - request.ctx.started);
    receive(&mut remote, request, response, connects)?;
    Ok(remote)
}

/// Whether a WebSocket may be asked for: the upstream takes it, and the key is one that can be answered here.
async fn check_websocket<D: Downstream>(
    stream: &mut Stream,
    request: &mut Request,
    down: &mut D,
    deadline: &mut Deadline,
) -> Result<(), ProxyError> {
    let key = request.head.fields.get(FieldId::SecWebSocketKey).unwrap_or_default();
    if request.head.version != Version::Http2 && !websocket::is_key(key) {
        return Err(ProxyError::UpgradeKey);
    }
    let line = stream.line().clone();
    if watched(line.takes_connect(), down, deadline, ProxyError::Timeout).await? {
        return Ok(());
    }
    if line.is_closed() { Err(ProxyError::Unprocessed) } else { Err(ProxyError::UpgradeUnsupported) }
}

/// Waits for the head of the final answer, sending the body meanwhile.
async fn answer_head<D: Downstream>(
    remote: &mut Remote,
    request: &mut Request,
    down: &mut D,
    deadline: &mut Deadline,
) -> Result<Response<RecvStream>, ProxyError> {
    for _ in 0..=MAX_INFORMATIONAL {
        let head = await_head(remote, request, down, deadline, |cx, remote, _| {
            let Wire::H2(wire) = &mut remote.wire else { return Poll::Ready(Err(ProxyError::Malformed)) };
            wire.poll_head(cx).map_err(|error| failed(&error, &wire.stream))
        });
        match head.await? {
            Head::Final(response) => return Ok(response),
            // RFC 9113 section 8.6: HTTP/2 has no such switch.
            Head::Informational(head) if head.status() == StatusCode::SWITCHING_PROTOCOLS => break,
            Head::Informational(head) => {
                convert::response_head(&head, &mut request.response);
                inform(down, request).await;
            }
        }
    }
    Err(ProxyError::Malformed)
}

fn report(endpoint: &Endpoint, error: &ProxyError) {
    match error {
        ProxyError::Reset => endpoint.report(Outcome::Reset),
        ProxyError::Timeout => endpoint.report(Outcome::Timeout),
        ProxyError::Malformed => endpoint.report(Outcome::Malformed),
        _ => {}
    }
}

/// Reads the framing of the answer and makes its head ours.
fn receive(
    remote: &mut Remote,
    request: &mut Request,
    answer: Response<RecvStream>,
    connects: bool,
) -> Result<(), ProxyError> {
    let response = &mut request.response;
    convert::response_head(&answer, response);
    let body = RecvBody::new(answer.into_body());
    // RFC 9113 section 8.2.2: a message with connection-specific fields is malformed, and this one decides where it ends.
    if response.fields.has(FieldId::TransferEncoding) {
        return Err(ProxyError::Malformed);
    }
    let kind = framing::of_response(&response.fields, response.version, response.status, &request.head.method)
        .map_err(|_| ProxyError::Malformed)?;
    remote.body = match kind {
        BodyKind::Tunnel => return Err(ProxyError::Malformed),
        BodyKind::UntilClose if body.is_ended() => BodyKind::Length(0),
        BodyKind::UntilClose => BodyKind::Chunked,
        kind => kind,
    };
    let options = hop::connection_options(&response.fields);
    hop::strip(&mut response.fields, options);
    response.fields.keep_first(FieldId::ContentLength);
    if response.status == StatusCode::NO_CONTENT {
        response.fields.remove(FieldId::ContentLength);
    }
    if let Wire::H2(wire) = &mut remote.wire {
        wire.body = Some(body);
    }
    if connects && response.status.is_success() {
        remote.body = BodyKind::Tunnel;
        websocket::welcome(&request.head.fields, response);
    }
    Ok(())
}

/// What the failure of a stream means. One that the upstream refused before it looked at it (RFC 9113 section 8.7) may go out
/// again; a connection that takes no streams any more gets none.
fn failed(error: &h2::Error, stream: &Stream) -> ProxyError {
    let leaves = error.is_go_away() && error.is_remote();
    if leaves {
        stream.retire();
    }
    let refused = error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    if leaves || refused {
        return ProxyError::Unprocessed;
    }
    // The library resets what no answer can be.
    if error.is_library() && error.is_reset() { ProxyError::Malformed } else { ProxyError::Reset }
}
