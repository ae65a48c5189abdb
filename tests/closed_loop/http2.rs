//! Clients that ask over HTTP/2 in step, frames by hand: what a library would do in between is not counted as a client's.
//!
//! As clients do, the first request says its fields in full and the others name them by their place in the compression table.

use super::{CONNECTIONS, HOSTS, prepared};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Streams that each connection opens in a round; all of them together are as many as the upstream's connections.
const STREAMS: usize = 8;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// `:status: 200` of the static table (RFC 7541 appendix A).
const OK: u8 = 0x88;

/// Connections that ask in step.
pub(crate) struct Clients(Vec<Client>);

struct Client {
    stream: TcpStream,
    host: String,
    next: u32,
    /// Bytes that came and are no whole frame yet.
    rest: Vec<u8>,
}

impl Clients {
    /// Opens them.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let open = |index| Client::open(address, index % HOSTS);
        Self((0..CONNECTIONS / STREAMS).map(open).collect())
    }

    /// One request on every stream of a round, so many times; every answer must be whole.
    pub(crate) fn ask(&mut self, times: usize, body: &[u8]) {
        for _ in 0..times {
            for client in &mut self.0 {
                client.send();
            }
            for client in &mut self.0 {
                client.receive(body);
            }
        }
    }
}

impl Client {
    fn open(address: SocketAddr, host: usize) -> Self {
        let mut stream = prepared(TcpStream::connect(address).expect("the proxy listens"));
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, ACK, 0, &[])].concat();
        stream.write_all(&hello).expect("the proxy reads");
        Self { stream, host: format!("host-{host}.test"), next: 1, rest: Vec::new() }
    }

    fn send(&mut self) {
        let mut out = Vec::new();
        for _ in 0..STREAMS {
            let block = self.block();
            out.extend(frame(HEADERS, END_STREAM | END_HEADERS, self.next, &block));
            self.next += 2;
        }
        self.stream.write_all(&out).expect("the proxy reads");
    }

    fn block(&self) -> Vec<u8> {
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", self.host.as_str()),
            (":path", "/item/1?page=1"),
            ("user-agent", "closed-loop/1"),
            ("accept", "*/*"),
            ("referer", "http://host.test/"),
            ("accept-encoding", "gzip"),
            ("cookie", "session=0123456789abcdef"),
        ];
        if self.next > 1 {
            // The newest entry of the dynamic table has the lowest place after the 61 of the static one.
            return (0..fields.len()).rev().map(|age| 0x80 | (62 + age) as u8).collect();
        }
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0x40);
            for text in [name, value] {
                block.push(text.len() as u8);
                block.extend_from_slice(text.as_bytes());
            }
        }
        block
    }

    /// Reads until all streams of the round have ended.
    fn receive(&mut self, body: &[u8]) {
        let (mut ended, mut data) = (0, Vec::new());
        let mut buffer = [0; 16384];
        while ended < STREAMS {
            let read = self.stream.read(&mut buffer).expect("the proxy answers");
            assert!(read > 0, "the proxy closed after {ended} of {STREAMS} answers");
            self.rest.extend_from_slice(&buffer[..read]);
            while let Some((kind, flags, payload)) = take(&mut self.rest) {
                match kind {
                    HEADERS => assert_eq!(payload.first(), Some(&OK), "{payload:x?}"),
                    DATA => data.extend(payload),
                    _ => continue,
                }
                ended += usize::from(flags & END_STREAM != 0);
            }
        }
        assert_eq!(data, body.repeat(STREAMS));
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Kind, flags and payload of the first whole frame.
fn take(bytes: &mut Vec<u8>) -> Option<(u8, u8, Vec<u8>)> {
    let [a, b, c, kind, flags, ..] = *bytes.first_chunk::<9>()?;
    let whole = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
    if bytes.len() < whole {
        return None;
    }
    let payload = bytes.drain(..whole).skip(9).collect();
    Some((kind, flags, payload))
}
