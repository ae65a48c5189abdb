//! How is a listener written?

use super::decode::{Fields, Kind};
use super::kind::{List, Mapped, Scalar, Section, Shapes};
use super::policy::{Policies, networks};
use super::tls::{certificate_name, certificate_names, client_auth};
use super::values;
use crate::model::{
    EncodedSlash, HttpsRedirect, Limits, ListenerProtocol, ListenerSpec, OddNames, Policy, ProxyHeaders, ServerHeader,
    TimeoutSpec, TlsSpec, TlsVersion, ValueError,
};
use std::net::SocketAddr;

/// Status of the redirect to https: 308, because 301 lets clients turn a POST into a GET.
pub const HTTPS_REDIRECT_STATUS: u16 = 308;
/// Port of the redirect to https: the port that https URLs leave out.
pub const HTTPS_REDIRECT_PORT: u16 = 443;

/// A listener as written: its name is the key it stands under.
pub(super) struct Written {
    pub(super) addresses: Vec<SocketAddr>,
    /// With an empty name and the first address.
    pub(super) spec: ListenerSpec,
    /// Certificates it serves by the names in them; `None`: all there are.
    pub(super) certificates: Option<Vec<String>>,
}

pub(super) fn listener() -> Section<Written> {
    Section {
        name: "listener",
        doc: "A bound address and port, its protocol and TLS, and what holds for everything that comes in there.",
        fields: written,
    }
}

/// A name without `#`, which tells the addresses of one listener apart.
pub(super) fn name() -> Scalar<String> {
    let any = values::name("the name of a listener");
    let parse = move |text: &str| match (any.parse)(text)? {
        name if name.contains('#') => Err(ValueError::new(format!("{text:?} has a #"), "leave it out")),
        name => Ok(name),
    };
    Scalar { parse: Box::new(parse), ..values::name("the name of a listener") }
}

fn written(f: &mut Fields<'_, '_>) -> Option<Written> {
    let address = "Address and port, one or several: :8080 (every address, IPv6 and IPv4), 0.0.0.0:80, [::1]:8443.";
    let addresses = f.required("address", address, Mapped(List(values::listen_address()), |all| all.concat()));
    let protocol = "`http` (cleartext) or `https` (TLS). Default: https where there is `tls`, else http.";
    let https = f.optional("protocol", protocol, values::choice("a protocol", &[("http", false), ("https", true)]));
    let tls = f.optional("tls", "TLS of an https listener.", tls());
    let proxy = "Networks whose connections begin with a PROXY header (v1 or v2), such as a load balancer's.";
    let proxy_protocol_from = f.or_default("proxy_protocol_from", proxy, networks());
    let trusted = "Networks whose X-Forwarded-* and Forwarded headers are believed; those of others are replaced.";
    let trusted_proxies = f.or_default("trusted_proxies", trusted, networks());
    let redirect = "Answer every request with a redirect to https: true, or { port, status }.";
    let https_redirect = f.or_default("https_redirect", redirect, https_redirect());
    let policies = Policies::decode(f);
    let doc = "A path with %2F (GitLab, npm, RabbitMQ): refuse the request, or keep it as it is; refused all the same where an upstream \
               that reads it as a slash would take the request for one of another route, or find dot segments.";
    let choice = values::choice("a choice", &[("refuse", EncodedSlash::Refuse), ("keep", EncodedSlash::Keep)]);
    let encoded_slash = f.or("encoded_slash", doc, choice, EncodedSlash::default());
    let headers =
        f.or_default("proxy_headers", "What the proxy tells about itself and the connection.", proxy_headers());
    let limits = f.or_default("limits", "What this listener takes at the most.", limits());
    let timeouts = f.or_default("timeouts", "How long this listener waits for its clients.", timeouts());
    if https == Some(false) && f.has("tls") {
        f.error("tls", "an http listener has no TLS", "write protocol: https, or leave tls out");
    }
    if https_redirect.is_some() && (https == Some(true) || f.has("tls")) {
        f.error("https_redirect", "an https listener cannot redirect to https", "put it on the http listener");
    }
    let (tls_spec, certificates) = tls.unwrap_or((DEFAULT_TLS, None));
    let speaks_tls = https.unwrap_or(f.has("tls"));
    let mut list = policies.list;
    list.extend(policies.max_body.map(Policy::BodyLimit));
    let addresses = addresses?;
    let spec = ListenerSpec {
        name: String::new(),
        origin: f.origin(),
        address: *addresses.first()?,
        protocol: if speaks_tls { ListenerProtocol::Https(tls_spec) } else { ListenerProtocol::Http },
        proxy_protocol_from,
        trusted_proxies,
        https_redirect,
        policies: list,
        encoded_slash,
        headers,
        limits,
        timeouts,
    };
    Some(Written { addresses, spec, certificates })
}

