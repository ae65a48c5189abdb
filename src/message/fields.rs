//! How are header fields held so that reading, editing and writing them needs no allocation?
//!
//! One byte buffer and one list of places in it, both reused from request to request. Order and spelling are kept as received.
//! A list of at most a few hundred fields is searched front to back: well-known names compare as one byte.

use std::ops::Range;

/// Names that the proxy itself reads or writes, so that they compare as one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it")]
pub enum FieldId {
    Accept,
    Authorization,
    ClientCert,
    ClientCertChain,
    Connection,
    ContentLength,
    ContentType,
    Cookie,
    Date,
    Expect,
    Forwarded,
    GrpcStatus,
    GrpcTimeout,
    Host,
    Http2Settings,
    KeepAlive,
    Location,
    Origin,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Referer,
    RetryAfter,
    SecWebSocketAccept,
    SecWebSocketKey,
    SecWebSocketVersion,
    Server,
    SetCookie,
    Te,
    Traceparent,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedPort,
    XForwardedProto,
    XRealIp,
    XRequestId,
    /// Every other name: compare the text.
    Other,
}

/// Well-known names in lower case, in the order of [`FieldId`].
const KNOWN: &[(&str, FieldId)] = &[
    ("accept", FieldId::Accept),
    ("authorization", FieldId::Authorization),
    ("client-cert", FieldId::ClientCert),
    ("client-cert-chain", FieldId::ClientCertChain),
    ("connection", FieldId::Connection),
    ("content-length", FieldId::ContentLength),
    ("content-type", FieldId::ContentType),
    ("cookie", FieldId::Cookie),
    ("date", FieldId::Date),
    ("expect", FieldId::Expect),
    ("forwarded", FieldId::Forwarded),
    ("grpc-status", FieldId::GrpcStatus),
    ("grpc-timeout", FieldId::GrpcTimeout),
    ("host", FieldId::Host),
    ("http2-settings", FieldId::Http2Settings),
    ("keep-alive", FieldId::KeepAlive),
    ("location", FieldId::Location),
    ("origin", FieldId::Origin),
    ("proxy-authenticate", FieldId::ProxyAuthenticate),
    ("proxy-authorization", FieldId::ProxyAuthorization),
    ("proxy-connection", FieldId::ProxyConnection),
    ("referer", FieldId::Referer),
    ("retry-after", FieldId::RetryAfter),
    ("sec-websocket-accept", FieldId::SecWebSocketAccept),
    ("sec-websocket-key", FieldId::SecWebSocketKey),
    ("sec-websocket-version", FieldId::SecWebSocketVersion),
    ("server", FieldId::Server),
    ("set-cookie", FieldId::SetCookie),
    ("te", FieldId::Te),
    ("traceparent", FieldId::Traceparent),
    ("trailer", FieldId::Trailer),
    ("transfer-encoding", FieldId::TransferEncoding),
    ("upgrade", FieldId::Upgrade),
    ("user-agent", FieldId::UserAgent),
    ("via", FieldId::Via),
    ("x-forwarded-for", FieldId::XForwardedFor),
    ("x-forwarded-host", FieldId::XForwardedHost),
    ("x-forwarded-port", FieldId::XForwardedPort),
    ("x-forwarded-proto", FieldId::XForwardedProto),
    ("x-real-ip", FieldId::XRealIp),
    ("x-request-id", FieldId::XRequestId),
];

