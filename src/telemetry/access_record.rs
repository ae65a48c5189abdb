//! What is kept of a request for the access log, and as which bytes does it travel to the writer?
//!
//! Plain copies in a fixed order: formatting is the writer's work. Of the request's header fields only Host, User-Agent, Referer
//! and the request id ever come here; there is no way to hand Authorization or Cookie in.

use crate::message::{RequestContext, Version};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// One request that ended, borrowed from where it was handled.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the request came, in microseconds since the epoch.
    pub time: u64,
    /// What is known about it beside the message.
    pub context: &'a RequestContext,
    /// Method.
    pub method: &'a str,
    /// Host.
    pub host: &'a str,
    /// Path as received, before any rewrite.
    pub path: &'a [u8],
    /// Query, where there was one.
    pub query: Option<&'a [u8]>,
    /// Version as received.
    pub version: Version,
    /// Name of the route; empty: none matched.
    pub route: &'a str,
    /// Name of the cluster; empty: none was asked.
    pub cluster: &'a str,
    /// Name of the listener.
    pub listener: &'a str,
    /// Request id; empty: none.
    pub request_id: &'a [u8],
    /// User-Agent as received; empty: none.
    pub user_agent: &'a [u8],
    /// Referer as received; empty: none.
    pub referer: &'a [u8],
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
}

/// No record is longer than this in a batch: longer texts are cut.
pub(super) const MAX_RECORD: usize = 24 * 1024;
const MAX_PATH: usize = 8 * 1024;
const MAX_FIELD: usize = 2 * 1024;
const MAX_NAME: usize = 256;
const MAX_AUDITED: usize = 1024;
const NONE: u64 = u64::MAX;

impl Record<'_> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let context = self.context;
        let head = context.upstream_head.map_or(NONE, micros);
        for number in [self.time, micros(self.duration), head, context.bytes_in, context.bytes_out] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [context.status, context.attempts, version_code(self.version)] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        put_address(out, Some(SocketAddr::new(context.client, 0)));
        put_address(out, Some(context.peer));
        put_address(out, context.endpoint);
        put_text(out, self.method.as_bytes(), MAX_NAME);
        put_text(out, self.host.as_bytes(), MAX_NAME);
        put_text(out, self.path, MAX_PATH);
        out.push(u8::from(self.query.is_some()));
        put_text(out, self.query.unwrap_or_default(), MAX_PATH);
        for name in [self.route, self.cluster, self.listener] {
            put_text(out, name.as_bytes(), MAX_NAME);
        }
        put_text(out, self.request_id, MAX_NAME);
        let tls = context.tls.as_ref().map_or("", |tls| tls.version);
        for token in [tls, context.reason.unwrap_or_default()] {
            put_text(out, token.as_bytes(), MAX_NAME);
        }
        self.put_audited(out);
        put_text(out, self.user_agent, MAX_FIELD);
        put_text(out, self.referer, MAX_FIELD);
    }

    /// What audited checks said, in the form of [`put_text`]: `listener http: header x-key is missing; header x-id is missing`.
    fn put_audited(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        put_text(out, b"", 0);
        let mut put = |part: &str| {
            let room = (begin + 2 + MAX_AUDITED).saturating_sub(out.len());
            out.extend_from_slice(part.as_bytes().get(..room).unwrap_or(part.as_bytes()));
        };
        let (listener, route) = (&self.context.audited_by_listener, &self.context.audited);
        if let Some(audit) = listener {
            ["listener ", self.listener, ": ", &audit.detail].into_iter().for_each(&mut put);
        }
        if let Some(audit) = route {
            put(if listener.is_some() { "; " } else { "" });
            put(&audit.detail);
        }
        let length = u16::try_from(out.len() - begin - 2).unwrap_or_default().to_le_bytes();
        if let Some(place) = out.get_mut(begin..begin + 2) {
            place.copy_from_slice(&length);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(NONE)
}

fn version_code(version: Version) -> u16 {
    match version {
        Version::Http10 => 0,
        Version::Http11 => 1,
        Version::Http2 => 2,
    }
}

/// 19 bytes: family (0 none, 4, 6), port, address.
fn put_address(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    let (family, ip) = match address.map(|a| a.ip()) {
        None => (0, Ipv6Addr::UNSPECIFIED),
        Some(IpAddr::V4(ip)) => (4, ip.to_ipv6_mapped()),
        Some(IpAddr::V6(ip)) => (6, ip),
    };
    out.push(family);
    out.extend_from_slice(&address.map_or(0, |a| a.port()).to_le_bytes());
    out.extend_from_slice(&ip.octets());
}

/// Length, then the text, cut at `max`; all limits are below 64 KiB.
fn put_text(out: &mut Vec<u8>, text: &[u8], max: usize) {
    let text = text.get(..max).unwrap_or(text);
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or_default().to_le_bytes());
    out.extend_from_slice(text);
}

