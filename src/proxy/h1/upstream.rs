//! How is a request sent over HTTP/1 to an upstream?

use crate::http1::{BodyKind, BodyReader, BodyWriter, Conn, Deadline, HeadLimits, ReadHeadError, compose, framing};
use crate::message::{FieldId, Version, hop};
use crate::proxy::error::ProxyError;
use crate::proxy::push::{MAX_INFORMATIONAL, await_head, inform};
use crate::proxy::remote::{Remote, Wire};
use crate::proxy::request::{Downstream, Request};
use crate::proxy::websocket;
use crate::upstream::{Outcome, UpstreamStream};
use http::{Method, StatusCode};
use std::task::{Context, Poll};
use tokio::time::Instant;

/// What an upstream's head may hold.
const RESPONSE_LIMITS: HeadLimits = HeadLimits { bytes: 128 * 1024, target: 0, fields: 250 };

/// Sends the request and waits for the head of the answer.
pub(in crate::proxy) async fn send<D: Downstream>(
    mut remote: Remote,
    request: &mut Request,
    down: &mut D,
    body: BodyKind,
    deadline: &mut Deadline,
) -> Result<Remote, ProxyError> {
    if let Wire::H1(conn) = &mut remote.wire {
        write_head(conn, request, body);
    }
    let outcome = answer_head(&mut remote, request, down, deadline).await;
    let report = match &outcome {
        Ok(()) => Outcome::Status(request.response.status.as_u16()),
        Err(ProxyError::Reset) => Outcome::Reset,
        Err(ProxyError::Timeout) => Outcome::Timeout,
        Err(ProxyError::Malformed | ProxyError::Upgrade) => Outcome::Malformed,
        Err(_) => return outcome.map(|()| remote),
    };
    remote.endpoint.report(report);
    outcome?;
    let now = Instant::now();
    remote.endpoint.answered(now - request.asked);
    request.ctx.upstream_head = Some(now - request.ctx.started);
    receive(&mut remote, request)?;
    remote.keep &= !may_be_left_unread(&request.head.method, body);
    Ok(remote)
}

/// A body that has no meaning for its method (RFC 9110 section 9.3): a server that does not read it takes it for the next request
/// on the connection, which must then be nobody else's.
fn may_be_left_unread(method: &Method, body: BodyKind) -> bool {
    let framed = !matches!(body, BodyKind::None | BodyKind::Length(0));
    framed && matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE)
}

fn write_head(conn: &mut Conn<UpstreamStream>, request: &Request, body: BodyKind) {
    let head = &request.head;
    conn.writer = BodyWriter::new(body);
    let out = conn.out();
    compose::request(out, head, &head.method, body);
    if !request.upgrade.is_empty() {
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
        out.extend_from_slice(&request.upgrade);
        out.extend_from_slice(b"\r\n");
    } else if head.fields.has(FieldId::Te) {
        out.extend_from_slice(b"connection: te\r\n");
    }
    compose::end(out);
}

/// Waits for the head of the final answer (or of 101), sending the body meanwhile.
async fn answer_head<D: Downstream>(
    remote: &mut Remote,
    request: &mut Request,
    down: &mut D,
    deadline: &mut Deadline,
) -> Result<(), ProxyError> {
    for _ in 0..=MAX_INFORMATIONAL {
        await_head(remote, request, down, deadline, poll_head).await?;
        let status = request.response.status;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return if upgrade_fits(request) { Ok(()) } else { Err(ProxyError::Upgrade) };
        }
        if !status.is_informational() {
            return Ok(());
        }
        inform(down, request).await;
    }
    Err(ProxyError::Malformed)
}

/// Whether a 101 was asked for, and is for the protocol that was asked for (CVE-2026-2833). Where the key is our own, nobody else
/// looks at the answer to it (RFC 6455 section 4.1).
fn upgrade_fits(request: &Request) -> bool {
    let response = &request.response.fields;
    let got = response.get(FieldId::Upgrade).unwrap_or_default();
    let asked = !got.is_empty() && hop::tokens(&request.upgrade).any(|asked| asked.eq_ignore_ascii_case(got));
    let ours = request.head.version == Version::Http2;
    asked && (!ours || websocket::is_accepted(&request.head.fields, response))
}

fn poll_head(cx: &mut Context<'_>, remote: &mut Remote, request: &mut Request) -> Poll<Result<(), ProxyError>> {
    let reused = remote.reused;
    let Wire::H1(conn) = &mut remote.wire else { return Poll::Ready(Err(ProxyError::Malformed)) };
    conn.poll_response(cx, &RESPONSE_LIMITS, &mut request.response).map_err(|error| match error {
        ReadHeadError::Head(_) => ProxyError::Malformed,
        ReadHeadError::Closed | ReadHeadError::Io(_) if reused && conn.input().is_empty() => ProxyError::Stale,
        ReadHeadError::Closed | ReadHeadError::Io(_) => ProxyError::Reset,
    })
}

/// Reads the framing of the answer and makes its head ours.
fn receive(remote: &mut Remote, request: &mut Request) -> Result<(), ProxyError> {
    let response = &mut request.response;
    let options = hop::connection_options(&response.fields);
    let method = &request.head.method;
    let body = framing::of_response(&response.fields, response.version, response.status, method)
        .map_err(|_| ProxyError::Malformed)?;
    remote.keep = match response.version {
        Version::Http10 => options.keep_alive && !options.close,
        _ => !options.close,
    };
    remote.body = body;
    if let Wire::H1(conn) = &mut remote.wire {
        conn.reader = BodyReader::new(body);
    }
    if body != BodyKind::Tunnel {
        hop::strip(&mut response.fields, options);
    }
    // Repetitions of one value were taken for one, and go on as one.
    response.fields.keep_first(FieldId::ContentLength);
    if response.status == StatusCode::NO_CONTENT {
        // RFC 9110 section 8.6: some upstreams send `Content-Length: 0` all the same.
        response.fields.remove(FieldId::ContentLength);
    }
    Ok(())
}
