//! What did proxies before us say?
//!
//! Lists are cut at commas from the right and never read as quoted text from the left: a quote that a client opened must not
//! swallow what a trusted proxy wrote after it.

use crate::message::Scheme;
use std::net::{IpAddr, SocketAddr};

/// Elements of a list, the last first.
pub(super) fn list_from_right(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.rsplit(|b| *b == b',').map(<[u8]>::trim_ascii)
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`; nothing for `unknown` and hidden names.
pub(super) fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    let bracketed = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).and_then(|t| t.parse::<IpAddr>().ok());
    bracketed.filter(IpAddr::is_ipv6).or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// A parameter of an element of Forwarded, its quotes removed: `for="[::1]"` is `[::1]`.
pub(super) fn parameter<'a>(element: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut found = element.split(|b| *b == b';').filter_map(|pair| {
        let equals = memchr::memchr(b'=', pair)?;
        let (key, value) = pair.split_at_checked(equals)?;
        key.trim_ascii().eq_ignore_ascii_case(name).then(|| value.get(1..).unwrap_or_default().trim_ascii())
    });
    let value = found.next().filter(|_| found.next().is_none())?;
    match value.strip_prefix(b"\"") {
        Some(rest) => rest.strip_suffix(b"\""),
        None => Some(value),
    }
}

/// The scheme, that of a WebSocket included.
pub(super) fn scheme(text: &[u8]) -> Option<Scheme> {
    let is = |name: &str| text.eq_ignore_ascii_case(name.as_bytes());
    if is("https") || is("wss") {
        Some(Scheme::Https)
    } else if is("http") || is("ws") {
        Some(Scheme::Http)
    } else {
        None
    }
}
