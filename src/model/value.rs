//! Which small values carry a proof that they were parsed?

use std::fmt;
use thiserror::Error;

/// Why a value could not be parsed: what is wrong and what would be right.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{what}; {hint}")]
pub struct ValueError {
    /// What is wrong, in one clause.
    pub what: String,
    /// What would be right.
    pub hint: String,
}

impl ValueError {
    /// What is wrong, and what would be right.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

/// A header field name in lower case, token characters only (RFC 9110 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldName(Box<str>);

impl FieldName {
    /// Lower-cases and checks; a name of anything but token characters is an error.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if text.is_empty() || !text.bytes().all(token) {
            let hint = "a header name has letters, digits and hyphens, such as x-api-key";
            return Err(ValueError::new(format!("{text:?} is not a header name"), hint));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many labels a `*` stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WildcardDepth {
    /// One label or more: `*.example.com` covers `a.b.example.com` (Gateway API). The default in files.
    #[default]
    Many,
    /// Exactly one label (Ingress, certificates: RFC 6125 section 6.4.3).
    One,
}

/// A host to match, lower case, without port and trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// Every host: `*`.
    Any,
    /// This host, or an IP address literal as it stands in a URL.
    Exact(Box<str>),
    /// `*.suffix`; the suffix is stored without the leading `*.`.
    Wildcard(Box<str>, WildcardDepth),
}

impl HostPattern {
    /// Parses `*`, `*.example.com` or a host name; lower-cases and drops one trailing dot. Wildcards get `depth`.
    pub fn parse(text: &str, depth: WildcardDepth) -> Result<Self, ValueError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (wild, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if !is_host(&name, wild) {
            return Err(ValueError::new(format!("{text:?} is not a host"), host_hint(text)));
        }
        Ok(if wild { Self::Wildcard(name.into(), depth) } else { Self::Exact(name.into()) })
    }

    /// The same with a `*` of this depth, where it has one.
    #[must_use]
    pub fn with_depth(self, depth: WildcardDepth) -> Self {
        match self {
            Self::Wildcard(suffix, _) => Self::Wildcard(suffix, depth),
            other => other,
        }
    }

    /// As it is written, with a mark on a `*` of one label: two patterns are told apart by it.
    pub fn label(&self) -> String {
        match self {
            Self::Wildcard(suffix, WildcardDepth::One) => format!("*.{suffix}(one)"),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix, _) => write!(f, "*.{suffix}"),
        }
    }
}

fn is_host(name: &str, wild: bool) -> bool {
    if !wild && let Some(inner) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    (1..=253).contains(&name.len()) && name.split('.').all(label)
}

fn host_hint(text: &str) -> String {
    if text.contains("://") {
        return "write the host alone, without scheme and path".into();
    }
    if text.contains(':') {
        return "write the host without a port: the listener decides the port".into();
    }
    if text.contains('*') {
        return "a wildcard is `*` alone or the whole first label, such as *.example.com".into();
    }
    if !text.is_ascii() {
        return "write an international name in its xn-- form".into();
    }
    "such as shop.example.com, *.example.com or *".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Result<HostPattern, ValueError> {
        HostPattern::parse(text, WildcardDepth::Many)
    }

    #[test]
    fn a_host_is_lower_cased_and_loses_its_trailing_dot() {
        assert_eq!(host("Shop.Example.COM."), Ok(HostPattern::Exact("shop.example.com".into())));
    }

    #[test]
    fn a_wildcard_is_the_whole_first_label() {
        assert_eq!(host("*.a.test"), Ok(HostPattern::Wildcard("a.test".into(), WildcardDepth::Many)));
        assert_eq!(host("*"), Ok(HostPattern::Any));
        for wrong in ["a*.test", "a.*.test", "*.*.test", "*."] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wildcards_of_one_label_and_of_many_are_told_apart_by_their_label() {
        let many = host("*.a.test").unwrap();
        let one = many.clone().with_depth(WildcardDepth::One);
        assert_eq!((many.label().as_str(), one.label().as_str()), ("*.a.test", "*.a.test(one)"));
        assert_eq!((one.to_string(), one.with_depth(WildcardDepth::Many)), (many.to_string(), many));
        assert_eq!(host("a.test").unwrap().with_depth(WildcardDepth::One).label(), "a.test");
    }

    #[test]
    fn a_host_with_port_scheme_or_odd_characters_is_refused_with_a_hint() {
        assert!(host("a.test:80").is_err_and(|e| e.hint.contains("without a port")));
        assert!(host("http://a.test").is_err_and(|e| e.hint.contains("without scheme")));
        for wrong in ["", ".", "a..b", "-a.test", "a b", "ä.test", "a/b"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_ipv6_literal_is_a_host() {
        assert_eq!(host("[::1]"), Ok(HostPattern::Exact("[::1]".into())));
        assert!(host("[::g]").is_err());
    }

    #[test]
    fn a_header_name_is_lower_cased_and_made_of_token_characters() {
        assert_eq!(FieldName::parse("X-Api-Key").map(|n| n.to_string()), Ok("x-api-key".into()));
        for wrong in ["", "a b", "a:", "ä"] {
            assert!(FieldName::parse(wrong).is_err(), "{wrong}");
        }
    }
}
