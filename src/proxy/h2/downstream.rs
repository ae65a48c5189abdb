//! How is an HTTP/2 connection of a client served?

use super::body::IncomingBody;
use super::response::{Open, Relay, ResponseBody};
use super::{LocalExecutor, Rewind, convert};
use crate::http1::{Buffer, Conn, Deadline, HeadError};
use crate::message::{FieldId, Io, RequestHead, hop, random};
use crate::model::{Limits, ListenerSpec};
use crate::proxy::error::ProxyError;
use crate::proxy::forward::forward;
use crate::proxy::pipeline::{self, Decision};
use crate::proxy::remote::{Remote, Wire};
use crate::proxy::respond::{self, Answer};
use crate::proxy::tunnel;
use crate::proxy::worker::Connection;
use http::{Request as HttpRequest, Response as HttpResponse, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use tokio::time::Instant;

/// Serves until the client or a drain ends it. `front` is what was read to tell the protocol.
pub async fn serve(stream: Io, front: Buffer, connection: Rc<Connection>) {
    let listener = connection.listener();
    let spec = &listener.spec;
    let activity = Rc::new(Activity { open: Cell::new(0), since: Cell::new(Instant::now()) });
    let (shared, seen) = (Rc::clone(&connection), Rc::clone(&activity));
    let service = service_fn(move |request: HttpRequest<Incoming>| {
        let connection = Rc::clone(&shared);
        let busy = Busy::new(&seen);
        async move {
            let response = respond(connection, request).await;
            drop(busy);
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(Rewind::new(stream, front));
    let mut serving = pin!(builder(spec).serve_connection(io, service));
    let keep_alive = spec.timeouts.keep_alive;
    let mut draining = pin!(connection.worker.draining.started());
    let mut closing = false;
    loop {
        let idle_at = activity.since.get() + keep_alive;
        tokio::select! {
            result = serving.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, peer = %connection.peer, "HTTP/2 connection ended");
                }
                return;
            }
            () = draining.as_mut(), if !closing => closing = true,
            () = tokio::time::sleep_until(idle_at), if !closing && activity.open.get() == 0 => {
                if activity.open.get() > 0 || Instant::now() < activity.since.get() + keep_alive {
                    continue;
                }
                closing = true;
            }
        }
        serving.as_mut().graceful_shutdown();
    }
}

fn builder(spec: &ListenerSpec) -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(spec.limits.streams)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(128 * 1024)
        // The bound against HPACK bombs (CVE-2026-49975) is this size together with the number of streams.
        .max_header_list_size(spec.limits.head_bytes.min(32 * 1024))
        .keep_alive_interval(spec.timeouts.idle)
        .keep_alive_timeout(spec.timeouts.head)
        .enable_connect_protocol();
    builder
}

/// Whether streams are open, and since when not.
struct Activity {
    open: Cell<u32>,
    since: Cell<Instant>,
}

struct Busy(Rc<Activity>);

impl Busy {
    fn new(activity: &Rc<Activity>) -> Self {
        activity.open.set(activity.open.get() + 1);
        Self(Rc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.since.set(Instant::now());
    }
}

/// One request. Cannot fail: what goes wrong becomes a response.
async fn respond(connection: Rc<Connection>, mut message: HttpRequest<Incoming>) -> HttpResponse<ResponseBody> {
    let upgrade = hyper::upgrade::on(&mut message);
    let (parts, body) = message.into_parts();
    let mut source = IncomingBody::new(body);
    let listener = connection.listener();
    let mut open = Open::new(&connection, listener, connection.worker.lend());
    open.request().begin(&connection, Instant::now());
    convert::request_head(&parts, &mut open.request().head);
    let mut deadline = Deadline::new(open.listener.spec.timeouts.idle);
    match serve_one(&mut open, &mut source, &mut deadline).await {
        Ok(Outcome::Own(answer)) => own(open, answer),
        Ok(Outcome::Remote(remote)) if remote.body == crate::http1::BodyKind::Tunnel => {
            switch(open, *remote, upgrade, deadline)
        }
        Ok(Outcome::Remote(remote)) => relay(open, *remote, source, deadline),
        Err(error) => {
            open.request().failed(&error);
            let answer = respond::error(&error, &open.request().head);
            own(open, answer)
        }
    }
}

enum Outcome {
    Own(Answer),
    Remote(Box<Remote>),
}

async fn serve_one(open: &mut Open, source: &mut IncomingBody, deadline: &mut Deadline) -> Result<Outcome, ProxyError> {
    let (connection, listener) = (Rc::clone(&open.connection), open.listener.clone());
    let request = open.request();
    let ended = source.is_ended();
    check_limits(&request.head, &listener.spec.limits)?;
    let kind = convert::body_kind(&request.head, ended)?;
    let options = hop::connection_options(&request.head.fields);
    match pipeline::decide(&listener, options, request)? {
        Decision::Respond(answer) => Ok(Outcome::Own(answer)),
        Decision::Forward => {
            // What follows an extended CONNECT is the tunnel's, not a body.
            let kind = if request.upgrade.is_empty() { kind } else { websocket(request) };
            let remote = if request.upgrade.is_empty() {
                forward(&connection, request, source, kind, deadline).await?
            } else {
                let remote = forward(&connection, request, &mut NoBody, kind, deadline).await?;
                // To a client any success of a CONNECT opens the tunnel (RFC 8441 section 5), and there is none behind this one.
                if remote.body != crate::http1::BodyKind::Tunnel && request.response.status.is_success() {
                    return Err(ProxyError::Upgrade);
                }
                remote
            };
            pipeline::respond_with(&listener, request);
            Ok(Outcome::Remote(Box::new(remote)))
        }
    }
}

/// The limits that hyper does not know; it holds the size of the whole head.
fn check_limits(head: &RequestHead, limits: &Limits) -> Result<(), ProxyError> {
    if head.raw_target.len() > limits.target_bytes as usize {
        return Err(HeadError::TargetTooLong.into());
    }
    if head.fields.len() > limits.headers as usize {
        return Err(HeadError::TooMany.into());
    }
    Ok(())
}

/// RFC 8441 section 5: HTTP/2 needs neither key nor accept; HTTP/1.1 does.
fn websocket(request: &mut crate::proxy::request::Request) -> crate::http1::BodyKind {
    if request.upgrade.eq_ignore_ascii_case(b"websocket") {
        request.head.fields.set(FieldId::SecWebSocketKey, &websocket_key());
    }
    crate::http1::BodyKind::None
}

/// A new nonce for each connection (RFC 6455 section 4.1): 16 bytes in base64, drawn as text. The last digit carries 2 bits.
fn websocket_key() -> [u8; 24] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let draw = |digits: &[u8]| {
        let at = usize::try_from(random::below(digits.len() as u64)).unwrap_or(0);
        digits.get(at).copied().unwrap_or(b'A')
    };
    let mut key = [b'='; 24];
    for (place, digit) in key.iter_mut().take(22).enumerate() {
        *digit = if place < 21 { draw(DIGITS) } else { draw(b"AQgw") };
    }
    key
}

