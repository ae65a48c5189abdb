//! What did a handshake tell about the connection?

use crate::message::TlsInfo;
use rustls::{CipherSuite, CommonState, ProtocolVersion};

/// What requests of this connection are told about its TLS: `name` is that of its ClientHello, `policy` is [`super::Found::policy`].
pub fn info(connection: &CommonState, name: Option<&str>, policy: u64) -> TlsInfo {
    let client = connection.peer_certificates().and_then(|chain| chain.first());
    TlsInfo {
        server_name: name.map(|name| name.to_ascii_lowercase().into()),
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        },
        cipher: connection.negotiated_cipher_suite().map_or("", |suite| cipher(suite.suite())),
        client_certificate: client.map(|leaf| byte_sequence(leaf).into()),
        policy,
    }
}

/// IANA names; rustls prefixes those of TLS 1.3 with a version.
fn cipher(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or(""),
    }
}

/// RFC 9440 section 2.1: DER as a byte sequence of structured fields, `:base64:` with padding.
fn byte_sequence(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(der.len().div_ceil(3) * 4 + 2);
    text.push(':');
    for group in der.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place)) & 63;
            let digit = DIGITS.get(digit as usize).copied().unwrap_or(b'=');
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text.push(':');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_certificate_becomes_a_byte_sequence_with_padding() {
        for (bytes, text) in [("", "::"), ("f", ":Zg==:"), ("fo", ":Zm8=:"), ("foo", ":Zm9v:"), ("foob", ":Zm9vYg==:")]
        {
            assert_eq!(byte_sequence(bytes.as_bytes()), text);
        }
        assert_eq!(byte_sequence(&[0xff, 0xfe, 0xfd]), "://79:");
    }
}