/// TLS 1.2 is the oldest version because clients from before 2014 are gone; HTTP/2 because every browser prefers it.
pub(super) const DEFAULT_TLS: TlsSpec =
    TlsSpec { min_version: TlsVersion::V1_2, client_auth: None, default_certificate: None, http2: true };

fn tls() -> Section<(TlsSpec, Option<Vec<String>>)> {
    Section {
        name: "tls",
        doc: "TLS of a listener.",
        fields: |f| {
            let names = "Certificates served for the names in them. Default: every certificate of `certificates`.";
            let certificates = f.optional("certificates", names, certificate_names());
            let default = "Certificate for unknown server names and clients that send none. Default: a TLS alert.";
            let default_certificate = f.optional("default", default, certificate_name());
            let versions = &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];
            let versions = values::choice("a TLS version", versions);
            let min_version = f.or("min_version", "Oldest TLS version.", versions, DEFAULT_TLS.min_version);
            let client_auth = f.optional("client_auth", "Client certificates. Default: not asked for.", client_auth());
            let http2 = f.or("http2", "Offer HTTP/2.", values::flag(), DEFAULT_TLS.http2);
            Some((TlsSpec { min_version, client_auth, default_certificate, http2 }, certificates))
        },
    }
}

fn https_redirect() -> impl Kind<Out = Option<HttpsRedirect>> {
    let usual = |on: bool| on.then_some(HttpsRedirect { port: HTTPS_REDIRECT_PORT, status: HTTPS_REDIRECT_STATUS });
    let section = Section {
        name: "https_redirect",
        doc: "Redirect of a whole listener to https.",
        fields: |f| {
            let port = values::number("a port", 1_u16, u16::MAX);
            let port = f.or("port", "Port of the target; 443 is left out of the URL.", port, HTTPS_REDIRECT_PORT);
            let status = values::one_of("a redirect status", &[301, 302, 307, 308]);
            let status = f.or("status", "Status of the redirect.", status, HTTPS_REDIRECT_STATUS);
            Some(Some(HttpsRedirect { port, status }))
        },
    };
    Shapes::new().text(Mapped(values::flag(), usual)).map(section)
}

fn proxy_headers() -> Section<ProxyHeaders> {
    Section {
        name: "proxy_headers",
        doc: "Headers that the proxy itself writes, and those that it does not take.",
        fields: |f| {
            let usual = ProxyHeaders::default();
            let doc = "X-Forwarded-For, -Proto, -Host and -Port to the upstream.";
            let x_forwarded = f.or("x_forwarded", doc, values::flag(), usual.x_forwarded);
            let forwarded = f.or("forwarded", "Forwarded (RFC 7239) to the upstream.", values::flag(), usual.forwarded);
            let doc = "X-Request-Id to the upstream: kept from trusted proxies, made otherwise.";
            let request_id = f.or("request_id", doc, values::flag(), usual.request_id);
            let via = f.or("via", "Via in both directions.", values::flag(), usual.via);
            let doc = "The Server header of responses: keep the upstream's, remove it, or { set: TEXT }.";
            let server = f.optional("server", doc, server()).unwrap_or(usual.server);
            let doc = "A header name with other characters than letters, digits and hyphens: refuse the request, or drop the field.";
            let odd = values::choice("a choice", &[("refuse", OddNames::Refuse), ("drop", OddNames::Drop)]);
            let odd_names = f.or("odd_names", doc, odd, usual.odd_names);
            Some(ProxyHeaders { x_forwarded, forwarded, request_id, via, server, odd_names })
        },
    }
}

fn server() -> impl Kind<Out = ServerHeader> {
    let words = values::choice("a choice for the Server header", &[("keep", false), ("remove", true)]);
    let set = Section {
        name: "server_header",
        doc: "A Server header of one's own.",
        fields: |f| {
            let set = f.required("set", "The text.", values::field_value());
            set.map(ServerHeader::Set)
        },
    };
    let word = |remove| if remove { ServerHeader::Remove } else { ServerHeader::Keep };
    Shapes::new().text(Mapped(words, word)).map(set)
}