impl FieldId {
    /// The id of a name in any case. Length and first letter leave one candidate, so that a name costs one comparison at most:
    /// a quarter of the time that a walk over the list takes.
    pub fn of(name: &[u8]) -> Self {
        let Some(first) = name.first() else { return Self::Other };
        let candidate = match (name.len(), first | 0x20) {
            (2, b't') => Self::Te,
            (3, b'v') => Self::Via,
            (4, b'd') => Self::Date,
            (4, b'h') => Self::Host,
            (6, b'a') => Self::Accept,
            (6, b'c') => Self::Cookie,
            (6, b'e') => Self::Expect,
            (6, b'o') => Self::Origin,
            (6, b's') => Self::Server,
            (7, b'r') => Self::Referer,
            (7, b't') => Self::Trailer,
            (7, b'u') => Self::Upgrade,
            (8, b'l') => Self::Location,
            (9, b'f') => Self::Forwarded,
            (9, b'x') => Self::XRealIp,
            (10, b'c') => Self::Connection,
            (10, b'k') => Self::KeepAlive,
            (10, b's') => Self::SetCookie,
            (10, b'u') => Self::UserAgent,
            (11, b'c') => Self::ClientCert,
            (11, b'g') => Self::GrpcStatus,
            (11, b'r') => Self::RetryAfter,
            (11, b't') => Self::Traceparent,
            (12, b'c') => Self::ContentType,
            (12, b'g') => Self::GrpcTimeout,
            (12, b'x') => Self::XRequestId,
            (13, b'a') => Self::Authorization,
            (14, b'c') => Self::ContentLength,
            (14, b'h') => Self::Http2Settings,
            (15, b'x') => Self::XForwardedFor,
            (16, b'p') => Self::ProxyConnection,
            (16, b'x') if name.last().is_some_and(|last| last | 0x20 == b't') => match name.get(12) {
                Some(b'h' | b'H') => Self::XForwardedHost,
                _ => Self::XForwardedPort,
            },
            (17, b'c') => Self::ClientCertChain,
            (17, b's') => Self::SecWebSocketKey,
            (17, b't') => Self::TransferEncoding,
            (17, b'x') => Self::XForwardedProto,
            (18, b'p') => Self::ProxyAuthenticate,
            (19, b'p') => Self::ProxyAuthorization,
            (20, b's') => Self::SecWebSocketAccept,
            (21, b's') => Self::SecWebSocketVersion,
            _ => return Self::Other,
        };
        if candidate.as_str().as_bytes().eq_ignore_ascii_case(name) { candidate } else { Self::Other }
    }

    /// The name in lower case; empty for `Other`.
    pub fn as_str(self) -> &'static str {
        KNOWN.get(self as usize).map_or("", |(text, _)| text)
    }
}

/// A name prepared for look-ups: made once when configuration is compiled, compared many times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    id: FieldId,
    text: Box<str>,
}

impl Name {
    /// Prepares a name; case does not matter.
    pub fn new(text: &str) -> Self {
        Self { id: FieldId::of(text.as_bytes()), text: text.to_ascii_lowercase().into() }
    }

    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its id, `Other` for names that the proxy does not use itself.
    pub fn id(&self) -> FieldId {
        self.id
    }
}

/// One field as it stands in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Well-known id.
    pub id: FieldId,
    /// Name as received.
    pub name: &'a [u8],
    /// Value as received, without surrounding blanks.
    pub value: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
struct Line {
    id: FieldId,
    name: (u32, u32),
    value: (u32, u32),
}

/// An ordered list of header (or trailer) fields. Names were checked to be tokens and values to hold no control characters
/// before they come here, or are our own.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    lines: Vec<Line>,
}