/// A record as the writer reads it from a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) time: u64,
    pub(super) duration_us: u64,
    pub(super) upstream_us: Option<u64>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) status: u16,
    pub(super) attempts: u16,
    pub(super) version: Version,
    pub(super) client: IpAddr,
    pub(super) peer: SocketAddr,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) method: &'a [u8],
    pub(super) host: &'a [u8],
    pub(super) path: &'a [u8],
    pub(super) query: Option<&'a [u8]>,
    pub(super) route: &'a [u8],
    pub(super) cluster: &'a [u8],
    pub(super) listener: &'a [u8],
    pub(super) request_id: &'a [u8],
    pub(super) tls: &'a [u8],
    pub(super) reason: &'a [u8],
    pub(super) audited: &'a [u8],
    pub(super) user_agent: &'a [u8],
    pub(super) referer: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Takes the first record off `batch`; `None` at its end.
    pub(super) fn decode(batch: &mut &'a [u8]) -> Option<Self> {
        Some(Self {
            time: take_u64(batch)?,
            duration_us: take_u64(batch)?,
            upstream_us: Some(take_u64(batch)?).filter(|us| *us != NONE),
            bytes_in: take_u64(batch)?,
            bytes_out: take_u64(batch)?,
            status: take_u16(batch)?,
            attempts: take_u16(batch)?,
            version: match take_u16(batch)? {
                0 => Version::Http10,
                1 => Version::Http11,
                _ => Version::Http2,
            },
            client: take_address(batch)??.ip(),
            peer: take_address(batch)??,
            endpoint: take_address(batch)?,
            method: take_text(batch)?,
            host: take_text(batch)?,
            path: take_text(batch)?,
            query: {
                let present = take(batch, 1)? != [0];
                Some(take_text(batch)?).filter(|_| present)
            },
            route: take_text(batch)?,
            cluster: take_text(batch)?,
            listener: take_text(batch)?,
            request_id: take_text(batch)?,
            tls: take_text(batch)?,
            reason: take_text(batch)?,
            audited: take_text(batch)?,
            user_agent: take_text(batch)?,
            referer: take_text(batch)?,
        })
    }
}

fn take<'a>(batch: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    batch.split_off(..len)
}

fn take_u64(batch: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(batch, 8)?.try_into().ok()?))
}

fn take_u16(batch: &mut &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes(take(batch, 2)?.try_into().ok()?))
}

fn take_text<'a>(batch: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_u16(batch)?;
    take(batch, usize::from(len))
}

