//! How are two streams joined after a switch of protocols (RFC 9110 section 7.8, RFC 8441)?
//!
//! Bytes move both ways with lent buffers; a quiet tunnel holds none. The end of one direction is passed on as a half-close. Where one
//! side fails, what the other has said by then still arrives.

use super::h1::LINGER;
use crate::http1::{BodyKind, Conn, Deadline, RelayError, poll_relay};
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

/// Bytes that went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// From the client.
    pub up: u64,
    /// To the client.
    pub down: u64,
}

/// What becomes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Moves,
    Ended,
    Failed,
}

/// Joins both until both directions have ended, one side fails, or nothing moves for `idle`.
pub async fn run<A, B>(down: &mut Conn<A>, up: &mut Conn<B>, idle: Duration, deadline: &mut Deadline) -> Moved
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    down.frame(BodyKind::Tunnel, BodyKind::Tunnel);
    up.frame(BodyKind::Tunnel, BodyKind::Tunnel);
    let (mut moved, mut seen) = (Moved::default(), Moved::default());
    let (mut upward, mut downward, mut failed) = (Way::Moves, Way::Moves, false);
    deadline.set(Instant::now() + idle);
    poll_fn(|cx| {
        step(cx, &mut upward, |cx| poll_relay(cx, down, up, &mut moved.up, |_| {}));
        step(cx, &mut downward, |cx| poll_relay(cx, up, down, &mut moved.down, |_| {}));
        if upward == Way::Failed || downward == Way::Failed {
            if !std::mem::replace(&mut failed, true) {
                deadline.set(Instant::now() + LINGER);
            }
            // Either nothing is left of what was taken, or nobody to take it.
            let left = [up.poll_flush(cx).is_ready(), down.poll_flush(cx).is_ready()];
            return if left == [true; 2] { Poll::Ready(()) } else { deadline.poll(cx) };
        }
        if upward == Way::Ended && downward == Way::Ended {
            return Poll::Ready(());
        }
        if moved != seen {
            seen = moved;
            deadline.set(Instant::now() + idle);
        }
        deadline.poll(cx)
    })
    .await;
    moved
}

/// Moves one direction on.
fn step(cx: &mut Context<'_>, way: &mut Way, relay: impl FnOnce(&mut Context<'_>) -> Poll<Result<(), RelayError>>) {
    if *way == Way::Moves {
        *way = match relay(cx) {
            Poll::Ready(Ok(())) => Way::Ended,
            Poll::Ready(Err(_)) => Way::Failed,
            Poll::Pending => Way::Moves,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_half_close_is_passed_on_and_the_other_direction_goes_on() {
        let (near, mut client) = tokio::io::duplex(64);
        let (far, mut server) = tokio::io::duplex(64);
        let tunnel = async {
            let (mut down, mut up) = (Conn::new(near), Conn::new(far));
            let mut deadline = Deadline::new(Duration::from_secs(60));
            run(&mut down, &mut up, Duration::from_secs(60), &mut deadline).await
        };
        let talk = async {
            client.write_all(b"ping").await.unwrap();
            client.shutdown().await.unwrap();
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"ping");
            server.write_all(b"pong!").await.unwrap();
            drop(server);
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"pong!");
        };
        let (moved, ()) = tokio::join!(tunnel, talk);
        assert_eq!(moved, Moved { up: 4, down: 5 });
    }

    #[tokio::test]
    async fn what_one_side_said_before_it_left_arrives_although_the_other_goes_on() {
        let (near, mut client) = tokio::io::duplex(1024);
        let (far, mut server) = tokio::io::duplex(1024);
        client.write_all(b"more").await.unwrap();
        server.write_all(b"bye").await.unwrap();
        drop(server);
        let (mut down, mut up) = (Conn::new(near), Conn::new(far));
        let mut deadline = Deadline::new(Duration::from_secs(60));
        run(&mut down, &mut up, Duration::from_secs(60), &mut deadline).await;
        drop(down);
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"bye");
    }

    #[tokio::test(start_paused = true)]
    async fn one_side_that_takes_nothing_holds_the_end_up_for_two_seconds() {
        let (near, _client) = tokio::io::duplex(2);
        let (far, mut server) = tokio::io::duplex(1024);
        server.write_all(b"bye").await.unwrap();
        drop(server);
        let (mut down, mut up) = (Conn::new(near), Conn::new(far));
        down.input().preload(b"more");
        let (mut deadline, start) = (Deadline::new(Duration::from_secs(60)), Instant::now());
        run(&mut down, &mut up, Duration::from_secs(60), &mut deadline).await;
        assert_eq!(start.elapsed(), LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_tunnel_ends_after_its_idle_time() {
        let (near, _client) = tokio::io::duplex(64);
        let (far, _server) = tokio::io::duplex(64);
        let (mut down, mut up) = (Conn::new(near), Conn::new(far));
        let mut deadline = Deadline::new(Duration::from_secs(1));
        let start = Instant::now();
        run(&mut down, &mut up, Duration::from_secs(30), &mut deadline).await;
        assert_eq!(start.elapsed().as_secs(), 30);
    }
}