impl Fields {
    /// An empty list that takes so many fields, of so many bytes together, before it grows.
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), lines: Vec::with_capacity(fields) }
    }

    /// Forgets every field and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.lines.clear();
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes held, for tests and memory accounting.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.lines.capacity() * size_of::<Line>()
    }

    /// Takes a whole head as it was received (one copy) and forgets the old fields; the fields follow by [`Self::push_range`].
    pub fn load(&mut self, head: &[u8]) {
        self.clear();
        self.bytes.extend_from_slice(head);
    }

    /// Adds a field by places in what [`Self::load`] took. A place outside of it gives an empty name or value.
    pub fn push_range(&mut self, name: Range<usize>, value: Range<usize>) -> FieldId {
        let id = FieldId::of(self.bytes.get(name.clone()).unwrap_or_default());
        self.lines.push(Line { id, name: place(name), value: place(value) });
        id
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_id(FieldId::of(name), name, value);
    }

    /// Adds a well-known field at the end, its name in lower case.
    pub fn push_known(&mut self, id: FieldId, value: &[u8]) {
        self.push_id(id, id.as_str().as_bytes(), value);
    }

    fn push_id(&mut self, id: FieldId, name: &[u8], value: &[u8]) {
        let name = self.keep(name);
        let value = self.keep(value);
        self.lines.push(Line { id, name, value });
    }

    fn keep(&mut self, text: &[u8]) -> (u32, u32) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        place(start..self.bytes.len())
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.iter().map(|line| self.field(line))
    }

    fn field(&self, line: &Line) -> Field<'_> {
        Field { id: line.id, name: self.at(line.name), value: self.at(line.value) }
    }

    fn at(&self, (start, end): (u32, u32)) -> &[u8] {
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// First value of a well-known name.
    pub fn get(&self, id: FieldId) -> Option<&[u8]> {
        self.lines.iter().find(|l| l.id == id).map(|l| self.at(l.value))
    }

    /// Whether there is such a well-known name.
    pub fn has(&self, id: FieldId) -> bool {
        self.lines.iter().any(|l| l.id == id)
    }

    /// All values of a well-known name, in order.
    pub fn all(&self, id: FieldId) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.lines.iter().filter(move |l| l.id == id).map(|l| self.at(l.value))
    }

    /// First value of any name.
    pub fn find(&self, name: &Name) -> Option<&[u8]> {
        self.lines.iter().find(|l| self.is(l, name)).map(|l| self.at(l.value))
    }

    /// All values of any name, in order.
    pub fn find_all<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a [u8]> {
        self.lines.iter().filter(move |l| self.is(l, name)).map(|l| self.at(l.value))
    }

    fn is(&self, line: &Line, name: &Name) -> bool {
        line.id == name.id
            && (line.id != FieldId::Other || self.at(line.name).eq_ignore_ascii_case(name.text.as_bytes()))
    }

    /// Removes every field of a well-known name; says whether there was one.
    pub fn remove(&mut self, id: FieldId) -> bool {
        let before = self.lines.len();
        self.lines.retain(|l| l.id != id);
        self.lines.len() != before
    }

    /// Removes every field of any name; says whether there was one.
    pub fn remove_name(&mut self, name: &Name) -> bool {
        let before = self.lines.len();
        let bytes = std::mem::take(&mut self.bytes);
        self.lines.retain(|l| {
            let text = bytes.get(l.name.0 as usize..l.name.1 as usize).unwrap_or_default();
            l.id != name.id || (l.id == FieldId::Other && !text.eq_ignore_ascii_case(name.text.as_bytes()))
        });
        self.bytes = bytes;
        self.lines.len() != before
    }

    /// Keeps the fields for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let bytes = std::mem::take(&mut self.bytes);
        let at = |(start, end): (u32, u32)| bytes.get(start as usize..end as usize).unwrap_or_default();
        self.lines.retain(|l| keep(Field { id: l.id, name: at(l.name), value: at(l.value) }));
        self.bytes = bytes;
    }

    /// Replaces every field of a well-known name by one; the first keeps its place.
    pub fn set(&mut self, id: FieldId, value: &[u8]) {
        let value = self.keep(value);
        self.set_place(id, value);
    }

    /// Joins the values of a well-known list field and this one, as one field: `a, b, value`.
    pub fn append(&mut self, id: FieldId, value: &[u8]) {
        let start = self.bytes.len();
        for line in self.lines.iter().filter(|l| l.id == id) {
            let old = line.value.0 as usize..line.value.1 as usize;
            if old.start < old.end && old.end <= start {
                self.bytes.extend_from_within(old);
                self.bytes.extend_from_slice(b", ");
            }
        }
        self.bytes.extend_from_slice(value);
        self.set_place(id, place(start..self.bytes.len()));
    }

    fn set_place(&mut self, id: FieldId, value: (u32, u32)) {
        let mut placed = false;
        self.lines.retain_mut(|l| match (l.id == id, placed) {
            (false, _) => true,
            (true, true) => false,
            (true, false) => {
                l.value = value;
                placed = true;
                true
            }
        });
        if !placed {
            let name = self.keep(id.as_str().as_bytes());
            self.lines.push(Line { id, name, value });
        }
    }

    /// Replaces every field of any name by one, at the end.
    pub fn set_name(&mut self, name: &Name, value: &[u8]) {
        self.remove_name(name);
        self.push_id(name.id, name.text.as_bytes(), value);
    }

    /// Writes all fields as `name: value CRLF`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.reserve(self.bytes.len() + self.lines.len() * 4);
        for line in &self.lines {
            out.extend_from_slice(self.at(line.name));
            out.extend_from_slice(b": ");
            out.extend_from_slice(self.at(line.value));
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Heads are bounded far below 4 GiB (`Limits::head_bytes` is a u32), so places fit.
fn place(range: Range<usize>) -> (u32, u32) {
    (u32::try_from(range.start).unwrap_or(u32::MAX), u32::try_from(range.end).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in pairs {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    fn text(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write_to(&mut out);
        String::from_utf8(out).expect("tests use text")
    }

    #[test]
    fn order_and_spelling_are_kept() {
        let fields = list(&[("X-One", "1"), ("hOsT", "a"), ("x-one", "2")]);
        assert_eq!(text(&fields), "X-One: 1\r\nhOsT: a\r\nx-one: 2\r\n");
    }

    #[test]
    fn names_compare_in_any_case() {
        let fields = list(&[("X-One", "1"), ("HOST", "a"), ("x-one", "2")]);
        assert_eq!(fields.get(FieldId::Host), Some(&b"a"[..]));
        assert_eq!(fields.find_all(&Name::new("x-ONE")).count(), 2);
        assert_eq!(fields.find(&Name::new("x-on")), None);
    }

    #[test]
    fn set_replaces_all_and_keeps_the_first_place() {
        let mut fields = list(&[("Via", "1"), ("Host", "a"), ("via", "2")]);
        fields.set(FieldId::Via, b"3");
        assert_eq!(text(&fields), "Via: 3\r\nHost: a\r\n");
        fields.set(FieldId::Server, b"t");
        assert_eq!(text(&fields), "Via: 3\r\nHost: a\r\nserver: t\r\n");
    }

    #[test]
    fn append_joins_all_values_of_a_list_in_one_field() {
        let mut fields =
            list(&[("X-Forwarded-For", "1"), ("Host", "a"), ("x-forwarded-for", "2"), ("X-Forwarded-For", "")]);
        fields.append(FieldId::XForwardedFor, b"3");
        assert_eq!(text(&fields), "X-Forwarded-For: 1, 2, 3\r\nHost: a\r\n");
        fields.append(FieldId::Via, b"1.1 t");
        assert_eq!(text(&fields), "X-Forwarded-For: 1, 2, 3\r\nHost: a\r\nvia: 1.1 t\r\n");
    }

    #[test]
    fn remove_takes_every_line_of_a_name_and_no_other() {
        let mut fields = list(&[("x-a", "1"), ("x-b", "2"), ("X-A", "3"), ("te", "x")]);
        assert!(fields.remove_name(&Name::new("x-a")));
        assert!(!fields.remove_name(&Name::new("x-a")));
        assert!(fields.remove(FieldId::Te));
        assert_eq!(text(&fields), "x-b: 2\r\n");
    }

    #[test]
    fn every_known_name_finds_its_id_and_back() {
        for (name, id) in KNOWN {
            assert_eq!(FieldId::of(name.to_ascii_uppercase().as_bytes()), *id);
            assert_eq!(id.as_str(), *name);
        }
        for other in ["", "x", "hosT2", "hest", "x-forwarded-xxxx", "x-forwarded-hort", "x-forwarded-pos\0", "tE "] {
            assert_eq!(FieldId::of(other.as_bytes()), FieldId::Other, "{other:?}");
        }
    }

    #[test]
    fn a_loaded_head_is_read_by_places() {
        let mut fields = Fields::default();
        fields.load(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(fields.push_range(16..20, 22..23), FieldId::Host);
        fields.push(b"x", b"y");
        assert_eq!(text(&fields), "Host: a\r\nx: y\r\n");
    }
}
