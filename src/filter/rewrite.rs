//! Which path and host does the upstream see instead?
//!
//! A result is a canonical path or nothing: it starts with `/`, holds no dot segment, no raw control character and no escape
//! of a character that needs none. What two parts of a path become when an expression joins them is checked after the fact
//! (`/.x./a` without its `x` is `/../a`), and refused.

use super::{Refusal, Verdict, bad_expression};
use crate::message::RequestHead;
use crate::message::path::canonical_path;
use crate::model::{EncodedSlash, HostPattern, PathRewrite, RewritePolicy, ValueError, WildcardDepth};
use http::StatusCode;
use regex::Regex;
use std::sync::Arc;

/// A compiled rewrite of path and host.
#[derive(Clone, Debug)]
pub struct Rewrite {
    path: Option<PathEdit>,
    host: Option<(Box<str>, Option<u16>)>,
    detail: Arc<str>,
}

impl Rewrite {
    pub(super) fn compile(spec: &RewritePolicy) -> Result<Self, ValueError> {
        let path = spec.path.as_ref().map(PathEdit::compile).transpose()?;
        let host = spec.host.as_deref().map(authority).transpose()?;
        Ok(Self { path, host, detail: "the rewritten path is not a canonical path".into() })
    }

    pub(super) fn apply(&self, head: &mut RequestHead, prefix: usize) -> Result<(), Refusal> {
        if let Some(edit) = &self.path
            && !edit.apply(&mut head.path, prefix)
        {
            let detail = Arc::clone(&self.detail);
            return Err(Refusal { status: StatusCode::BAD_REQUEST, reason: "rewrite", detail });
        }
        if let Some((host, port)) = &self.host {
            head.host.clear();
            head.host.push_str(host);
            head.port = *port;
        }
        Ok(())
    }

    pub(super) fn explain(&self) -> Verdict {
        let path = self.path.as_ref().map(|p| match p {
            PathEdit::Full(path) => format!("path becomes {path}"),
            PathEdit::Prefix(new) => format!("matched prefix becomes {:?}", &**new),
            PathEdit::Regex { expression, replace } => format!("{expression} in the path becomes {replace:?}"),
        });
        let host = self.host.as_ref().map(|(host, port)| match port {
            Some(port) => format!("host becomes {host}:{port}"),
            None => format!("host becomes {host}"),
        });
        let parts: Vec<String> = path.into_iter().chain(host).collect();
        Verdict::pass("rewrite", parts.join("; "))
    }
}

/// A compiled replacement of a path; redirects use the same.
#[derive(Clone, Debug)]
pub enum PathEdit {
    /// The whole path.
    Full(Box<str>),
    /// The matched prefix.
    Prefix(Box<str>),
    /// First match of an expression.
    Regex {
        /// What is searched.
        expression: Regex,
        /// What takes its place.
        replace: Box<str>,
    },
}

impl PathEdit {
    /// Compiles; literal paths are checked here once.
    pub fn compile(spec: &PathRewrite) -> Result<Self, ValueError> {
        let hint = "a path starts with / and has no blanks, no dot segments and no `?`; escape other characters: %20";
        let literal = |path: &str| {
            let error = || ValueError::new(format!("{path:?} cannot be the path of a rewrite"), hint);
            canonical(path).map(String::into_boxed_str).ok_or_else(error)
        };
        match spec {
            PathRewrite::Prefix(path) if path.is_empty() => Ok(Self::Prefix("".into())),
            PathRewrite::Full(path) => literal(path).map(Self::Full),
            PathRewrite::Prefix(path) => literal(path).map(Self::Prefix),
            PathRewrite::Regex { pattern, replace } => {
                let expression = Regex::new(pattern).map_err(|e| bad_expression(pattern, &e))?;
                Ok(Self::Regex { expression, replace: replace.as_str().into() })
            }
        }
    }

    /// Replaces in place; `prefix` is how many bytes of the path the route's prefix matched, its trailing slash excluded.
    /// False where the result is no canonical path; the path is then of no use.
    #[must_use]
    pub fn apply(&self, path: &mut String, prefix: usize) -> bool {
        match self {
            Self::Full(new) => {
                path.clear();
                path.push_str(new);
                true
            }
            Self::Prefix(new) => replace_prefix(path, prefix, new),
            Self::Regex { expression, replace } => {
                let Some(found) = expression.captures(path) else { return true };
                let Some(whole) = found.get(0) else { return true };
                let mut out = String::with_capacity(path.len() + replace.len());
                out.push_str(path.get(..whole.start()).unwrap_or_default());
                found.expand(replace, &mut out);
                out.push_str(path.get(whole.end()..).unwrap_or_default());
                path.clear();
                encode(&out, path);
                // What was kept of the request's path is in it.
                canonical_with(EncodedSlash::Keep, path).is_some_and(|form| form == *path)
            }
        }
    }
}

/// Gateway API ReplacePrefixMatch: what follows the prefix is empty or starts with `/`, so one slash of the two is dropped.
fn replace_prefix(path: &mut String, prefix: usize, new: &str) -> bool {
    if !path.is_char_boundary(prefix) || prefix > path.len() {
        return false;
    }
    let rest_is_empty = prefix == path.len();
    let new = if rest_is_empty { new } else { new.strip_suffix('/').unwrap_or(new) };
    path.replace_range(..prefix, new);
    if path.is_empty() {
        path.push('/');
    }
    path.starts_with('/')
}

