//! Which names of header fields does the proxy know itself, and how is any other prepared for look-ups?

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
    /// No field of HTTP: to a program that is run by the rules of CGI it would be the proxy that it connects through (CVE-2016-5385).
    Proxy,
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
    ("proxy", FieldId::Proxy),
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

/// A name as three words of eight bytes, so that it is compared by word and not by byte.
#[derive(Clone, Copy)]
struct Packed {
    text: [u64; 3],
    /// The bit that makes a letter small, where there is a letter.
    small: [u64; 3],
}

/// No well-known name is longer.
const PACKED_BYTES: usize = 24;

#[allow(clippy::indexing_slicing, reason = "at compile time alone, where a place outside is an error")]
static PACKED: [Packed; KNOWN.len()] = {
    let mut all = [Packed { text: [0; 3], small: [0; 3] }; KNOWN.len()];
    let mut at = 0;
    while at < KNOWN.len() {
        all[at] = Packed::new(KNOWN[at].0.as_bytes());
        at += 1;
    }
    all
};

impl Packed {
    #[allow(clippy::indexing_slicing, reason = "at compile time alone, where a place outside is an error")]
    const fn new(name: &[u8]) -> Self {
        let (mut text, mut small) = ([0; 3], [0; 3]);
        let mut at = 0;
        while at < name.len() {
            text[at / 8] |= (name[at] as u64) << (at % 8 * 8);
            if name[at].is_ascii_lowercase() {
                small[at / 8] |= 0x20 << (at % 8 * 8);
            }
            at += 1;
        }
        Self { text, small }
    }

    /// Whether a name of the same length is this one, in any case.
    fn is(&self, name: &[u8]) -> bool {
        let (words, rest) = name.as_chunks::<8>();
        let mut places = self.text.iter().zip(&self.small);
        let mut differs = 0;
        for (word, (text, small)) in words.iter().zip(&mut places) {
            differs |= (u64::from_le_bytes(*word) | small) ^ text;
        }
        if let Some((text, small)) = places.next() {
            differs |= (last_word(name, rest) | small) ^ text;
        }
        differs == 0 && name.len() <= PACKED_BYTES
    }
}

/// The bytes after the last whole word as one word, read without asking for each whether it is there.
fn last_word(name: &[u8], rest: &[u8]) -> u64 {
    let bits = rest.len() * 8;
    match (name.last_chunk::<8>(), rest.first_chunk::<4>(), rest.last_chunk::<4>(), rest) {
        (_, _, _, []) => 0,
        (Some(tail), ..) => u64::from_le_bytes(*tail) >> (64 - bits),
        (_, Some(front), Some(back), _) => {
            u64::from(u32::from_le_bytes(*front)) | u64::from(u32::from_le_bytes(*back)) << (bits - 32)
        }
        (.., few) => few.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

impl FieldId {
    /// The id of a name in any case. Length and first letter leave one candidate, so that a name costs one comparison at most.
    pub fn of(name: &[u8]) -> Self {
        let Some(first) = name.first() else { return Self::Other };
        let candidate = match (name.len(), first | 0x20) {
            (2, b't') => Self::Te,
            (3, b'v') => Self::Via,
            (4, b'd') => Self::Date,
            (4, b'h') => Self::Host,
            (5, b'p') => Self::Proxy,
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
        if PACKED.get(candidate as usize).is_some_and(|known| known.is(name)) { candidate } else { Self::Other }
    }

    /// All names in lower case, each at the place that its id says.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|(text, _)| *text)
    }

    /// The name in lower case; empty for `Other`.
    pub fn as_str(self) -> &'static str {
        KNOWN.get(self as usize).map_or("", |(text, _)| text)
    }
}

/// A set of ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(u64);

impl FieldSet {
    /// A set of these.
    #[allow(clippy::indexing_slicing, reason = "at compile time, where a place outside is an error")]
    pub const fn of(ids: &[FieldId]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < ids.len() {
            bits |= Self::bit(ids[at]);
            at += 1;
        }
        Self(bits)
    }

    const fn bit(id: FieldId) -> u64 {
        1 << id as u64
    }

    /// Adds one.
    pub fn insert(&mut self, id: FieldId) {
        self.0 |= Self::bit(id);
    }

    /// Takes one out.
    pub fn remove(&mut self, id: FieldId) {
        self.0 &= !Self::bit(id);
    }

    /// Whether it is in.
    pub const fn has(self, id: FieldId) -> bool {
        self.0 & Self::bit(id) != 0
    }

    /// Whether anything is in both.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A bit for each.
const _: () = assert!((FieldId::Other as u64) < 64);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_finds_its_id_and_back() {
        for (name, id) in KNOWN {
            assert_eq!(FieldId::of(name.to_ascii_uppercase().as_bytes()), *id);
            assert_eq!(id.as_str(), *name);
        }
        for other in [
            "",
            "x",
            "hosT2",
            "hest",
            "x-forwarded-xxxx",
            "x-forwarded-hort",
            "x-forwarded-pos\0",
            "tE ",
            "content\rlength",
            "http\u{12}-settings",
        ] {
            assert_eq!(FieldId::of(other.as_bytes()), FieldId::Other, "{other:?}");
        }
    }

    #[test]
    fn a_name_with_one_other_bit_is_another_name() {
        for (name, id) in KNOWN {
            for (at, bit) in (0..name.len()).flat_map(|at| (0..8).map(move |bit| (at, 1 << bit))) {
                let mut other = name.as_bytes().to_vec();
                other[at] ^= bit;
                let same = other.eq_ignore_ascii_case(name.as_bytes());
                assert_eq!(FieldId::of(&other) == *id, same, "{:?}", String::from_utf8_lossy(&other));
            }
        }
    }
}
