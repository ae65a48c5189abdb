//! Who is the client really, and what is said about it to upstreams and clients?
//!
//! [`resolve`] runs before a request is matched: what an untrusted client said about itself is gone from then on, so that no
//! route, check or upstream ever sees it. [`write()`] runs when a request is forwarded, [`response`] before a response is sent. On the
//! plain path (one untrusted client) nothing is allocated beyond the field list's own memory.
//!
//! What trusted proxies say is walked from right to left: the peer vouches for the last address, a trusted address for the one
//! before it, and the first that is not trusted, or cannot be read, is where belief ends. X-Forwarded-For is walked where it
//! is there, Forwarded otherwise: a trusted proxy must write one of them and drop or extend the other.

mod parse;

use super::{ByteSet, Field, FieldId, Fields, RequestContext, RequestHead, ResponseHead, Text, Version, random};
use crate::model::{ListenerSpec, ProxyHeaders, ServerHeader};
use ipnet::IpNet;
use std::fmt::Write;
use std::net::IpAddr;

/// Name of the proxy in Via.
const PSEUDONYM: &str = "tidegate";

/// Finds out the client's address and scheme, removes what an untrusted client said about itself, and makes sure of the
/// request's id and of the identity that the handshake verified.
pub fn resolve(head: &mut RequestHead, ctx: &mut RequestContext, listener: &ListenerSpec) {
    ctx.client = ctx.peer.ip().to_canonical();
    let trusted = is_trusted(ctx.client, &listener.trusted_proxies);
    if trusted {
        believe(&head.fields, ctx, &listener.trusted_proxies);
    }
    if head.fields.iter().any(|field| is_dropped(&field, trusted)) {
        head.fields.retain(|field| !is_dropped(&field, trusted));
    }
    if let Some(certificate) = ctx.tls.as_ref().and_then(|tls| tls.client_certificate.as_deref()) {
        head.fields.push_known(FieldId::ClientCert, certificate.as_bytes());
    }
    if listener.headers.request_id {
        identify(&mut head.fields, trusted);
    }
}

/// Writes what the upstream is told about the client and the connection.
pub fn write(head: &mut RequestHead, ctx: &RequestContext, listener: &ListenerSpec) {
    let says = &listener.headers;
    let mut peer = Text::<48>::default();
    peer.address(ctx.peer.ip().to_canonical());
    let mut with_port = Text::<272>::default();
    let host = match head.port {
        None => head.host.as_str(),
        Some(port) => {
            let _ = with_port.write_str(&head.host);
            with_port.push(b':');
            with_port.decimal(port);
            with_port.as_str()
        }
    };
    if says.x_forwarded {
        let mut port = Text::<8>::default();
        port.decimal(client_port(head, ctx));
        let fields = &mut head.fields;
        fields.append(FieldId::XForwardedFor, peer.as_bytes());
        // What a trusted proxy said of these is what the client said to it.
        for (id, value) in [
            (FieldId::XForwardedProto, ctx.client_scheme.as_str().as_bytes()),
            (FieldId::XForwardedHost, host.as_bytes()),
            (FieldId::XForwardedPort, port.as_bytes()),
        ] {
            if !fields.has(id) {
                fields.push_known(id, value);
            }
        }
    }
    if says.forwarded {
        let mut element = Text::<384>::default();
        if forwarded_element(&mut element, ctx, host).is_ok() {
            head.fields.append(FieldId::Forwarded, element.as_bytes());
        }
    }
    if says.via {
        via(&mut head.fields, head.version);
    }
}

/// Writes what the client is told about the proxy.
pub fn response(head: &mut ResponseHead, says: &ProxyHeaders) {
    match &says.server {
        ServerHeader::Keep => {}
        ServerHeader::Remove => drop(head.fields.remove(FieldId::Server)),
        ServerHeader::Set(text) => head.fields.set(FieldId::Server, text.as_bytes()),
    }
    if says.via {
        via(&mut head.fields, head.version);
    }
}