/// Escapes what may not stand in a path as it is. Escapes that are whole are kept.
fn encode(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        let escape = byte == b'%' && bytes.get(at + 1..at + 3).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit));
        if escape || is_path_byte(byte) {
            out.push(char::from(byte));
            continue;
        }
        let digit = |nibble: u8| char::from(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
        out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
    }
}

/// pchar of RFC 3986 section 3.3 and `/`, without `%`.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&byte)
}

/// The form in which requests are matched and forwarded; `None` for what no request's path can be.
pub(crate) fn canonical(path: &str) -> Option<String> {
    canonical_with(EncodedSlash::Refuse, path)
}

fn canonical_with(slash: EncodedSlash, path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    canonical_path(path.as_bytes(), slash, &mut out).ok().map(|()| out)
}

fn authority(text: &str) -> Result<(Box<str>, Option<u16>), ValueError> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => (host, Some(port)),
        _ => (text, None),
    };
    let port = port
        .map(|p| p.parse::<u16>().map_err(|_| ValueError::new(format!("{p:?} is not a port"), "ports are 1 to 65535")));
    match HostPattern::parse(host, WildcardDepth::Many)? {
        HostPattern::Exact(host) => Ok((host, port.transpose()?)),
        _ => Err(ValueError::new(format!("{text:?} cannot be the new host"), "name one host, such as shop.internal")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn prefix(path: &str, matched: usize, new: &str) -> String {
        let edit = PathEdit::compile(&PathRewrite::Prefix(new.into())).unwrap();
        let mut path = path.to_owned();
        assert!(edit.apply(&mut path, matched));
        path
    }

    fn regex(path: &str, pattern: &str, replace: &str) -> Option<String> {
        let spec = PathRewrite::Regex { pattern: pattern.into(), replace: replace.into() };
        let mut path = path.to_owned();
        PathEdit::compile(&spec).unwrap().apply(&mut path, 0).then_some(path)
    }

    #[test]
    fn a_prefix_is_replaced_as_the_table_of_gateway_api_says() {
        let cases = [
            ("/foo/bar", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/xyz/", "/xyz/bar"),
            ("/foo", "/xyz", "/xyz"),
            ("/foo/", "/xyz", "/xyz/"),
            ("/foo/bar", "", "/bar"),
            ("/foo/", "", "/"),
            ("/foo", "", "/"),
            ("/foo/", "/", "/"),
            ("/foo", "/", "/"),
        ];
        for (path, new, result) in cases {
            assert_eq!(prefix(path, 4, new), result, "{path} with {new:?}");
        }
        assert_eq!(prefix("/bar", 0, "/xyz"), "/xyz/bar", "the prefix / matches no byte of its own");
    }

    #[test]
    fn an_expression_puts_captures_in_and_replaces_the_first_match() {
        assert_eq!(regex("/item/7/x", "^/item/([0-9]+)", "/i-$1").as_deref(), Some("/i-7/x"));
        assert_eq!(regex("/a/a", "a", "b").as_deref(), Some("/b/a"));
        assert_eq!(regex("/c", "a", "b").as_deref(), Some("/c"));
        assert_eq!(regex("/u/me", "^/u/(?<who>.*)$", "/${who}.html").as_deref(), Some("/me.html"));
    }

    #[test]
    fn a_result_is_escaped_and_never_breaks_the_request_line() {
        assert_eq!(regex("/a", "a", "b c\r\nx?#").as_deref(), Some("/b%20c%0D%0Ax%3F%23"));
        assert_eq!(regex("/a", "a", "gr\u{fc}n").as_deref(), Some("/gr%C3%BCn"));
        assert_eq!(regex("/a%20b", "a", "c").as_deref(), Some("/c%20b"));
    }

    #[test]
    fn a_result_with_dot_segments_or_hidden_characters_is_refused() {
        assert_eq!(regex("/.x./b", "x", ""), None);
        assert_eq!(regex("/%2x5/b", "x", "").as_deref(), Some("/%25/b"));
        assert_eq!(regex("/%2xE%2xE/b", "^/%2x(E%2)x", "/%2$1"), None, "an escaped dot");
        assert_eq!(regex("/a", "^/", ""), None, "without its slash");
        assert_eq!(regex("/a0", "a", "%0"), None, "NUL");
    }

    #[test]
    fn a_literal_that_is_no_canonical_path_is_refused_when_compiled() {
        for wrong in ["new", "/a b", "/%zz", "/a?b", "/a\n", "/%2f", "/gr\u{fc}n"] {
            assert!(PathEdit::compile(&PathRewrite::Full(wrong.into())).is_err(), "{wrong:?}");
        }
        assert!(PathEdit::compile(&PathRewrite::Full("/a%20b/~x".into())).is_ok());
    }

    #[test]
    fn a_host_is_replaced_with_its_port() {
        let rewrite = Rewrite::compile(&RewritePolicy { path: None, host: Some("In.Test:81".into()) }).unwrap();
        let mut head = RequestHead::sample(Method::GET, "a.test", "/");
        rewrite.apply(&mut head, 0).unwrap();
        assert_eq!((head.host.as_str(), head.port), ("in.test", Some(81)));
        for wrong in ["*.a.test", "a b", "a:99999", ""] {
            assert!(Rewrite::compile(&RewritePolicy { path: None, host: Some(wrong.into()) }).is_err(), "{wrong:?}");
        }
    }
}