fn take_address(batch: &mut &[u8]) -> Option<Option<SocketAddr>> {
    let family = *take(batch, 1)?.first()?;
    let port = take_u16(batch)?;
    let ip = Ipv6Addr::from_octets(take(batch, 16)?.try_into().ok()?);
    let ip = match (family, ip.to_ipv4_mapped()) {
        (0, _) => return Some(None),
        (4, Some(v4)) => IpAddr::V4(v4),
        _ => IpAddr::V6(ip),
    };
    Some(Some(SocketAddr::new(ip, port)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::message::{Audit, Scheme, TlsInfo};
    use std::sync::Arc;
    use tokio::time::Instant;

    pub(in crate::telemetry) fn context() -> RequestContext {
        let (peer, local) = ("192.0.2.7:4321".parse().unwrap(), "127.0.0.1:443".parse().unwrap());
        let tls = TlsInfo { version: "TLSv1.3", ..TlsInfo::default() };
        let mut context = RequestContext::new(Instant::now(), peer, local, Scheme::Https, Some(Arc::new(tls)));
        context.client = "2001:db8::1".parse().unwrap();
        context.status = 200;
        context.attempts = 1;
        context.endpoint = Some("10.0.0.1:80".parse().unwrap());
        context.bytes_out = 12;
        context.upstream_head = Some(Duration::from_micros(900));
        context
    }

    pub(in crate::telemetry) fn record(context: &RequestContext) -> Record<'_> {
        Record {
            time: 1_700_000_000_123_456,
            context,
            method: "GET",
            host: "shop.example.com",
            path: b"/a",
            query: Some(b"x=1"),
            version: Version::Http11,
            route: "shop",
            cluster: "shop/web",
            listener: "https",
            request_id: b"id-1",
            user_agent: b"curl/8",
            referer: b"",
            duration: Duration::from_micros(1500),
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let context = context();
        let mut bytes = Vec::new();
        record(&context).encode(&mut bytes);
        Record { query: None, ..record(&context) }.encode(&mut bytes);
        let mut batch = bytes.as_slice();
        let entry = Entry::decode(&mut batch).unwrap();
        assert_eq!((entry.time, entry.duration_us, entry.upstream_us), (1_700_000_000_123_456, 1500, Some(900)));
        assert_eq!((entry.client, entry.peer, entry.endpoint), (context.client, context.peer, context.endpoint));
        assert_eq!((entry.query, entry.user_agent, entry.tls), (Some(&b"x=1"[..]), &b"curl/8"[..], &b"TLSv1.3"[..]));
        assert_eq!(Entry::decode(&mut batch).unwrap(), Entry { query: None, ..entry });
        assert_eq!(Entry::decode(&mut batch), None);
    }

    #[test]
    fn a_record_of_the_longest_texts_stays_below_its_bound() {
        let mut context = context();
        let long = "x".repeat(100_000);
        context.reason = Some("upstream_reset");
        context.audited_by_listener = Some(Audit { filter: "header_check", detail: long.as_str().into() });
        context.audited.clone_from(&context.audited_by_listener);
        let mut bytes = Vec::new();
        let text = long.as_str();
        Record {
            method: text,
            host: text,
            path: text.as_bytes(),
            query: Some(text.as_bytes()),
            route: text,
            cluster: text,
            listener: text,
            request_id: text.as_bytes(),
            user_agent: long.as_bytes(),
            referer: long.as_bytes(),
            ..record(&context)
        }
        .encode(&mut bytes);
        assert!(bytes.len() <= MAX_RECORD, "{}", bytes.len());
        let entry = Entry::decode(&mut bytes.as_slice()).unwrap();
        assert_eq!((entry.path.len(), entry.audited.len(), entry.referer.len()), (MAX_PATH, MAX_AUDITED, MAX_FIELD));
    }

    #[test]
    fn audited_checks_are_told_with_the_listener_whose_they_are() {
        let audit = |detail: &str| Some(Audit { filter: "header_check", detail: detail.into() });
        for (by_listener, by_route, text) in [
            (None, None, ""),
            (audit("header a is missing"), None, "listener https: header a is missing"),
            (None, audit("header b is forbidden"), "header b is forbidden"),
            (audit("a"), audit("b"), "listener https: a; b"),
        ] {
            let context = RequestContext { audited_by_listener: by_listener, audited: by_route, ..context() };
            let mut bytes = Vec::new();
            record(&context).encode(&mut bytes);
            let entry = Entry::decode(&mut bytes.as_slice()).unwrap();
            assert_eq!((entry.audited, entry.user_agent), (text.as_bytes(), &b"curl/8"[..]));
        }
    }

    #[test]
    fn a_batch_cut_short_gives_no_record() {
        let context = context();
        let mut bytes = Vec::new();
        record(&context).encode(&mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(Entry::decode(&mut &bytes[..end]), None);
        }
    }
}
