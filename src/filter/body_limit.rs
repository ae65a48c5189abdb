//! Is the request's body too large?
//!
//! A length that was announced is refused here, before a byte is forwarded. A body without one is counted as it passes by the
//! exchange, against [`super::Chain::body_limit`].

use super::{Refusal, Verdict};
use crate::message::{FieldId, RequestHead};
use http::StatusCode;
use std::sync::Arc;

/// A limit in bytes.
#[derive(Clone, Debug)]
pub struct BodyLimit {
    bytes: u64,
    detail: Arc<str>,
}

impl BodyLimit {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, detail: format!("the body is larger than {bytes} bytes").into() }
    }

    /// The limit.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn check(&self, head: &RequestHead) -> Result<(), Refusal> {
        if announced(head).is_none_or(|length| length <= self.bytes) {
            return Ok(());
        }
        let detail = Arc::clone(&self.detail);
        Err(Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, reason: "body_limit", detail })
    }

    pub(super) fn explain(&self, head: &RequestHead) -> Verdict {
        match announced(head) {
            Some(length) if length > self.bytes => {
                Verdict::fail("body_limit", format!("{length} bytes announced, {} allowed", self.bytes))
            }
            _ => Verdict::pass("body_limit", format!("at most {} bytes", self.bytes)),
        }
    }
}

/// The announced length. The parser refused anything but digits; a number beyond u64 is larger than any limit.
fn announced(head: &RequestHead) -> Option<u64> {
    let text = head.fields.get(FieldId::ContentLength)?;
    let digit = |sum: u64, b: &u8| sum.saturating_mul(10).saturating_add(u64::from(b.wrapping_sub(b'0')));
    Some(text.iter().fold(0, digit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn status(length: Option<&str>) -> Option<u16> {
        let mut head = RequestHead::sample(Method::POST, "a.test", "/");
        if let Some(length) = length {
            head.fields.push(b"Content-Length", length.as_bytes());
        }
        BodyLimit::new(10).check(&head).err().map(|r| r.status.as_u16())
    }

    #[test]
    fn an_announced_length_beyond_the_limit_is_413() {
        assert_eq!(status(None), None);
        assert_eq!(status(Some("10")), None);
        assert_eq!(status(Some("11")), Some(413));
        assert_eq!(status(Some("99999999999999999999999")), Some(413));
    }
}
