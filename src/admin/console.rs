//! Which page shows people what the API says?
//!
//! Three files in the binary, no other origin, no inline script or style. Whatever the API says is put into the page as text, and the
//! policy below is the second line of defence.

use super::Desk;
use super::query::Query;
use super::reply::{self, Reply};
use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, HeaderValue};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn page(_: &Desk, _: &Query) -> Reply {
    part("text/html; charset=utf-8", include_str!("console/index.html"))
}

pub(super) fn style(_: &Desk, _: &Query) -> Reply {
    part("text/css; charset=utf-8", include_str!("console/style.css"))
}

pub(super) fn script(_: &Desk, _: &Query) -> Reply {
    part("text/javascript; charset=utf-8", include_str!("console/script.js"))
}

fn part(content_type: &'static str, body: &'static str) -> Reply {
    let mut reply = reply::bytes(StatusCode::OK, content_type, body);
    reply.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    reply
}
