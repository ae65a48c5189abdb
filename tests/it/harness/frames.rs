//! What does a test send as HTTP/2 that no library would let it send?

use super::client::tcp;
use super::within;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What becomes of one request on a connection of its own.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    /// The stream was reset, or the whole connection given up.
    Cut,
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// Sends a head of these fields in this order, pseudo-header fields included, as the only request of a connection.
pub async fn ask(address: SocketAddr, fields: &[(&str, &str)]) -> Answer {
    let mut stream = tcp(address).await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, 0x5, 1, &block(fields)));
    within("writing", stream.write_all(&bytes)).await.unwrap();
    loop {
        let Some((kind, stream_id, payload)) = read(&mut stream).await else { return Answer::Cut };
        match (kind, stream_id) {
            (HEADERS, 1) => return Answer::Status(status(&payload)),
            (RST_STREAM, 1) | (GOAWAY, _) => return Answer::Cut,
            _ => {}
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// RFC 7541 section 6.2.2: literals that are not indexed, without Huffman coding.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|n| *n < 127).expect("fields of tests are short"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

async fn read(stream: &mut TcpStream) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    within("a frame", stream.read_exact(&mut head)).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    within("a frame", stream.read_exact(&mut payload)).await.ok()?;
    Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

/// `:status` comes first: from the static table, or as a literal of three digits.
fn status(block: &[u8]) -> u16 {
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [_, length, text @ ..] if *length & 0x80 == 0 => std::str::from_utf8(&text[..3]).unwrap().parse().unwrap(),
        [_, length, text @ ..] => {
            let bits =
                text.iter().take(usize::from(length & 0x7f)).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            digits(bits, u32::from(length & 0x7f) * 8)
        }
        _ => panic!("not a response: {block:?}"),
    }
}

/// RFC 7541 appendix B: `0` to `2` have five bits, the other digits six.
fn digits(bits: u64, mut left: u32) -> u16 {
    let mut number = 0;
    for _ in 0..3 {
        let five = u16::try_from(bits >> (left - 5) & 0x1f).unwrap();
        let digit = if five < 3 {
            left -= 5;
            five
        } else {
            left -= 6;
            u16::try_from(bits >> left & 0x3f).unwrap() - 0x19 + 3
        };
        number = number * 10 + digit;
    }
    number
}