fn limits() -> Section<Limits> {
    Section {
        name: "listener_limits",
        doc: "What one listener takes at the most.",
        fields: |f| {
            let usual = Limits::default();
            let count = || values::number("a number", 0_u32, u32::MAX);
            let some = || values::number("a number", 1_u32, u32::MAX);
            let doc = "Connections at a time, over all workers.";
            let connections = f.or("connections", doc, some(), usual.connections);
            let doc = "Connections at a time from one source address; 0: no limit.";
            let connections_per_source = f.or("connections_per_source", doc, count(), usual.connections_per_source);
            let head = || size(Limits::MAX_HEAD);
            let doc =
                "Size of a request's head over HTTP/1; 431 beyond. 256KiB at the most: a head is read as a whole.";
            let head_bytes = f.or("head", doc, head(), usual.head_bytes);
            let doc = "The same over HTTP/2, where a field counts 32 bytes more. 32KiB at the most, because a compressed head \
                       may be a thousandth of that. Default: as `head`, or the most.";
            let http2 = f.optional("http2_head", doc, size(Limits::MAX_HTTP2_HEAD));
            let http2_head_bytes = http2.unwrap_or(head_bytes.min(Limits::MAX_HTTP2_HEAD));
            let doc = "Size of a request's target; 414 beyond. It is a part of the head.";
            let target_bytes = f.or("target", doc, head(), usual.target_bytes);
            let number = values::number("a number", 1, Limits::MAX_HEADERS);
            let headers = f.or("headers", "Header fields of a request; 431 beyond.", number, usual.headers);
            let streams = f.or("streams", "HTTP/2 streams at a time on one connection.", some(), usual.streams);
            let doc = "Requests on one connection until it is closed; 0: no limit.";
            let requests_per_connection = f.or("requests_per_connection", doc, count(), usual.requests_per_connection);
            let doc = "Bytes a second that a request's body must bring on average, beside `timeouts.body`; 408 below. Not for gRPC, nor \
                       once the answer has begun; 0: no limit.";
            let body_rate = f.or("body_rate", doc, rate(), usual.body_rate);
            Some(Limits {
                connections,
                connections_per_source,
                head_bytes,
                http2_head_bytes,
                target_bytes,
                headers,
                streams,
                requests_per_connection,
                body_rate,
            })
        },
    }
}

/// The least that a request of a browser fits into.
const MIN_HEAD: u32 = 512;

fn rate() -> Scalar<u32> {
    let bytes = values::bytes(u32::MAX.into());
    let Scalar { expects, schema, .. } = values::bytes(u32::MAX.into());
    let parse = Box::new(move |t: &str| Ok(u32::try_from((bytes.parse)(t)?).unwrap_or(u32::MAX)));
    Scalar { expects, parse, schema, show: Box::new(|b| serde_json::json!(values::show_bytes((*b).into()))) }
}

fn size(max: u32) -> Scalar<u32> {
    let bytes = values::bytes(u64::MAX);
    Scalar {
        expects: bytes.expects,
        parse: Box::new(move |t| {
            let value = u32::try_from((bytes.parse)(t)?).unwrap_or(u32::MAX);
            let most = values::show_bytes(max.into());
            let wrong = |how: &str| {
                ValueError::new(
                    format!("{t:?} is {how}"),
                    format!("write {MIN_HEAD} bytes or more, and {most} or less"),
                )
            };
            match value {
                ..MIN_HEAD => Err(wrong("too small")),
                value if value > max => Err(wrong("more than can be held")),
                value => Ok(value),
            }
        }),
        schema: bytes.schema,
        show: Box::new(|v| serde_json::json!(values::show_bytes(u64::from(*v)))),
    }
}

fn timeouts() -> Section<TimeoutSpec> {
    Section {
        name: "listener_timeouts",
        doc: "How long a listener waits for its clients.",
        fields: |f| {
            let usual = TimeoutSpec::default();
            let duration = values::positive_duration;
            let handshake = f.or("handshake", "TLS handshake and PROXY header.", duration(), usual.handshake);
            let doc = "From the accept or the first byte to the end of a request's head; 408 beyond.";
            let head = f.or("head", doc, duration(), usual.head);
            let keep_alive = f.or("keep_alive", "Between two requests.", duration(), usual.keep_alive);
            let doc = "Longest silence while a body is awaited or written.";
            let idle = f.or("idle", doc, duration(), usual.idle);
            let doc = "How far a request's body may fall behind `limits.body_rate`.";
            let body = f.or("body", doc, duration(), usual.body);
            Some(TimeoutSpec { handshake, head, keep_alive, idle, body })
        },
    }
}
