//! Where does a redirect send the client?

use crate::filter::rewrite::PathEdit;
use crate::message::{RequestHead, Scheme};
use crate::model::{HostPattern, HttpsRedirect, RedirectSpec, ValueError, WildcardDepth};
use http::StatusCode;
use std::borrow::Cow;
use std::fmt::Write;

/// A compiled redirect; what it does not say is taken from the request.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    scheme: Option<Scheme>,
    host: Option<Box<str>>,
    port: Option<u16>,
    path: Option<PathEdit>,
}

impl Redirect {
    pub(super) fn compile(spec: &RedirectSpec) -> Result<Self, ValueError> {
        let scheme = match spec.scheme.as_deref() {
            None => None,
            Some("http") => Some(Scheme::Http),
            Some("https") => Some(Scheme::Https),
            Some(other) => {
                return Err(ValueError::new(format!("{other:?} is not a scheme to redirect to"), "use http or https"));
            }
        };
        let host = match spec.host.as_deref().map(|host| HostPattern::parse(host, WildcardDepth::Many)).transpose()? {
            None => None,
            Some(HostPattern::Exact(host)) => Some(host),
            Some(other) => {
                let what = format!("a redirect cannot lead to {other}");
                return Err(ValueError::new(what, "name one host, such as shop.example.com"));
            }
        };
        let Some(status) = status(spec.status) else {
            let what = format!("{} is not the status of a redirect", spec.status);
            return Err(ValueError::new(what, "use 301, 302, 303, 307 or 308"));
        };
        let path = spec.path.as_ref().map(PathEdit::compile).transpose()?;
        Ok(Self { status, scheme, host, port: spec.port, path })
    }

    /// The Location: `scheme` is the client's, `prefix` how many bytes of the path the route's prefix matched. `None` where an
    /// expression made no path of the request's: 400.
    ///
    /// The port, as in Gateway API: the redirect's, else none where it names a scheme, else the one that the client named.
    pub fn location(&self, head: &RequestHead, scheme: Scheme, prefix: usize) -> Option<String> {
        let port = match (self.port, self.scheme) {
            (Some(port), _) => Some(port),
            (None, Some(_)) => None,
            (None, None) => head.port,
        };
        let mut path = Cow::Borrowed(head.path.as_str());
        if let Some(edit) = &self.path
            && !edit.apply(path.to_mut(), prefix)
        {
            return None;
        }
        let host = self.host.as_deref().unwrap_or(&head.host);
        Some(url(self.scheme.unwrap_or(scheme), host, port, &path, head.query()))
    }
}

/// Where a listener that redirects everything to https sends a request.
pub fn https_location(head: &RequestHead, to: &HttpsRedirect) -> String {
    url(Scheme::Https, &head.host, Some(to.port), &head.path, head.query())
}

fn status(code: u16) -> Option<StatusCode> {
    matches!(code, 301 | 302 | 303 | 307 | 308).then(|| StatusCode::from_u16(code).ok()).flatten()
}

fn url(scheme: Scheme, host: &str, port: Option<u16>, path: &str, query: Option<&str>) -> String {
    let mut out = String::with_capacity(16 + host.len() + path.len() + query.map_or(0, str::len));
    if host.is_empty() {
        // A request of HTTP/1.0 without Host: a path alone, which must not read as `//host`.
        out.push('/');
        out.push_str(path.trim_start_matches('/'));
    } else {
        out.push_str(scheme.as_str());
        out.push_str("://");
        out.push_str(host);
        if let Some(port) = port.filter(|port| *port != scheme.default_port()) {
            let _ = write!(out, ":{port}");
        }
        out.push_str(path);
    }
    if let Some(query) = query {
        out.push('?');
        out.push_str(query);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PathRewrite;
    use http::Method;

    const NOTHING: RedirectSpec = RedirectSpec { scheme: None, host: None, port: None, path: None, status: 302 };

    fn location(spec: RedirectSpec, host: &str, port: Option<u16>, path: &str, prefix: usize) -> String {
        let mut head = RequestHead::sample(Method::GET, host, path);
        head.port = port;
        Redirect::compile(&spec).unwrap().location(&head, Scheme::Http, prefix).unwrap()
    }

    #[test]
    fn what_is_not_said_is_taken_from_the_request() {
        assert_eq!(location(NOTHING, "a.test", Some(8080), "/x?q=1", 0), "http://a.test:8080/x?q=1");
        assert_eq!(location(NOTHING, "a.test", Some(80), "/x?", 0), "http://a.test/x?");
        let host = RedirectSpec { host: Some("B.test".into()), ..NOTHING };
        assert_eq!(location(host, "a.test", None, "/x", 0), "http://b.test/x");
    }

    #[test]
    fn a_scheme_brings_its_own_port_unless_one_is_named() {
        let https = RedirectSpec { scheme: Some("https".into()), ..NOTHING };
        assert_eq!(location(https.clone(), "a.test", Some(8080), "/", 0), "https://a.test/");
        let port = RedirectSpec { port: Some(8443), ..https.clone() };
        assert_eq!(location(port, "a.test", Some(8080), "/", 0), "https://a.test:8443/");
        let own = RedirectSpec { port: Some(443), ..https };
        assert_eq!(location(own, "a.test", None, "/", 0), "https://a.test/");
    }

    #[test]
    fn a_path_is_replaced_whole_or_by_its_prefix_and_the_query_is_kept() {
        let prefix = RedirectSpec { path: Some(PathRewrite::Prefix("/new/".into())), ..NOTHING };
        assert_eq!(location(prefix, "a.test", None, "/old/x?q", 4), "http://a.test/new/x?q");
        let full = RedirectSpec { path: Some(PathRewrite::Full("/new".into())), ..NOTHING };
        assert_eq!(location(full, "a.test", None, "/old/x?q", 4), "http://a.test/new?q");
    }

    #[test]
    fn without_a_host_the_location_is_a_path_on_the_same_host() {
        assert_eq!(location(NOTHING, "", None, "//evil.test/x", 0), "/evil.test/x");
    }

    #[test]
    fn a_listener_redirects_to_its_port() {
        let mut head = RequestHead::sample(Method::GET, "a.test", "/x?q");
        head.port = Some(8080);
        assert_eq!(https_location(&head, &HttpsRedirect { port: 443, status: 308 }), "https://a.test/x?q");
        assert_eq!(https_location(&head, &HttpsRedirect { port: 8443, status: 308 }), "https://a.test:8443/x?q");
    }

    #[test]
    fn other_statuses_schemes_and_hosts_are_refused() {
        for wrong in [
            RedirectSpec { status: 304, ..NOTHING },
            RedirectSpec { scheme: Some("ftp".into()), ..NOTHING },
            RedirectSpec { host: Some("*.a.test".into()), ..NOTHING },
        ] {
            assert!(Redirect::compile(&wrong).is_err(), "{wrong:?}");
        }
    }
}
