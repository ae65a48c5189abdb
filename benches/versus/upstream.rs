//! What answers behind the proxies, and what relays without reading?
//!
//! Both run as processes of their own, so that their CPU time can be told apart.

use crate::wire::{self, Framing};
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of the small body.
pub const SMALL: usize = 64;
/// Bytes of the large body and of an upload.
pub const LARGE: usize = 1024 * 1024;
const READ_BYTES: usize = 256 * 1024;

/// The body of a given length: not constant, so that a byte lost or doubled shows.
pub fn body(length: usize) -> Vec<u8> {
    (b'a'..=b'w').cycle().take(length).collect()
}

/// Answers `/small`, `/large`, `/upload` (with the number of bytes that came) and `/head` (with the request's head).
pub fn serve(address: SocketAddr) {
    on_this_thread(async move {
        let listener = TcpListener::bind(address).await.expect("the upstream's port is free");
        let answers = Rc::new(Answers::new());
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let answers = Rc::clone(&answers);
            tokio::task::spawn_local(async move { connection(stream, &answers).await });
        }
    });
}

/// Copies bytes between clients and `to`, one connection for one, without looking at them.
pub fn relay(address: SocketAddr, to: SocketAddr) {
    on_this_thread(async move {
        let listener = TcpListener::bind(address).await.expect("the relay's port is free");
        loop {
            let Ok((mut client, _)) = listener.accept().await else { continue };
            tokio::task::spawn_local(async move {
                let mut upstream = TcpStream::connect(to).await?;
                client.set_nodelay(true)?;
                upstream.set_nodelay(true)?;
                tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, READ_BYTES, READ_BYTES).await
            });
        }
    });
}

fn on_this_thread(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(tokio::task::LocalSet::new().run_until(work));
}

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        Self { small: answer(&body(SMALL)), large: answer(&body(LARGE)) }
    }
}

fn answer(body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\nServer: upstream\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Ends when the peer does, or at the first thing that is not understood.
async fn connection(mut stream: TcpStream, answers: &Answers) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    // Grows when a body comes: thousands of idle connections must not hold a large buffer each.
    let mut buffer = vec![0; 8 * 1024];
    let mut filled = 0;
    loop {
        let end = loop {
            if let Some(end) = wire::head_end(&buffer[..filled]) {
                break end;
            }
            let count = stream.read(&mut buffer[filled..]).await.ok()?;
            if count == 0 {
                return None;
            }
            filled += count;
        };
        let head = &buffer[..end];
        let close = wire::field(head, b"connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
        let path = head.split(|&byte| byte == b' ').nth(1)?;
        match path {
            b"/small" => stream.write_all(&answers.small).await.ok()?,
            b"/large" => stream.write_all(&answers.large).await.ok()?,
            b"/head" => stream.write_all(&answer(head)).await.ok()?,
            b"/upload" => {
                let framing = wire::framing(head)?;
                let received = sink(&mut stream, framing, buffer[end..filled].to_vec()).await?;
                stream.write_all(&answer(received.to_string().as_bytes())).await.ok()?;
                filled = end;
            }
            _ => return None,
        }
        if close {
            return None;
        }
        buffer.copy_within(end..filled, 0);
        filled -= end;
    }
}

/// Reads a request's body to its end and counts it.
async fn sink(stream: &mut TcpStream, framing: Framing, early: Vec<u8>) -> Option<u64> {
    let mut counter = wire::BodyCounter::new(framing);
    let mut buffer = early;
    let mut filled = buffer.len();
    buffer.resize(READ_BYTES, 0);
    loop {
        if counter.take(&buffer[..filled])? {
            return Some(counter.bytes());
        }
        filled = stream.read(&mut buffer).await.ok()?;
        if filled == 0 {
            return None;
        }
    }
}
