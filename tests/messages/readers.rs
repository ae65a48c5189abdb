//! What do readers that know nothing of ours make of the same bytes?

use crate::script::Script;
use http::Method;
use http_body_util::{BodyExt, Empty};
use http_desync_guardian::request_analyzer::HttpRequestData;
use http_desync_guardian::{ClassificationReason, RequestSafetyTier};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

/// A message as one reader understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Method and target, or status.
    pub first: String,
    /// Names in lower case, sorted; values of one name in their order.
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, Vec<u8>)>,
}

/// Sorted by name, so that readers that keep no order compare.
pub fn sorted(mut fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

fn of_map(map: &http::HeaderMap) -> Vec<(String, Vec<u8>)> {
    sorted(map.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect())
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Every request that hyper reads until the end or its first complaint, and whether it had one.
pub fn requests_by_hyper(bytes: &[u8]) -> (Vec<Read>, bool) {
    let reads = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&reads);
    let broken = Rc::new(RefCell::new(false));
    let noted = Rc::clone(&broken);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (kept, noted) = (Rc::clone(&kept), Rc::clone(&noted));
        async move {
            let first = format!("{} {}", request.method(), request.uri());
            let fields = of_map(request.headers());
            match request.into_body().collect().await {
                Ok(body) => {
                    let trailers = body.trailers().map(of_map).unwrap_or_default();
                    kept.borrow_mut().push(Read { first, fields, body: body.to_bytes().to_vec(), trailers });
                }
                Err(_) => *noted.borrow_mut() = true,
            }
            Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
        }
    });
    let io = TokioIo::new(Script::new(&[bytes]));
    let mut builder = hyper::server::conn::http1::Builder::new();
    let serving = builder.max_headers(256).half_close(true).header_read_timeout(None).serve_connection(io, service);
    let failed = block_on(serving).is_err();
    let failed = failed || *broken.borrow();
    (reads.take(), failed)
}

/// The response that hyper reads; `None` where it complains.
pub fn response_by_hyper(bytes: &[u8], method: &Method) -> Option<Read> {
    block_on(async {
        let io = TokioIo::new(Script::answering(bytes));
        let (mut sender, connection) =
            hyper::client::conn::http1::Builder::new().max_headers(256).handshake(io).await.ok()?;
        let request = http::Request::builder().method(method.clone()).uri("/").header("host", "a.test");
        let answer = async {
            let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.ok()?;
            let (first, fields) = (response.status().as_str().to_owned(), of_map(response.headers()));
            let body = response.into_body().collect().await.ok()?;
            let trailers = body.trailers().map(of_map).unwrap_or_default();
            Some(Read { first, fields, body: body.to_bytes().to_vec(), trailers })
        };
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        let mut ended = false;
        loop {
            tokio::select! {
                biased;
                read = answer.as_mut() => return read,
                _ = connection.as_mut(), if !ended => ended = true,
            }
        }
    })
}

/// The one request that these bytes are to httparse and the plainest reading of framing; panics where they are anything else.
#[track_caller]
pub fn one_request_by_httparse(bytes: &[u8]) -> Read {
    let mut space = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut space);
    let Ok(httparse::Status::Complete(end)) = request.parse(bytes) else {
        panic!("not a request: {}", bytes.escape_ascii());
    };
    let first = format!("{} {}", request.method.unwrap(), request.path.unwrap());
    assert_eq!(request.version, Some(1));
    finish(first, request.headers, &bytes[end..])
}

/// The same for a response with a body.
#[track_caller]
pub fn one_response_by_httparse(bytes: &[u8], bodyless: bool) -> Read {
    let mut space = [httparse::EMPTY_HEADER; 256];
    let mut response = httparse::Response::new(&mut space);
    let Ok(httparse::Status::Complete(end)) = response.parse(bytes) else {
        panic!("not a response: {}", bytes.escape_ascii());
    };
    let first = response.code.unwrap().to_string();
    if bodyless {
        assert_eq!(end, bytes.len(), "a body that must not be");
        let fields = sorted(response.headers.iter().map(|h| (h.name.to_ascii_lowercase(), h.value.to_vec())).collect());
        return Read { first, fields, body: vec![], trailers: vec![] };
    }
    finish(first, response.headers, &bytes[end..])
}

fn finish(first: String, headers: &[httparse::Header<'_>], after: &[u8]) -> Read {
    let fields = sorted(headers.iter().map(|h| (h.name.to_ascii_lowercase(), h.value.to_vec())).collect());
    let all = |wanted: &str| -> Vec<&[u8]> {
        fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_slice()).collect()
    };
    let (body, trailers) = match (all("transfer-encoding").as_slice(), all("content-length").as_slice()) {
        ([], []) => (vec![], vec![]),
        ([], [length]) => {
            let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
            (after[..length].to_vec(), vec![])
        }
        ([b"chunked"], []) => chunks(after),
        other => panic!("framing of two readings: {other:?}"),
    };
    if trailers.is_empty() && all("transfer-encoding").is_empty() {
        assert_eq!(body.len(), after.len(), "something follows the message: {}", after.escape_ascii());
    }
    Read { first, fields, body, trailers }
}

fn chunks(mut text: &[u8]) -> (Vec<u8>, Vec<(String, Vec<u8>)>) {
    let mut body = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(text) else {
            panic!("not a chunk: {}", text.escape_ascii());
        };
        text = &text[start..];
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).unwrap();
        body.extend_from_slice(&text[..size]);
        text = text[size..].strip_prefix(b"\r\n").expect("the end of a chunk");
    }
    let mut space = [httparse::EMPTY_HEADER; 64];
    let Ok(httparse::Status::Complete((end, list))) = httparse::parse_headers(text, &mut space) else {
        panic!("not trailers: {}", text.escape_ascii());
    };
    assert_eq!(end, text.len(), "something follows the message");
    (body, sorted(list.iter().map(|h| (h.name.to_ascii_lowercase(), h.value.to_vec())).collect()))
}

/// Whether the guardian calls a request compliant. That a GET or HEAD has a body is a matter of its meaning, not of its end.
pub fn is_compliant(head: &[u8]) -> bool {
    let analysis = HttpRequestData::analyze_raw_request(head);
    analysis.tier == RequestSafetyTier::Compliant
        || matches!(
            analysis.reason,
            ClassificationReason::UndefinedContentLengthSemantics
                | ClassificationReason::UndefinedTransferEncodingSemantics
                | ClassificationReason::GetHeadZeroContentLength
        )
}
