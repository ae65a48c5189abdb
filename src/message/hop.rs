//! Which fields end at this hop, and which trailers may go on?
//!
//! RFC 9110 section 7.6.1. What `Connection` names is removed too, except for the fields that routing, authorization and
//! forwarding rest upon: a client must not be able to have those stripped (CVE-2024-45410).

use super::{Field, FieldId, Fields};

/// Whether a field never goes beyond this hop.
fn is_hop_by_hop(id: FieldId) -> bool {
    matches!(
        id,
        FieldId::Connection
            | FieldId::KeepAlive
            | FieldId::ProxyConnection
            | FieldId::ProxyAuthenticate
            | FieldId::ProxyAuthorization
            | FieldId::Te
            | FieldId::Trailer
            | FieldId::TransferEncoding
            | FieldId::Upgrade
            | FieldId::Http2Settings
    )
}

/// Whether a field stays even when `Connection` names it.
fn is_protected(id: FieldId) -> bool {
    matches!(
        id,
        FieldId::Authorization
            | FieldId::ClientCert
            | FieldId::ClientCertChain
            | FieldId::ContentLength
            | FieldId::ContentType
            | FieldId::Cookie
            | FieldId::Forwarded
            | FieldId::Host
            | FieldId::Via
            | FieldId::XForwardedFor
            | FieldId::XForwardedHost
            | FieldId::XForwardedPort
            | FieldId::XForwardedProto
            | FieldId::XRealIp
            | FieldId::XRequestId
    )
}

/// What `Connection` said, before it was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// `close`
    pub close: bool,
    /// `keep-alive`
    pub keep_alive: bool,
    /// `upgrade`
    pub upgrade: bool,
    /// `TE: trailers` (or `TE` with it among others): the sender takes trailers.
    pub trailers: bool,
    named: bool,
}

/// Reads `Connection` and `TE`.
pub fn connection_options(fields: &Fields) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    for field in fields.iter() {
        match field.id {
            FieldId::Connection => read_connection(field.value, &mut options),
            FieldId::Te => options.trailers |= tokens(field.value).any(|t| t.eq_ignore_ascii_case(b"trailers")),
            _ => {}
        }
    }
    options
}

fn read_connection(value: &[u8], options: &mut ConnectionOptions) {
    for token in tokens(value) {
        if token.eq_ignore_ascii_case(b"close") {
            options.close = true;
        } else if token.eq_ignore_ascii_case(b"keep-alive") {
            options.keep_alive = true;
        } else if token.eq_ignore_ascii_case(b"upgrade") {
            options.upgrade = true;
        } else {
            options.named = true;
        }
    }
}

/// The elements of a comma-separated list, without blanks; empty ones are skipped.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|t| !t.is_empty())
}

/// Removes what ends at this hop. `options` is what [`connection_options`] said.
pub fn strip(fields: &mut Fields, options: ConnectionOptions) {
    if options.named {
        strip_named(fields);
    }
    fields.retain(|field| !is_hop_by_hop(field.id));
}

/// The rare road: `Connection` names further fields.
fn strip_named(fields: &mut Fields) {
    let named: Vec<Vec<u8>> =
        fields.all(FieldId::Connection).flat_map(tokens).map(<[u8]>::to_ascii_lowercase).take(64).collect();
    fields.retain(|field| is_protected(field.id) || !named.iter().any(|name| name.eq_ignore_ascii_case(field.name)));
}

/// Keeps the trailers that may go on: none that frames, routes, authorizes or controls (RFC 9110 section 6.5.1).
pub fn strip_trailers(fields: &mut Fields) {
    fields.retain(|field| !is_hop_by_hop(field.id) && !is_protected(field.id) && !is_control(&field));
}

fn is_control(field: &Field<'_>) -> bool {
    matches!(field.id, FieldId::Expect | FieldId::Location | FieldId::SetCookie | FieldId::RetryAfter | FieldId::Date)
        || [&b"cache-control"[..], b"content-encoding", b"content-range", b"max-forwards", b"pragma", b"range", b"vary"]
            .iter()
            .any(|name| name.eq_ignore_ascii_case(field.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(lines: &[(&str, &str)]) -> Vec<String> {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let options = connection_options(&fields);
        strip(&mut fields, options);
        fields.iter().map(|f| String::from_utf8_lossy(f.name).into_owned()).collect()
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let lines = [
            ("Connection", "keep-alive"),
            ("Keep-Alive", "5"),
            ("Proxy-Connection", "x"),
            ("Proxy-Authorization", "x"),
            ("TE", "trailers"),
            ("Trailer", "x"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "x"),
            ("Accept", "x"),
        ];
        assert_eq!(stripped(&lines), ["Accept"]);
    }

    #[test]
    fn what_connection_names_is_removed_in_any_case() {
        assert_eq!(stripped(&[("X-Secret", "1"), ("connection", "close, x-SECRET"), ("b", "c")]), ["b"]);
    }

    #[test]
    fn a_client_cannot_have_protected_fields_stripped() {
        let lines = [
            ("Connection", "x-forwarded-for, Authorization, host, content-length, cookie"),
            ("X-Forwarded-For", "1"),
            ("Authorization", "1"),
            ("Host", "1"),
            ("Content-Length", "1"),
            ("Cookie", "1"),
        ];
        assert_eq!(stripped(&lines).len(), 5);
    }

    #[test]
    fn connection_options_are_read_from_every_line() {
        let mut fields = Fields::default();
        fields.push(b"connection", b" Upgrade ,x");
        fields.push(b"Connection", b"Close");
        fields.push(b"te", b"gzip, trailers");
        let options = connection_options(&fields);
        assert!(options.close && options.upgrade && options.trailers && !options.keep_alive);
    }

    #[test]
    fn trailers_that_frame_or_authorize_are_dropped() {
        let mut fields = Fields::default();
        for name in ["grpc-status", "Content-Length", "Host", "Authorization", "Set-Cookie", "Cache-Control", "x-sum"] {
            fields.push(name.as_bytes(), b"1");
        }
        strip_trailers(&mut fields);
        let left: Vec<_> = fields.iter().map(|f| f.name.to_vec()).collect();
        assert_eq!(left, [b"grpc-status".to_vec(), b"x-sum".to_vec()]);
    }
}
