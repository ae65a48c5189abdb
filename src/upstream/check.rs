//! What does one active check ask, and which answers are healthy?

use super::cluster::Cluster;
use super::connect::{ConnectError, connect_for};
use super::endpoint::Endpoint;
use super::io::{Beside, Io};
use super::stream::UpstreamStream;
use crate::model::{HealthCheck, UpstreamProtocol};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use std::pin::pin;
use thiserror::Error;

/// Why a check failed.
#[derive(Debug, Error)]
pub(crate) enum CheckError {
    #[error("not connected")]
    Connect(#[from] ConnectError),
    #[error("the check is not a valid request")]
    Request(#[from] http::Error),
    #[error("no response")]
    Exchange(#[from] hyper::Error),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("the body could not be read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("grpc-status {0}")]
    Grpc(String),
    #[error("not serving")]
    NotServing,
}

/// A health message is a few bytes.
const LARGEST_ANSWER: usize = 4096;

/// Asks once.
pub(crate) async fn ask(cluster: &Cluster, endpoint: &Endpoint, check: &HealthCheck) -> Result<(), CheckError> {
    let stream = connect_for(cluster, endpoint, None).await?;
    match check {
        HealthCheck::Tcp => Ok(()),
        HealthCheck::Http { path, host, status } => {
            let host = host.clone().unwrap_or_else(|| authority(cluster, endpoint));
            let response = match cluster.spec().protocol {
                UpstreamProtocol::Http1 => over_http1(stream, get(path, &host)?).await?,
                UpstreamProtocol::Http2 => over_http2(stream, get_http2(cluster, path, &host)?, drop_body).await?,
            };
            let healthy = status.map_or((200..400).contains(&response.as_u16()), |s| response.as_u16() == s);
            if healthy { Ok(()) } else { Err(CheckError::Status(response)) }
        }
        HealthCheck::Grpc { service } => {
            let request = grpc(cluster, &authority(cluster, endpoint), service)?;
            over_http2(stream, request, grpc_answer).await?
        }
    }
}

fn authority(cluster: &Cluster, endpoint: &Endpoint) -> String {
    cluster.spec().tls.as_ref().map_or_else(|| endpoint.address().to_string(), |tls| tls.server_name.clone())
}

fn request(method: Method, uri: &str) -> http::request::Builder {
    Request::builder().method(method).uri(uri).header(USER_AGENT, "tidegate-health-check")
}

fn get(path: &str, host: &str) -> Result<Request<Full<Bytes>>, http::Error> {
    request(Method::GET, path).header(HOST, host).header(CONNECTION, "close").body(Full::default())
}

fn get_http2(cluster: &Cluster, path: &str, host: &str) -> Result<Request<Full<Bytes>>, http::Error> {
    request(Method::GET, &format!("{}://{host}{path}", scheme(cluster))).body(Full::default())
}

fn grpc(cluster: &Cluster, host: &str, service: &str) -> Result<Request<Full<Bytes>>, http::Error> {
    let uri = format!("{}://{host}/grpc.health.v1.Health/Check", scheme(cluster));
    request(Method::POST, &uri)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::from(grpc_request(service)))
}

fn scheme(cluster: &Cluster) -> &'static str {
    if cluster.spec().tls.is_some() { "https" } else { "http" }
}

async fn over_http1(stream: UpstreamStream, request: Request<Full<Bytes>>) -> Result<StatusCode, CheckError> {
    let (mut sender, connection) = http1::handshake(Io(stream)).await?;
    let response = beside(connection, sender.send_request(request)).await?;
    Ok(response.status())
}

async fn over_http2<T>(
    stream: UpstreamStream,
    request: Request<Full<Bytes>>,
    read: impl AsyncFnOnce(Response<Incoming>) -> T,
) -> Result<T, CheckError> {
    let (mut sender, connection) = http2::handshake(Beside::default(), Io(stream)).await?;
    beside(connection, async {
        let response = sender.send_request(request).await?;
        Ok(read(response).await)
    })
    .await
}

/// Runs the exchange while its connection runs; how the connection ends shows in the exchange.
async fn beside<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let mut connection = pin!(connection);
    let mut exchange = pin!(exchange);
    tokio::select! {
        biased;
        done = &mut exchange => done,
        _ = &mut connection => exchange.await,
    }
}

async fn drop_body(response: Response<Incoming>) -> StatusCode {
    response.status()
}

async fn grpc_answer(response: Response<Incoming>) -> Result<(), CheckError> {
    if response.status() != StatusCode::OK {
        return Err(CheckError::Status(response.status()));
    }
    grpc_status(response.headers(), false)?;
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(CheckError::Body)?;
    grpc_status(body.trailers().unwrap_or(&HeaderMap::new()), true)?;
    match serving_status(&body.to_bytes()) {
        Some(SERVING) => Ok(()),
        _ => Err(CheckError::NotServing),
    }
}

/// A status may be missing in the head and not in the trailers.
fn grpc_status(fields: &HeaderMap, required: bool) -> Result<(), CheckError> {
    match fields.get("grpc-status") {
        Some(status) if status == "0" => Ok(()),
        Some(status) => Err(CheckError::Grpc(String::from_utf8_lossy(status.as_bytes()).into_owned())),
        None if required => Err(CheckError::Grpc("missing".into())),
        None => Ok(()),
    }
}

/// `ServingStatus.SERVING` of grpc.health.v1.
const SERVING: u64 = 1;
/// Field 1 with a length: `HealthCheckRequest.service`.
const SERVICE: u8 = 0x0a;

/// A gRPC message (uncompressed, length) with a `HealthCheckRequest`.
fn grpc_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(SERVICE);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(0x80 | (length & 0x7f) as u8);
            length >>= 7;
        }
        message.push((length & 0x7f) as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(message);
    framed
}

/// `HealthCheckResponse.status` of a gRPC message; `None`: not a whole, uncompressed message.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (prefix, message) = framed.split_first_chunk::<5>()?;
    let [0, length @ ..] = *prefix else { return None };
    let mut rest = message.get(..u32::from_be_bytes(length) as usize)?;
    let mut status = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = varint(&mut rest)?,
            (_, 0) => _ = varint(&mut rest)?,
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_request_names_the_service() {
        assert_eq!(grpc_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(grpc_request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = grpc_request(&"x".repeat(300));
        assert_eq!(&long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn a_health_check_response_is_read_and_unknown_fields_are_skipped() {
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 0x08, 1]), Some(SERVING));
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 0x08, 2]), Some(2));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0), "the default is UNKNOWN");
        assert_eq!(serving_status(&[0, 0, 0, 0, 6, 0x12, 2, b'h', b'i', 0x08, 1]), Some(1));
    }

    #[test]
    fn a_broken_health_check_response_is_no_status() {
        for wrong in [
            &[][..],
            &[1, 0, 0, 0, 2, 0x08, 1],
            &[0, 0, 0, 0, 9, 0x08, 1],
            &[0, 0, 0, 0, 1, 0x08],
            &[0, 0, 0, 0, 2, 0x12, 9],
            &[0, 0, 0, 0, 2, 0x0b, 0],
            &[0, 0, 0, 0, 11, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
        ] {
            assert_eq!(serving_status(wrong), None, "{wrong:?}");
        }
    }
}
