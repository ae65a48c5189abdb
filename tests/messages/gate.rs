//! What does an upstream receive of the first request in these bytes, or why nothing?

use crate::script::{Script, now};
use http::Method;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tidegate::http1::{
    BodyError, BodyKind, BodyWriter, Conn, HeadLimits, ReadHeadError, RelayError, compose, framing, poll_relay,
};
use tidegate::message::{FieldId, Fields, ResponseHead, hop};
use tidegate::model::{
    self, ClusterSpec, EncodedSlash, Fragment, Limits, ListenerProtocol, ListenerSpec, Match, Model, Origin,
    ProxyHeaders, RetrySpec, RouteSpec, TimeoutSpec, WeightedCluster,
};
use tidegate::proxy::error::ProxyError;
use tidegate::proxy::pipeline::{self, Decision};
use tidegate::proxy::request::Request;
use tidegate::snapshot::{ListenerSnapshot, Snapshot, compile};
use tidegate::telemetry::metrics::Registry;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with this status and reason; what was sent on before is no whole message.
    Refused(u16, &'static str),
    /// The connection ended within it.
    Cut,
    /// Sent on like this.
    Passed { sent: Vec<u8>, body: Vec<u8>, rest: Vec<u8> },
}

/// Names in lower case and values.
pub type Lines = Vec<(String, Vec<u8>)>;

/// The head as it was read, for comparison.
pub struct Seen {
    pub method: String,
    pub target: Vec<u8>,
    pub fields: Lines,
    pub trailers: Lines,
}

pub fn limits() -> HeadLimits {
    let limits = Limits::default();
    let (bytes, target) = (limits.head_bytes as usize, limits.target_bytes as usize);
    HeadLimits { bytes, target, fields: limits.headers as usize }
}

/// Takes a request through reading, decision and writing, as a connection of a client does.
pub fn request(pieces: &[&[u8]]) -> (Outcome, Option<Seen>) {
    let mut down = Conn::new(Script::new(pieces));
    let mut request = Request::default();
    match now(poll_fn(|cx| down.poll_request(cx, &limits(), &mut request.head))) {
        Ok(Some(())) => {}
        Ok(None) | Err(ReadHeadError::Closed | ReadHeadError::Io(_)) => return (Outcome::Cut, None),
        Err(ReadHeadError::Head(error)) => return (refused(&error.into()), None),
    }
    let head = &request.head;
    let mut seen = Seen {
        method: head.method.as_str().to_owned(),
        target: head.raw_target.clone(),
        fields: pairs(&head.fields),
        trailers: vec![],
    };
    let body = match framing::of_request(&head.fields, head.version) {
        Ok(body) => body,
        Err(error) => return (refused(&error.into()), None),
    };
    down.frame(body, BodyKind::None);
    let up = match forward(&mut request, body) {
        Ok(up) => up,
        Err(outcome) => return (outcome, None),
    };
    let outcome = relay(down, up, hop::strip_request_trailers, &mut seen.trailers);
    (outcome, Some(seen))
}

/// Decides about a head, whatever version it came in, and writes it to an upstream.
pub fn forward(request: &mut Request, body: BodyKind) -> Result<Conn<Script>, Outcome> {
    let options = hop::connection_options(&request.head.fields);
    match pipeline::decide(listener(), options, request) {
        Err(error) => return Err(refused(&error)),
        // `OPTIONS *`, and OPTIONS that may go no further.
        Ok(Decision::Respond(answer)) => return Err(Outcome::Refused(answer.head.status.as_u16(), "answered here")),
        Ok(Decision::Forward) => {}
    }
    let mut up = Conn::new(Script::default());
    write_head(&mut up, request, body);
    now(poll_fn(|cx| up.poll_flush(cx))).unwrap();
    Ok(up)
}

/// Takes a response to a request by `method` through reading and writing, as the connection to an upstream does.
pub fn response(pieces: &[&[u8]], method: &Method) -> Outcome {
    let mut up = Conn::new(Script::new(pieces));
    let mut head = ResponseHead::default();
    match now(poll_fn(|cx| up.poll_response(cx, &limits(), &mut head))) {
        Ok(()) => {}
        Err(ReadHeadError::Head(_)) => return refused(&ProxyError::Malformed),
        Err(ReadHeadError::Closed | ReadHeadError::Io(_)) => return Outcome::Cut,
    }
    let Ok(body) = framing::of_response(&head.fields, head.version, head.status, method) else {
        return refused(&ProxyError::Malformed);
    };
    if body == BodyKind::Tunnel || head.status.is_informational() {
        return Outcome::Cut;
    }
    let options = hop::connection_options(&head.fields);
    hop::strip(&mut head.fields, options);
    head.fields.keep_first(FieldId::ContentLength);
    if head.status == http::StatusCode::NO_CONTENT {
        head.fields.remove(FieldId::ContentLength);
    }
    up.frame(body, BodyKind::None);
    let mut down = Conn::new(Script::default());
    let kind = if body == BodyKind::UntilClose { BodyKind::Chunked } else { body };
    down.writer = BodyWriter::new(kind);
    compose::response(down.out(), &head, kind);
    compose::end(down.out());
    now(poll_fn(|cx| down.poll_flush(cx))).unwrap();
    relay(up, down, hop::strip_response_trailers, &mut vec![])
}

