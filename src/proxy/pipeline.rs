//! THE hot path: what is decided about a request, top to bottom.
//!
//! Sees heads, never bytes: the same for every protocol version. It is written to be read; each step has one line.

use super::error::ProxyError;
use super::pace::Pace;
use super::request::Request;
use super::respond::{self, Answer};
use crate::message::hop::{self, ConnectionOptions};
use crate::message::normalize::{Refused, drop_odd_names, normalize};
use crate::message::{FieldId, RequestHead, ResponseHead, Version, forwarded};
use crate::model::OddNames;
use crate::route::{Action, Miss, Route, https_location};
use crate::snapshot::ListenerSnapshot;
use http::{Method, StatusCode};
use std::sync::Arc;

/// What is to be done with a request.
#[derive(Debug)]
pub enum Decision {
    /// Answer it ourselves.
    Respond(Answer),
    /// Send it to `request.cluster`; the head is as the upstream shall see it.
    Forward,
}

/// Decides. On an error the request is answered by it; the route is kept in the request where one was found.
pub fn decide(
    listener: &ListenerSnapshot,
    options: ConnectionOptions,
    request: &mut Request,
) -> Result<Decision, ProxyError> {
    if listener.spec.headers.odd_names == OddNames::Drop {
        drop_odd_names(&mut request.head.fields);
    }
    let outcome = normalize(&mut request.head, listener.spec.encoded_slash);
    request.remember();
    outcome?;
    check_misdirected(listener, request)?;
    forwarded::resolve(&mut request.head, &mut request.ctx, &listener.spec);
    if request.head.path == "*" {
        check_listener(listener, request)?;
        return Ok(Decision::Respond(respond::options()));
    }
    if let Some(answer) = https_redirect(listener, request) {
        return Ok(Decision::Respond(answer));
    }
    check_listener(listener, request)?;
    let (route, prefix) = find(listener, request)?;
    route.chain.check(&request.head, &mut request.ctx)?;
    match &route.action {
        Action::Broken { .. } => Err(ProxyError::RouteBroken),
        Action::Respond(respond) => Ok(Decision::Respond(respond::direct(respond))),
        Action::Redirect(redirect) => {
            let location = redirect.location(&request.head, request.ctx.client_scheme, prefix);
            let location = location.ok_or(ProxyError::RewriteFailed)?;
            Ok(Decision::Respond(respond::redirect(redirect.status, &location)))
        }
        Action::Forward(_) if request.head.method == Method::OPTIONS && !hop::count_down(&mut request.head.fields) => {
            Ok(Decision::Respond(respond::options()))
        }
        Action::Forward(target) => {
            request.cluster = Some(Arc::clone(target.choose()));
            prepare(listener, &route, options, prefix, request)?;
            Ok(Decision::Forward)
        }
    }
}

/// RFC 9110 section 7.4: a host that another TLS policy or certificate stands for must not be asked for on this connection.
fn check_misdirected(listener: &ListenerSnapshot, request: &Request) -> Result<(), ProxyError> {
    let (Some(names), Some(tls)) = (&listener.tls, &request.ctx.tls) else { return Ok(()) };
    if tls.server_name.as_deref() == Some(request.head.host.as_str()) {
        return if request.stale { Err(ProxyError::Misdirected) } else { Ok(()) };
    }
    match names.find(Some(&request.head.host)) {
        Some(found) if found.policy == tls.policy => Ok(()),
        _ => Err(ProxyError::Misdirected),
    }
}

fn https_redirect(listener: &ListenerSnapshot, request: &Request) -> Option<Answer> {
    let redirect = listener.spec.https_redirect.as_ref()?;
    let status = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    Some(respond::redirect(status, &https_location(&request.head, redirect)))
}

/// What its audited checks say is kept apart from what those of the route will say.
fn check_listener(listener: &ListenerSnapshot, request: &mut Request) -> Result<(), ProxyError> {
    let outcome = listener.chain.check(&request.head, &mut request.ctx);
    request.ctx.audited_by_listener = request.ctx.audited.take();
    Ok(outcome?)
}

