//! How are a path, the other conditions of a route and a `host/path` line written?

use crate::config::decode::{Decoder, Fields, Kind};
use crate::config::kind::{List, Mapped, Named, Names, Scalar, Section, Shapes};
use crate::config::{policy, values, yaml};
use crate::message::path::canonical_path;
use crate::model::{EncodedSlash, FieldName, HostPattern, Match, PathMatch, StringMatch, ValueError, WildcardDepth};
use std::fmt::Write;

/// `/prefix/`, `=/exact` or `~regex`.
pub(super) fn path() -> Scalar<PathMatch> {
    Scalar {
        expects: "a path: /prefix/, =/exact or ~regex".into(),
        parse: Box::new(parse_path),
        schema: Box::new(
            || serde_json::json!({ "type": "string", "pattern": "^(/|=/|~)", "examples": ["/api/", "=/health", "~^/item/[0-9]+$"] }),
        ),
        show: Box::new(|path| show_path(path).into()),
    }
}

/// Reads a path condition. Paths take the canonical form that requests have when they are matched.
pub(super) fn parse_path(text: &str) -> Result<PathMatch, ValueError> {
    if let Some(pattern) = text.strip_prefix('~') {
        values::check_regex(pattern)?;
        return Ok(PathMatch::Regex(pattern.to_owned()));
    }
    if let Some(exact) = text.strip_prefix('=') {
        return canonical(exact).map(PathMatch::Exact);
    }
    canonical(text).map(PathMatch::Prefix)
}

/// The path as requests have it: escapes normalized, what must be escaped escaped.
pub fn canonical(text: &str) -> Result<String, ValueError> {
    let forms = "write /prefix/, =/exact or ~regex";
    if !text.starts_with('/') {
        return Err(ValueError::new(format!("{text:?} is not a path"), forms));
    }
    if let Some(sign) = text.chars().find(|c| matches!(c, '?' | '#')) {
        let hint = if sign == '?' { "conditions on the query are written match: { query: {...} }" } else { forms };
        return Err(ValueError::new(format!("{text:?} is not a path: it has a {sign:?}"), hint));
    }
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' | b'"' | b'<' | b'>' | b'`' | 0x80.. => write!(escaped, "%{byte:02X}").unwrap_or_default(),
            byte => escaped.push(byte.into()),
        }
    }
    let mut path = String::new();
    match canonical_path(escaped.as_bytes(), EncodedSlash::Refuse, &mut path) {
        Ok(()) => Ok(path),
        Err(why) => Err(ValueError::new(format!("no request has the path {text:?}: {why}"), forms)),
    }
}

/// A path condition as it is written.
pub fn show_path(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) => format!("={path}"),
        PathMatch::Prefix(path) => path.clone(),
        PathMatch::Regex(pattern) => format!("~{pattern}"),
    }
}

/// Whether a key of a document is meant as a `host/path` line.
pub(super) fn is_line(key: &str) -> bool {
    key.contains(['/', '.', '=', '~', '*'])
}

/// Reads `host/path`: the host ends where the path begins. No host or `*` is any host.
pub fn parse_line(key: &str) -> Result<(HostPattern, PathMatch), ValueError> {
    let at = key.find(['/', '=', '~']).unwrap_or(key.len());
    let (host, path) = key.split_at(at);
    if path.is_empty() {
        let hint = format!("a route is written host/path, such as {:?} for all of this host", format!("{key}/"));
        return Err(ValueError::new(format!("{key:?} has no path"), hint));
    }
    let host = if host.is_empty() { HostPattern::Any } else { HostPattern::parse(host, WildcardDepth::Many)? };
    Ok((host, parse_path(path)?))
}

/// One method or several.
pub(super) fn methods() -> impl Kind<Out = Vec<http::Method>> {
    List(values::method())
}

