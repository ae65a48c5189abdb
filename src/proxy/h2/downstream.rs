//! How is one request of an HTTP/2 client served?

use super::body::IncomingBody;
use super::connection::Guard;
use super::convert;
use super::response::{Open, Relay, ResponseBody};
use crate::http1::{Conn, Deadline, HeadError};
use crate::message::{FieldId, RequestHead, hop, random};
use crate::model::Limits;
use crate::proxy::error::ProxyError;
use crate::proxy::forward::forward;
use crate::proxy::pipeline::{self, Decision};
use crate::proxy::remote::{Remote, Wire};
use crate::proxy::respond::{self, Answer};
use crate::proxy::tunnel;
use crate::proxy::worker::Connection;
use http::{Request as HttpRequest, Response as HttpResponse, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::rc::Rc;
use tokio::time::Instant;

/// One request. Cannot fail: what goes wrong becomes a response.
pub(super) async fn respond(
    connection: Rc<Connection>,
    mut message: HttpRequest<Incoming>,
    guard: Rc<Guard>,
) -> HttpResponse<ResponseBody> {
    let upgrade = hyper::upgrade::on(&mut message);
    let (parts, body) = message.into_parts();
    let mut source = IncomingBody::new(body);
    let listener = connection.listener();
    let mut open = Open::new(&connection, listener, connection.worker.lend());
    open.request().begin(&connection, Instant::now());
    convert::request_head(&parts, &mut open.request().head);
    let mut deadline = connection.worker.lend_deadline(open.listener.spec.timeouts.idle);
    match serve_one(&mut open, &mut source, &mut deadline).await {
        Ok(Outcome::Own(answer)) => own(open, answer, (guard, deadline)),
        Ok(Outcome::Remote(remote)) if remote.body == crate::http1::BodyKind::Tunnel => {
            switch(open, *remote, upgrade, (guard, deadline))
        }
        Ok(Outcome::Remote(remote)) => relay(open, *remote, source, (guard, deadline)),
        Err(error) => {
            open.request().failed(&error);
            let answer = respond::error(&error, &open.request().head);
            own(open, answer, (guard, deadline))
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

fn own(mut open: Open, answer: Answer, (guard, mut deadline): (Rc<Guard>, Deadline)) -> HttpResponse<ResponseBody> {
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
    if !sends || length == 0 {
        open.connection.worker.give_back_deadline(deadline);
        return convert::to_response(&head, ResponseBody::Empty);
    }
    deadline.set(Instant::now() + open.listener.spec.timeouts.idle);
    guard.arm(deadline);
    convert::to_response(&head, ResponseBody::Full(answer.body))
}

fn relay(
    mut open: Open,
    remote: Remote,
    source: IncomingBody,
    (guard, mut deadline): (Rc<Guard>, Deadline),
) -> HttpResponse<ResponseBody> {
    let idle = idle_limit(&mut open);
    let request = open.request();
    request.ctx.status = request.response.status.as_u16();
    let response = convert::to_response(&request.response, ());
    let nothing = matches!(remote.body, crate::http1::BodyKind::None | crate::http1::BodyKind::Length(0));
    if nothing && remote.sent {
        open.connection.worker.give_back_deadline(deadline);
        remote.release(&open.connection.worker);
        return response.map(|()| ResponseBody::Empty);
    }
    deadline.set(request.limit(idle));
    guard.arm(deadline);
    let relay = Relay { open, remote: Some(remote), source, guard, idle, ended: false };
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
    (guard, mut deadline): (Rc<Guard>, Deadline),
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
        drop((permit, guard));
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

    fn inform(
        &mut self,
        _cx: &mut std::task::Context<'_>,
        _head: &crate::message::ResponseHead,
        _version: crate::message::Version,
    ) {
    }
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
