//! How does an answer of the admin port look?

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

/// An answer, whole in memory.
pub(super) type Reply = Response<Full<Bytes>>;

/// Sent with every answer: nothing is stored, guessed, framed or shown to other origins.
const ALWAYS: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-store"),
    (http::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (http::header::X_FRAME_OPTIONS, "DENY"),
    (http::header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What an error says; the only shape that errors have.
#[derive(Debug, Serialize)]
struct Wrong<'a> {
    error: &'a str,
    hint: &'a str,
}

pub(super) fn bytes(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.extend(ALWAYS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    reply
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    bytes(status, "text/plain; charset=utf-8", body)
}

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) -> Reply {
    json_with(StatusCode::OK, value)
}

/// An error as JSON: what is wrong, and what would be right.
pub(super) fn wrong(status: StatusCode, error: &str, hint: &str) -> Reply {
    json_with(status, &Wrong { error, hint })
}

/// An answer that ends the handling of a request early.
pub(super) type Refusal = Box<Reply>;

/// The same as [`wrong`], for `?`.
pub(super) fn refuse(status: StatusCode, error: &str, hint: &str) -> Refusal {
    Box::new(wrong(status, error, hint))
}

fn json_with(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            bytes(status, "application/json", body)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
