//! Which failures are there, and what does each mean: status, reason token, side at fault, retry rule?
//!
//! One table, [`ProxyError::row`]: a new failure is a variant and a line there.

use crate::filter::Refusal;
use crate::http1::{BodyError, FramingError, HeadError};
use crate::message::normalize::Refused;
use crate::upstream::ConnectError;
use http::StatusCode;
use thiserror::Error;

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Downstream,
    /// The upstream's.
    Upstream,
    /// Our configuration's or our own.
    Us,
}

/// Whether an attempt that failed like this may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryRule {
    /// Never.
    Never,
    /// With any method: the upstream saw nothing of the request.
    NothingSent,
    /// With idempotent methods only (RFC 9110 section 9.2.2).
    Idempotent,
}

/// Why a request was not answered by its upstream.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ProxyError {
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the connection's certificate or TLS policy does not cover this host")]
    Misdirected,
    #[error("no route for this host")]
    NoHost,
    #[error("no route for this path")]
    NoRoute,
    #[error("refused by a policy: {}", .0.detail)]
    Filter(Refusal),
    #[error("the route's configuration could not be honoured")]
    RouteBroken,
    #[error("the redirect's expression made no path of this request's")]
    RewriteFailed,
    #[error("the request's body is larger than allowed")]
    BodyTooLarge,
    #[error("the request's head did not come in time")]
    HeadTimeout,
    #[error("the request's body stopped coming")]
    BodyTimeout,
    #[error("the request's body was malformed or cut short")]
    BodyBroken(#[source] BodyError),
    #[error("the client went away")]
    Gone,
    #[error("the client stopped taking the response")]
    Stalled,
    #[error("a WebSocket to an HTTP/2 upstream that does not take it")]
    UpgradeUnsupported,
    #[error("a WebSocket is asked for without a key")]
    UpgradeKey,
    #[error("the cluster has no endpoint")]
    NoEndpoints,
    #[error("every endpoint is busy and the queue is full")]
    QueueFull,
    #[error("no endpoint became free in time")]
    QueueTimeout,
    #[error("no connection to the upstream")]
    Connect(#[source] ConnectError),
    #[error("no connection to the upstream in time")]
    ConnectTimeout(#[source] ConnectError),
    #[error("the upstream closed a kept connection as it was used again")]
    Stale,
    #[error("the upstream refused the stream before it looked at it")]
    Unprocessed,
    #[error("the upstream ended the connection before it answered")]
    Reset,
    #[error("the upstream sent no answer in time")]
    Timeout,
    #[error("the upstream's answer is malformed")]
    Malformed,
    #[error(
        "the upstream switched protocols without being asked, to another one, or not at all and called that a success"
    )]
    Upgrade,
    #[error("the upstream broke off its answer")]
    Cut,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Status sent downstream (499 is only logged: nobody is there to read it).
    pub status: u16,
    /// Stable token for access log, metrics and the error body.
    pub reason: &'static str,
    /// Side at fault.
    pub side: Side,
    /// Retry rule.
    pub retry: RetryRule,
}

impl ProxyError {
    /// The table.
    pub fn row(&self) -> Row {
        use RetryRule::{Idempotent, Never, NothingSent};
        use Side::{Downstream, Upstream, Us};
        let row = |status, reason, side, retry| Row { status, reason, side, retry };
        match self {
            Self::Head(e) => row(e.status().as_u16(), e.reason(), Downstream, Never),
            Self::Framing(FramingError::UnknownEncoding) => row(501, "unknown_encoding", Downstream, Never),
            Self::Framing(_) => row(400, "framing", Downstream, Never),
            Self::Refused(e) => row(e.status().as_u16(), e.reason(), Downstream, Never),
            Self::Misdirected => row(421, "misdirected", Downstream, Never),
            Self::NoHost => row(404, "no_host", Downstream, Never),
            Self::NoRoute => row(404, "no_route", Downstream, Never),
            Self::Filter(e) => row(e.status.as_u16(), e.reason, Downstream, Never),
            Self::RouteBroken => row(500, "route_broken", Us, Never),
            Self::RewriteFailed => row(400, "rewrite", Downstream, Never),
            Self::BodyTooLarge => row(413, "body_too_large", Downstream, Never),
            Self::HeadTimeout => row(408, "head_timeout", Downstream, Never),
            Self::BodyTimeout => row(408, "body_timeout", Downstream, Never),
            Self::BodyBroken(_) => row(400, "body_broken", Downstream, Never),
            Self::Gone => row(499, "client_gone", Downstream, Never),
            Self::Stalled => row(499, "client_stalled", Downstream, Never),
            Self::UpgradeUnsupported => row(501, "upgrade_unsupported", Upstream, Never),
            Self::UpgradeKey => row(400, "websocket_key", Downstream, Never),
            Self::NoEndpoints => row(503, "no_endpoints", Upstream, Never),
            Self::QueueFull => row(503, "queue_full", Upstream, Never),
            Self::QueueTimeout => row(503, "queue_timeout", Upstream, Never),
            Self::Connect(_) => row(502, "connect_failed", Upstream, NothingSent),
            Self::ConnectTimeout(_) => row(504, "connect_timeout", Upstream, NothingSent),
            // RFC 9113 section 8.7: any method may be sent again.
            Self::Unprocessed => row(502, "upstream_refused", Upstream, NothingSent),
            Self::Stale => row(502, "upstream_reset", Upstream, Idempotent),
            Self::Reset => row(502, "upstream_reset", Upstream, Idempotent),
            Self::Timeout => row(504, "upstream_timeout", Upstream, Idempotent),
            Self::Malformed => row(502, "upstream_malformed", Upstream, Never),
            Self::Upgrade => row(502, "upstream_upgrade", Upstream, Never),
            Self::Cut => row(502, "upstream_cut", Upstream, Never),
        }
    }

    /// Status to answer with.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.row().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<Refusal> for ProxyError {
    fn from(refusal: Refusal) -> Self {
        Self::Filter(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_of_the_upstream_may_be_repeated() {
        for error in [ProxyError::Gone, ProxyError::NoRoute, ProxyError::BodyTooLarge, ProxyError::RouteBroken] {
            assert_eq!(error.row().retry, RetryRule::Never);
            assert_ne!(error.row().side, Side::Upstream);
        }
        assert_eq!(ProxyError::Reset.row().retry, RetryRule::Idempotent);
    }

    #[test]
    fn every_status_is_one() {
        assert_eq!(ProxyError::NoEndpoints.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ProxyError::Misdirected.status().as_u16(), 421);
    }
}