/// `{ headers: {...}, query: {...}, source: [...] }`: what must hold beside host, path and method.
pub(super) fn conditions() -> Section<Match> {
    Section {
        name: "match",
        doc: "What must hold beside host, path and method. A request for which it does not goes to the next best route.",
        fields: |f: &mut Fields<'_, '_>| {
            let headers = f.or_default("headers", "Conditions on request headers.", strings(values::field_name()));
            let doc = "Conditions on the query, compared after percent-decoding.";
            let query = f.or_default("query", doc, strings(values::text("a name")));
            let sources = f.or_default("source", "Networks that the client must be in.", policy::networks());
            if !["headers", "query", "source"].into_iter().any(|key| f.has(key)) {
                f.error("", "there is no condition", "add headers, query or source, or leave match out");
            }
            Some(Match { headers, query, sources, ..Match::default() })
        },
    }
}

fn strings<N>(key: Scalar<N>) -> impl Kind<Out = Vec<(N, StringMatch)>> {
    let pairs = |all: Vec<Named<N, StringMatch>>| all.into_iter().map(|n| (n.name, n.value)).collect();
    Mapped(Names { key, value: string_match(), each: false }, pairs)
}

/// `value`, `~regex`, `{ exact: ... }`, `{ regex: ... }` or `{ present: true }`.
fn string_match() -> impl Kind<Out = StringMatch> {
    let short = Scalar {
        expects: "a value, or ~regex".into(),
        parse: Box::new(|text: &str| match text.strip_prefix('~') {
            Some(pattern) => values::check_regex(pattern).map(|()| StringMatch::Regex(pattern.to_owned())),
            None => Ok(StringMatch::Exact(text.to_owned())),
        }),
        schema: values::text("").schema,
        show: Box::new(|_| serde_json::Value::Null),
    };
    let long = Section {
        name: "string_match",
        doc: "How a value is matched. A short `value` is exact, a short `~value` is an expression.",
        fields: |f| {
            let exact = f.optional("exact", "The whole value.", values::text("a value")).map(StringMatch::Exact);
            let doc = "An expression that the whole value matches.";
            let regex = f.optional("regex", doc, values::regex()).map(StringMatch::Regex);
            let doc = "Whether there is one at all, with any value.";
            let present = f.optional("present", doc, values::flag());
            let present = present.map(|there| if there { StringMatch::Present } else { StringMatch::Absent });
            let mut all = [exact, regex, present].into_iter().flatten();
            let first = all.next();
            if (first.is_none() && !f.has("exact") && !f.has("regex") && !f.has("present")) || all.next().is_some() {
                f.error("", "there must be exactly one of exact, regex and present", "");
            }
            first
        },
    };
    Shapes::new().text(short).map(long)
}

/// Decodes a key of a document as a `host/path` line.
pub(super) fn line_key(key: &str, at: crate::model::Position, d: &mut Decoder<'_>) -> Option<(HostPattern, PathMatch)> {
    let node = yaml::Node { at, value: yaml::Value::Text(key.into()) };
    let line = Scalar {
        expects: "host/path".into(),
        parse: Box::new(parse_line),
        schema: values::text("").schema,
        show: Box::new(|_| serde_json::Value::Null),
    };
    line.decode(&node, d)
}

/// What tells this route from others of the same host and path: `[GET;x-canary=1]`.
pub(super) fn suffix(matches: &Match) -> String {
    let mut parts: Vec<String> = Vec::new();
    if !matches.methods.is_empty() {
        parts.push(matches.methods.iter().map(http::Method::as_str).collect::<Vec<_>>().join(","));
    }
    parts.extend(matches.headers.iter().map(|(name, value): &(FieldName, _)| condition(name.as_str(), value)));
    parts.extend(matches.query.iter().map(|(name, value)| format!("?{}", condition(name, value))));
    parts.extend(matches.sources.iter().map(ToString::to_string));
    if parts.is_empty() { String::new() } else { format!("[{}]", parts.join(";")) }
}

fn condition(name: &str, value: &StringMatch) -> String {
    match value {
        StringMatch::Exact(value) => format!("{name}={value}"),
        StringMatch::Regex(pattern) => format!("{name}~{pattern}"),
        StringMatch::Present => name.to_owned(),
        StringMatch::Absent => format!("!{name}"),
    }
}