fn own(mut open: Open, answer: Answer) -> HttpResponse<ResponseBody> {
    let date = open.connection.worker.date();
    let request = open.request();
    request.ctx.status = answer.head.status.as_u16();
    let sends = respond::sends_body(&request.head.method, answer.head.status);
    let mut head = answer.head;
    pipeline::finish_own(&open.listener, &mut head, &date);
    let length = answer.body.len();
    let request = open.request();
    request.ctx.bytes_out = if sends { length as u64 } else { 0 };
    if !matches!(head.status.as_u16(), 204 | 304) {
        head.fields.set(FieldId::ContentLength, itoa::Buffer::new().format(length).as_bytes());
    }
    convert::to_response(&head, if sends && length > 0 { ResponseBody::Full(answer.body) } else { ResponseBody::Empty })
}

fn relay(mut open: Open, remote: Remote, source: IncomingBody, deadline: Deadline) -> HttpResponse<ResponseBody> {
    let idle = idle_limit(&mut open);
    let request = open.request();
    request.ctx.status = request.response.status.as_u16();
    let response = convert::to_response(&request.response, ());
    let nothing = matches!(remote.body, crate::http1::BodyKind::None | crate::http1::BodyKind::Length(0));
    if nothing && remote.sent {
        remote.release(&open.connection.worker);
        return response.map(|()| ResponseBody::Empty);
    }
    let relay = Relay { open, remote: Some(remote), source, deadline, idle, ended: false };
    response.map(|()| ResponseBody::Relay(Box::new(relay)))
}

/// Longest silence in either body.
fn idle_limit(open: &mut Open) -> std::time::Duration {
    let general = open.listener.spec.timeouts.idle;
    open.request().route.as_ref().map_or(general, |route| route.spec.idle_timeout)
}

/// 101 of the upstream is 200 for an extended CONNECT; then both streams are joined.
fn switch(
    mut open: Open,
    remote: Remote,
    upgrade: hyper::upgrade::OnUpgrade,
    mut deadline: Deadline,
) -> HttpResponse<ResponseBody> {
    let idle = idle_limit(&mut open);
    let request = open.request();
    request.response.status = StatusCode::OK;
    request.ctx.status = 200;
    let options = hop::connection_options(&request.response.fields);
    hop::strip(&mut request.response.fields, options);
    request.response.fields.remove(FieldId::SecWebSocketAccept);
    request.response.fields.remove(FieldId::ContentLength);
    let response = convert::to_response(&request.response, ResponseBody::Empty);
    tokio::task::spawn_local(async move {
        let Remote { wire: Wire::H1(mut up), permit, .. } = remote else { return };
        let Ok(upgraded) = upgrade.await else { return };
        open.connection.metrics.upgrades.add(1);
        let mut down = Conn::new(TokioIo::new(upgraded));
        let moved = tunnel::run(&mut down, &mut up, idle, &mut deadline).await;
        open.connection.metrics.upgrades.sub(1);
        let request = open.request();
        (request.ctx.bytes_in, request.ctx.bytes_out) = (moved.up, moved.down);
        drop(permit);
    });
    response
}

/// A request without body whose stream goes on as a tunnel.
struct NoBody;

impl crate::http1::BodySource for NoBody {
    fn poll_data(
        &mut self,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<Option<usize>, crate::http1::BodyError>> {
        std::task::Poll::Ready(Ok(None))
    }

    fn data(&self) -> &[u8] {
        &[]
    }

    fn consume(&mut self, _n: usize) {}

    fn take_trailers(&mut self) -> Result<Option<crate::message::Fields>, crate::http1::BodyError> {
        Ok(None)
    }
}

impl crate::proxy::request::Downstream for NoBody {
    fn poll_gone(&mut self, _cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Error> {
        std::task::Poll::Pending
    }

    fn inform(&mut self, _head: &crate::message::ResponseHead, _version: crate::message::Version) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_websocket_key_is_sixteen_other_bytes_in_base64() {
        let keys: std::collections::HashSet<_> = (0..100).map(|_| websocket_key()).collect();
        assert_eq!(keys.len(), 100);
        for key in keys {
            let (text, padding) = key.split_at(22);
            assert!(text.iter().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(b)));
            assert!(b"AQgw".contains(&text[21]) && padding == b"==");
        }
    }
}