/// The port that the client came to: our end of the connection, unless a proxy before us took it with another scheme.
fn client_port(head: &RequestHead, ctx: &RequestContext) -> u16 {
    if ctx.client_scheme == head.scheme {
        return ctx.local.port();
    }
    head.port.unwrap_or(ctx.client_scheme.default_port())
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// Takes over what trusted proxies say about the client.
fn believe(fields: &Fields, ctx: &mut RequestContext, trusted: &[IpNet]) {
    if fields.has(FieldId::XForwardedFor) {
        let hops = fields.all(FieldId::XForwardedFor).rev().flat_map(parse::list_from_right).map(parse::address);
        let depth = walk(hops, ctx, trusted);
        let said = fields.all(FieldId::XForwardedProto).rev().flat_map(parse::list_from_right);
        // Of as many schemes as there are hops, the client's own; of fewer, the farthest.
        if let Some(scheme) = said.take(depth.max(1)).last().and_then(parse::scheme) {
            ctx.client_scheme = scheme;
        }
    } else if fields.has(FieldId::Forwarded) {
        let elements = || fields.all(FieldId::Forwarded).rev().flat_map(parse::list_from_right);
        let hops = elements().map(|e| parse::parameter(e, b"for").and_then(parse::address));
        let depth = walk(hops, ctx, trusted);
        let client = elements().nth(depth.max(1) - 1).and_then(|e| parse::parameter(e, b"proto"));
        if let Some(scheme) = client.and_then(parse::scheme) {
            ctx.client_scheme = scheme;
        }
    } else if let Some(scheme) = fields.all(FieldId::XForwardedProto).next_back().and_then(parse::scheme) {
        ctx.client_scheme = scheme;
    }
}

/// Walks addresses from right to left, as far as they are vouched for; says how many were taken.
fn walk(hops: impl Iterator<Item = Option<IpAddr>>, ctx: &mut RequestContext, trusted: &[IpNet]) -> usize {
    let mut depth = 0;
    for address in hops.map_while(|hop| hop) {
        ctx.client = address.to_canonical();
        depth += 1;
        if !is_trusted(ctx.client, trusted) {
            break;
        }
    }
    depth
}

/// Whether a field must not go on as it came. Identity is removed from everyone: only our own handshake can tell it.
fn is_dropped(field: &Field<'_>, trusted: bool) -> bool {
    match field.id {
        FieldId::ClientCert | FieldId::ClientCertChain => true,
        FieldId::Forwarded
        | FieldId::XForwardedFor
        | FieldId::XForwardedHost
        | FieldId::XForwardedPort
        | FieldId::XForwardedProto
        | FieldId::XRealIp => !trusted,
        FieldId::Other => is_claim(field.name, trusted),
        _ => false,
    }
}

/// What other proxies are known to say of a client and of what it asked for, and upstreams to believe: some frameworks route by
/// X-Original-URL and X-Rewrite-URL in place of the path that was matched here.
const CLAIMS: [&[u8]; 14] = [
    b"cf-connecting-ip",
    b"front-end-https",
    b"true-client-ip",
    b"x-client-cert",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-forwarded",
    b"x-original-forwarded-for",
    b"x-original-host",
    b"x-original-uri",
    b"x-original-url",
    b"x-proxyuser-ip",
    b"x-rewrite-url",
    b"x-scheme",
];

/// How such names begin: `Ssl-Client-Verify` is what an application behind ingress-nginx believes.
const CLAIM_PREFIXES: [&[u8]; 3] = [b"ssl-client-", b"x-forwarded-", b"x-ssl-client-"];

/// `X-Forwarded-Prefix` and its like from untrusted clients, and from everyone a name that an upstream which turns `-` into `_`
/// would take for one of those above.
fn is_claim(name: &[u8], trusted: bool) -> bool {
    if !matches!(name.first(), Some(b'x' | b'X' | b'c' | b'C' | b'f' | b'F' | b's' | b'S' | b't' | b'T')) {
        return false;
    }
    let same = |text: &[u8], name: &[u8]| {
        let alike = |(t, n): (&u8, &u8)| *t == n.to_ascii_lowercase() || (*t == b'-' && *n == b'_');
        text.len() == name.len() && text.iter().zip(name).all(alike)
    };
    if memchr::memchr(b'_', name).is_some() {
        let claims = [FieldId::ClientCert, FieldId::ClientCertChain, FieldId::XRealIp];
        let starts = |prefix: &&[u8]| name.get(..prefix.len()).is_some_and(|start| same(prefix, start));
        return CLAIM_PREFIXES.iter().any(starts) || claims.iter().any(|id| same(id.as_str().as_bytes(), name));
    }
    let starts = |prefix: &&[u8]| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    !trusted && (CLAIM_PREFIXES.iter().any(starts) || CLAIMS.iter().any(|claim| claim.eq_ignore_ascii_case(name)))
}

/// Keeps a trusted proxy's id where it can be logged as it is; makes one otherwise.
fn identify(fields: &mut Fields, trusted: bool) {
    if trusted && is_one_usable(fields.all(FieldId::XRequestId)) {
        return;
    }
    let mut id = Text::<32>::default();
    id.hex(random::next());
    id.hex(random::next());
    if fields.has(FieldId::XRequestId) {
        fields.set(FieldId::XRequestId, id.as_bytes());
    } else {
        fields.push_known(FieldId::XRequestId, id.as_bytes());
    }
}

fn is_one_usable<'a>(mut ids: impl Iterator<Item = &'a [u8]>) -> bool {
    static LETTERS: ByteSet = ByteSet::alphanumeric_and(b"-_.:+/=@~");
    let usable = |id: &[u8]| (1..=128).contains(&id.len()) && LETTERS.has_all(id);
    ids.next().is_some_and(usable) && ids.next().is_none()
}

/// RFC 7239 section 4: an IPv6 address, and a host with a port, are quoted.
fn forwarded_element(out: &mut Text<384>, ctx: &RequestContext, host: &str) -> std::fmt::Result {
    out.write_str("for=")?;
    match ctx.peer.ip().to_canonical() {
        IpAddr::V4(address) => out.address(IpAddr::V4(address)),
        IpAddr::V6(address) => write!(out, "\"[{address}]\"")?,
    }
    if host.bytes().any(|b| matches!(b, b':' | b'[')) {
        write!(out, ";host=\"{host}\"")?;
    } else if !host.is_empty() {
        write!(out, ";host={host}")?;
    }
    write!(out, ";proto={}", ctx.client_scheme.as_str())
}

/// RFC 9110 section 7.6.3: the version as received.
fn via(fields: &mut Fields, version: Version) {
    let version = match version {
        Version::Http10 => "1.0 ",
        Version::Http11 => "1.1 ",
        Version::Http2 => "2.0 ",
    };
    let mut element = Text::<32>::default();
    let _ = element.write_str(version);
    let _ = element.write_str(PSEUDONYM);
    fields.append(FieldId::Via, element.as_bytes());
}

#[cfg(test)]
mod tests;