/// Moves the body and gives what was written. Not [`poll_relay`] alone: the body itself is wanted, too.
fn relay(mut from: Conn<Script>, mut to: Conn<Script>, keep: fn(&mut Fields), trailers: &mut Lines) -> Outcome {
    let head = to.stream().written.len();
    let (mut moved, chunked) = (0, matches!(to.writer, BodyWriter::Chunked(_)));
    let result = now(poll_fn(|cx| poll_relay(cx, &mut from, &mut to, &mut moved, keep)));
    let _ = now(poll_fn(|cx| to.poll_flush(cx)));
    let sent = to.stream().written.clone();
    match result {
        Ok(()) => {}
        Err(RelayError::Source(BodyError::Truncated | BodyError::Io(_))) => return Outcome::Cut,
        Err(RelayError::Source(error)) => {
            let ended = chunked && unchunk(&sent[head..]).is_some();
            assert!(!ended, "a broken body ends cleanly: {}", sent.escape_ascii());
            return refused(&ProxyError::BodyBroken(error));
        }
        Err(RelayError::Sink(error)) => panic!("more or less body than was announced: {error}"),
    }
    let body = if chunked {
        let (body, found) = unchunk(&sent[head..]).expect("an end");
        trailers.extend(found);
        body
    } else {
        sent[head..].to_vec()
    };
    assert_eq!(body.len() as u64, moved);
    let (stream, unread) = from.into_parts();
    let rest = [unread.bytes(), &stream.rest()].concat();
    Outcome::Passed { sent, body, rest }
}

/// Our own chunks, which are the simplest there are, and their trailers; `None` where they have no end.
fn unchunk(mut text: &[u8]) -> Option<(Vec<u8>, Lines)> {
    let mut body = Vec::new();
    loop {
        let end = text.windows(2).position(|pair| pair == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&text[..end]).unwrap(), 16).expect("a size");
        text = &text[end + 2..];
        if size == 0 {
            break;
        }
        body.extend_from_slice(text.get(..size)?);
        text = text[size..].strip_prefix(b"\r\n")?;
    }
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let httparse::Status::Complete((end, lines)) = httparse::parse_headers(text, &mut lines).unwrap() else {
        return None;
    };
    assert_eq!(end, text.len(), "something follows the end");
    Some((body, lines.iter().map(|line| (line.name.to_ascii_lowercase(), line.value.to_vec())).collect()))
}

fn refused(error: &ProxyError) -> Outcome {
    let row = error.row();
    assert!((400..=599).contains(&row.status) && !row.reason.is_empty());
    Outcome::Refused(row.status, row.reason)
}

fn pairs(fields: &Fields) -> Lines {
    let name = |name: &[u8]| String::from_utf8(name.to_ascii_lowercase()).expect("names are tokens");
    fields.iter().map(|field| (name(field.name), field.value.to_vec())).collect()
}

/// As the head of a request is written to an upstream.
fn write_head(up: &mut Conn<Script>, request: &Request, body: BodyKind) {
    up.writer = BodyWriter::new(body);
    let out = up.out();
    compose::request(out, &request.head, &request.head.method, body);
    if !request.upgrade.is_empty() {
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
        out.extend_from_slice(&request.upgrade);
        out.extend_from_slice(b"\r\n");
    } else if request.head.fields.has(FieldId::Te) {
        out.extend_from_slice(b"connection: te\r\n");
    }
    compose::end(out);
}

/// A listener with defaults that sends everything to one cluster.
fn listener() -> &'static ListenerSnapshot {
    static LISTENER: OnceLock<Arc<ListenerSnapshot>> = OnceLock::new();
    LISTENER.get_or_init(|| {
        let model = Model::from(Fragment {
            listeners: vec![spec()],
            routes: vec![Arc::new(route())],
            clusters: vec![ClusterSpec::new("up", Origin::default(), vec![]).into()],
            ..Fragment::default()
        });
        let (snapshot, problems) = compile(&model, &Snapshot::default(), &Registry::new(1, 1000));
        assert!(problems.is_empty(), "{problems:?}");
        Arc::clone(&snapshot.listeners[0])
    })
}

fn spec() -> ListenerSpec {
    ListenerSpec {
        name: "http".into(),
        origin: Origin::default(),
        address: ([127, 0, 0, 1], 0).into(),
        protocol: ListenerProtocol::Http,
        proxy_protocol_from: vec![],
        trusted_proxies: vec![],
        https_redirect: None,
        encoded_slash: EncodedSlash::default(),
        policies: vec![],
        // An id is drawn anew for each request, which then could not be compared.
        headers: ProxyHeaders { request_id: false, ..ProxyHeaders::default() },
        limits: Limits::default(),
        timeouts: TimeoutSpec::default(),
    }
}

fn route() -> RouteSpec {
    RouteSpec {
        name: "all".into(),
        origin: Origin::default(),
        listeners: vec![],
        hosts: vec![],
        matches: Match::default(),
        policies: vec![],
        action: model::Action::Forward(vec![WeightedCluster { cluster: "up".into(), weight: 1 }]),
        request_timeout: None,
        try_timeout: None,
        idle_timeout: Duration::from_secs(60),
        retry: RetrySpec::default(),
    }
}
