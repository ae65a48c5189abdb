//! How do two ends of a WebSocket prove to each other that they speak it over HTTP/1.1 (RFC 6455 section 4)?
//!
//! Over HTTP/2 nobody does (RFC 8441 section 5): where the versions differ, the proxy is one of the two ends.

use crate::message::{FieldId, Fields, ResponseHead, random};
use aws_lc_rs::digest;
use http::StatusCode;

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A new nonce for each connection (RFC 6455 section 4.1): 16 bytes in base64.
pub(super) fn key() -> [u8; 24] {
    let (a, b) = (random::next().to_be_bytes(), random::next().to_be_bytes());
    let mut nonce = [0; 16];
    for (byte, drawn) in nonce.iter_mut().zip(a.into_iter().chain(b)) {
        *byte = drawn;
    }
    base64(&nonce)
}

/// The answer to a key (RFC 6455 section 4.2.2).
pub(super) fn accept(key: &[u8]) -> [u8; 28] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    base64(context.finish().as_ref())
}

/// Whether a response accepts the key of a request.
pub(super) fn is_accepted(request: &Fields, response: &Fields) -> bool {
    let key = request.get(FieldId::SecWebSocketKey).unwrap_or_default();
    let mut said = response.all(FieldId::SecWebSocketAccept);
    said.next() == Some(&accept(key)[..]) && said.next().is_none()
}

/// Makes the success of an HTTP/2 upstream what HTTP/1.1 says: a switch, with the answer to the key.
pub(super) fn welcome(request: &Fields, response: &mut ResponseHead) {
    response.status = StatusCode::SWITCHING_PROTOCOLS;
    response.fields.push_known(FieldId::Upgrade, b"websocket");
    if let Some(key) = request.get(FieldId::SecWebSocketKey) {
        response.fields.set(FieldId::SecWebSocketAccept, &accept(key));
    }
}

/// Whether this is a key: 16 bytes in base64.
pub(super) fn is_key(text: &[u8]) -> bool {
    let digits = text.strip_suffix(b"==").unwrap_or_default();
    digits.len() == 22 && digits.iter().all(|digit| DIGITS.contains(digit))
}

/// `N` is the length of the text, padding included.
fn base64<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut text = [b'='; N];
    for (out, chunk) in text.chunks_mut(4).zip(bytes.chunks(3)) {
        let bits = chunk.iter().fold(0, |all: u32, byte| all << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for (place, digit) in out.iter_mut().take(chunk.len() + 1).enumerate() {
            let value = (bits >> (18 - 6 * place)) & 63;
            *digit = DIGITS.get(value as usize).copied().unwrap_or(b'=');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_the_rfc() {
        assert_eq!(&accept(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn every_key_is_another_one_of_sixteen_bytes() {
        let keys: std::collections::HashSet<_> = (0..100).map(|_| key()).collect();
        assert_eq!(keys.len(), 100);
        assert!(keys.iter().all(|key| is_key(key)));
        for wrong in
            [&b""[..], b"==", b"dGhlIHNhbXBsZSBub25jZQ", b"dGhlIHNhbXBsZSBub25jZQ= ", b"dGhlIHNhbXBsZSBub25j\nQ=="]
        {
            assert!(!is_key(wrong));
        }
    }
}