fn find(listener: &ListenerSnapshot, request: &mut Request) -> Result<(Arc<Route>, usize), ProxyError> {
    match listener.table.find(&request.head, request.ctx.client) {
        Ok(found) => {
            if listener.table.is_ambiguous(found, &request.head, request.ctx.client) {
                return Err(Refused::PathAmbiguous.into());
            }
            let route = Arc::clone(found.route);
            request.route = Some(Arc::clone(&route));
            Ok((route, found.prefix))
        }
        Err(Miss::Host) => Err(ProxyError::NoHost),
        Err(Miss::Path) => Err(ProxyError::NoRoute),
    }
}

/// Makes the head what the upstream shall see: hop-by-hop fields out, then our own in, then the filters' edits.
fn prepare(
    listener: &ListenerSnapshot,
    route: &Route,
    options: ConnectionOptions,
    prefix: usize,
    request: &mut Request,
) -> Result<(), ProxyError> {
    request.body_limit = smaller(listener.chain.body_limit(), route.chain.body_limit());
    if !respond::is_grpc(&request.head) {
        request.pace = Pace::new(listener.spec.limits.body_rate, listener.spec.timeouts.body);
    }
    request.until = time_limit(route, &request.head, request.ctx.started);
    read_upgrade(&request.head, options, &mut request.upgrade);
    hop::strip(&mut request.head.fields, options);
    request.head.fields.remove(FieldId::Expect);
    if !request.upgrade.is_empty() {
        // An extended CONNECT may name one; what follows it is the tunnel's, and an upstream that declines would wait for it and take it
        // from the next request.
        request.head.fields.remove(FieldId::ContentLength);
    }
    if options.trailers {
        request.head.fields.push_known(FieldId::Te, b"trailers");
    }
    forwarded::write(&mut request.head, &request.ctx, &listener.spec);
    listener.chain.edit(&mut request.head, 0)?;
    route.chain.edit(&mut request.head, prefix)?;
    write_host(&mut request.head);
    Ok(())
}

/// Makes an answer of the upstream ours: filters in the reverse order, then what the proxy itself writes.
pub fn respond_with(listener: &ListenerSnapshot, request: &mut Request) {
    if let Some(route) = &request.route {
        route.chain.on_response(&mut request.response);
    }
    listener.chain.on_response(&mut request.response);
    forwarded::response(&mut request.response, &listener.spec.headers);
}

/// Makes an answer of our own whole.
pub fn finish_own(listener: &ListenerSnapshot, head: &mut ResponseHead, date: &[u8]) {
    listener.chain.on_response(head);
    forwarded::response(head, &listener.spec.headers);
    head.fields.set(FieldId::Date, date);
}

