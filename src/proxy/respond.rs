//! What does the proxy itself answer: errors in the form the client reads, direct responses, redirects?

use super::error::ProxyError;
use crate::message::{FieldId, Fields, RequestHead, ResponseHead, Version};
use crate::route::Respond;
use bytes::Bytes;
use http::{Method, StatusCode};

/// A whole response of our own.
#[derive(Debug)]
pub struct Answer {
    /// Its head, without framing.
    pub head: ResponseHead,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// An answer without body.
    pub fn new(status: StatusCode) -> Self {
        // Room for what is nearly always said, so that it does not grow field by field.
        let fields = Fields::with_capacity(8, 256);
        Self { head: ResponseHead { status, version: Version::Http11, fields }, body: Bytes::new() }
    }

    fn text(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.head.fields.push_known(FieldId::ContentType, content_type.as_bytes());
        self.body = body.into();
        self
    }
}

/// Seconds until a client may try again when a cluster has no endpoint.
const RETRY_AFTER: &[u8] = b"5";

/// Methods that are forwarded, and that any client knows.
const METHODS: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The answer to `OPTIONS *`, which asks the proxy itself and no route (RFC 9110 section 9.3.7).
pub fn options() -> Answer {
    let mut answer = Answer::new(StatusCode::NO_CONTENT);
    answer.head.fields.push(b"allow", METHODS);
    answer
}

/// The answer to a failure, in the form that the request asks for.
pub fn error(failure: &ProxyError, request: &RequestHead) -> Answer {
    let row = failure.row();
    let status = failure.status();
    if is_grpc(request) {
        return grpc(grpc_code(row.status), row.reason);
    }
    let mut answer = Answer::new(status);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.head.fields.push_known(FieldId::RetryAfter, RETRY_AFTER);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        answer.head.fields.push(b"allow", METHODS);
    }
    let text = status.canonical_reason().unwrap_or("Error");
    let (code, reason) = (status.as_str(), row.reason);
    // Joined and not formatted: one allocation of the right size.
    match form(request) {
        Form::Html => {
            let (title, heading) = ("<!doctype html>\n<title>", "</title>\n<h1>");
            let page = [title, code, " ", text, heading, code, " ", text, "</h1>\n<p>", reason, "</p>\n"];
            answer.text("text/html; charset=utf-8", page.concat())
        }
        Form::Json => {
            let object = ["{\"status\":", code, ",\"error\":\"", text, "\",\"reason\":\"", reason, "\"}\n"];
            answer.text("application/json", object.concat())
        }
        Form::Text => answer.text("text/plain; charset=utf-8", [code, " ", text, ": ", reason, "\n"].concat()),
    }
}

enum Form {
    Html,
    Json,
    Text,
}

/// The first form that Accept names; weights are not compared, since every client that cares names one form.
fn form(request: &RequestHead) -> Form {
    let Some(accept) = request.fields.get(FieldId::Accept) else { return Form::Text };
    for range in accept.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
        let kind = range.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        if kind.eq_ignore_ascii_case(b"text/html") || kind.eq_ignore_ascii_case(b"application/xhtml+xml") {
            return Form::Html;
        }
        let suffix = kind.last_chunk::<5>().is_some_and(|end| end.eq_ignore_ascii_case(b"+json"));
        if suffix || kind.eq_ignore_ascii_case(b"application/json") {
            return Form::Json;
        }
        if kind.eq_ignore_ascii_case(b"text/plain") {
            return Form::Text;
        }
    }
    Form::Text
}

/// Whether a request is gRPC, whose clients read a status in headers (trailers-only) and no body.
pub fn is_grpc(request: &RequestHead) -> bool {
    let kind = request.fields.get(FieldId::ContentType).unwrap_or_default();
    kind.get(..16).is_some_and(|front| front.eq_ignore_ascii_case(b"application/grpc"))
        && matches!(kind.get(16), None | Some(b'+' | b';'))
}

fn grpc(code: u8, message: &str) -> Answer {
    let mut answer = Answer::new(StatusCode::OK);
    let mut digits = itoa::Buffer::new();
    answer.head.fields.push_known(FieldId::ContentType, b"application/grpc");
    answer.head.fields.push_known(FieldId::GrpcStatus, digits.format(code).as_bytes());
    answer.head.fields.push(b"grpc-message", message.as_bytes());
    answer
}

/// gRPC's mapping of HTTP statuses; a time limit is its own code.
fn grpc_code(status: u16) -> u8 {
    match status {
        400 | 431 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        504 => 4,
        408 | 429 | 502 | 503 => 14,
        413 => 8,
        499 => 1,
        _ => 2,
    }
}

/// A redirect.
pub fn redirect(status: StatusCode, location: &str) -> Answer {
    let mut answer = Answer::new(status);
    answer.head.fields.push_known(FieldId::Location, location.as_bytes());
    answer
}

/// A direct response of a route.
pub fn direct(respond: &Respond) -> Answer {
    let mut answer = Answer::new(respond.status);
    for field in respond.fields.iter() {
        answer.head.fields.push(field.name, field.value);
    }
    answer.body = respond.body.clone();
    answer
}

/// Whether an answer's body is really sent: not to HEAD, not with 204 and 304.
pub fn sends_body(method: &Method, status: StatusCode) -> bool {
    method != Method::HEAD && !matches!(status.as_u16(), 204 | 304)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str, value: &str) -> RequestHead {
        let mut head = RequestHead::sample(Method::GET, "a.test", "/");
        head.fields.push(name.as_bytes(), value.as_bytes());
        head
    }

    fn body(accept: &str) -> String {
        String::from_utf8(error(&ProxyError::NoRoute, &request("accept", accept)).body.to_vec()).unwrap()
    }

    #[test]
    fn an_error_has_the_form_that_accept_names() {
        assert!(body("text/html,application/xhtml+xml,*/*;q=0.8").starts_with("<!doctype html>"));
        assert!(body("application/problem+JSON;q=1").starts_with('{'));
        assert_eq!(body("application/json"), "{\"status\":404,\"error\":\"Not Found\",\"reason\":\"no_route\"}\n");
        assert_eq!(body("*/*"), "404 Not Found: no_route\n");
    }

    #[test]
    fn an_error_of_grpc_is_a_status_without_body() {
        let answer = error(&ProxyError::NoEndpoints, &request("content-type", "application/grpc+proto"));
        assert_eq!((answer.head.status, answer.body.len()), (StatusCode::OK, 0));
        assert_eq!(answer.head.fields.get(FieldId::GrpcStatus), Some(&b"14"[..]));
        assert!(!is_grpc(&request("content-type", "application/grpc-web")));
    }

    #[test]
    fn no_endpoint_says_when_to_come_back() {
        let answer = error(&ProxyError::NoEndpoints, &request("a", "b"));
        assert_eq!(answer.head.fields.get(FieldId::RetryAfter), Some(&b"5"[..]));
    }
}