fn smaller(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The route's limit, or the nearer deadline that a gRPC client sent.
fn time_limit(route: &Route, head: &RequestHead, started: tokio::time::Instant) -> Option<tokio::time::Instant> {
    let asked = head.fields.get(FieldId::GrpcTimeout).filter(|_| respond::is_grpc(head)).and_then(grpc_timeout);
    let limit = match (route.spec.request_timeout, asked) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    limit.and_then(|limit| started.checked_add(limit))
}

/// `grpc-timeout`: at most 8 digits and a unit.
fn grpc_timeout(value: &[u8]) -> Option<std::time::Duration> {
    use std::time::Duration;
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let n: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

/// The protocol that the client asks to switch to. Only GET, and POST (`docker attach`, SPDY) but to a WebSocket (RFC 6455 section 4.1),
/// can switch, over HTTP/1.1 and without a body; never to HTTP again, bare or in TLS (RFC 9113 section 3.1, RFC 2817): it would carry
/// requests past every check. HTTP/2 asks by extended CONNECT (RFC 8441).
fn read_upgrade(head: &RequestHead, options: ConnectionOptions, upgrade: &mut Vec<u8>) {
    if head.version == Version::Http2 {
        upgrade.extend_from_slice(&head.protocol);
        return;
    }
    if !options.upgrade || head.version != Version::Http11 || !matches!(head.method, Method::GET | Method::POST) {
        return;
    }
    // `Content-Length: 0` is what Java's WebSocket says.
    let length = head.fields.get(FieldId::ContentLength);
    if head.fields.has(FieldId::TransferEncoding) || length.is_some_and(|length| length != b"0") {
        return;
    }
    let mut asked = head.fields.all(FieldId::Upgrade);
    if let (Some(protocol), None) = (asked.next(), asked.next())
        && !hop::tokens(protocol).any(carries_requests)
        && (head.method == Method::GET || !hop::tokens(protocol).any(|name| name.eq_ignore_ascii_case(b"websocket")))
    {
        upgrade.extend_from_slice(protocol);
    }
}

fn carries_requests(protocol: &[u8]) -> bool {
    [&b"h2"[..], b"http/", b"tls/"]
        .iter()
        .any(|name| protocol.get(..name.len()).is_some_and(|p| p.eq_ignore_ascii_case(name)))
}

/// One Host, the canonical one (RFC 9110 section 7.2), where the client's stood.
fn write_host(head: &mut RequestHead) {
    let mut host = std::mem::take(&mut head.host);
    let length = host.len();
    if let Some(port) = head.port {
        host.push(':');
        host.push_str(itoa::Buffer::new().format(port));
    }
    head.fields.set(FieldId::Host, host.as_bytes());
    host.truncate(length);
    head.host = host;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_grpc_deadline_is_digits_and_a_unit() {
        assert_eq!(grpc_timeout(b"10S"), Some(Duration::from_secs(10)));
        assert_eq!(grpc_timeout(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in [&b""[..], b"S", b"10", b"123456789S", b"-1S", b"1x"] {
            assert_eq!(grpc_timeout(wrong), None);
        }
    }

    #[test]
    fn only_a_request_without_body_can_ask_for_an_upgrade_and_never_to_h2c() {
        let ask = |method: Method, protocol: &str, more: &str| {
            let mut head = RequestHead::sample(method, "a.test", "/");
            head.fields.push(b"connection", b"upgrade");
            head.fields.push(b"upgrade", protocol.as_bytes());
            if let Some((name, value)) = more.split_once(": ") {
                head.fields.push(name.as_bytes(), value.as_bytes());
            }
            let mut upgrade = Vec::new();
            read_upgrade(&head, hop::connection_options(&head.fields), &mut upgrade);
            upgrade
        };
        assert_eq!(ask(Method::GET, "websocket", ""), b"websocket");
        assert!(ask(Method::POST, "websocket", "").is_empty());
        assert!(ask(Method::POST, "x, WebSocket", "").is_empty());
        assert!(ask(Method::GET, "websocket", "content-length: 1").is_empty());
        assert!(ask(Method::GET, "websocket", "transfer-encoding: chunked").is_empty());
        assert_eq!(ask(Method::GET, "websocket", "content-length: 0"), b"websocket", "what Java's client says");
        assert!(ask(Method::GET, "h2c", "").is_empty());
        assert!(ask(Method::GET, "websocket, H2C", "").is_empty());
        for protocol in ["h2", "h2c-14", "HTTP/2.0", "TLS/1.2", "websocket, tls/1.0"] {
            assert!(ask(Method::GET, protocol, "").is_empty(), "{protocol}");
        }
        for method in [Method::GET, Method::POST] {
            assert_eq!(ask(method, "SPDY/3.1", ""), b"SPDY/3.1", "what kubectl exec speaks");
        }
        assert!(ask(Method::PUT, "SPDY/3.1", "").is_empty());
    }

    #[test]
    fn the_upstream_sees_one_canonical_host() {
        let mut head = RequestHead::sample(Method::GET, "a.test", "/");
        head.fields.push(b"Host", b"A.TEST.:8080");
        head.port = Some(8080);
        write_host(&mut head);
        assert_eq!(head.fields.all(FieldId::Host).collect::<Vec<_>>(), [b"a.test:8080"]);
        assert_eq!(head.host, "a.test");
    }
}
