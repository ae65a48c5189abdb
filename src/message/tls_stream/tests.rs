//! Does the stream carry every byte, hold nothing at rest, and survive whatever comes?

mod any;
mod parts;
mod wire;

use super::block::RECORD;
use std::io::{ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::Poll;
use tokio::io::AsyncWrite;
use wire::{Pair, VERSIONS, context, shake};

/// Bytes of memory in blocks.
fn held(pair: &Pair) -> usize {
    pair.stream.session.held()
}

fn pairs() -> impl Iterator<Item = Pair> {
    VERSIONS.into_iter().map(|configs| shake(configs, usize::MAX))
}

fn bytes(polled: Poll<std::io::Result<Vec<u8>>>) -> Vec<u8> {
    match polled {
        Poll::Ready(read) => read.unwrap(),
        Poll::Pending => panic!("nothing came"),
    }
}

fn error<T: std::fmt::Debug>(polled: Poll<std::io::Result<T>>) -> ErrorKind {
    match polled {
        Poll::Ready(Err(error)) => error.kind(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_handshake_succeeds_however_little_comes_at_once() {
    for configs in VERSIONS {
        for gives in [1, 2, 7, 100] {
            let mut pair = shake(configs, gives);
            assert_eq!(held(&pair), 0, "its buffers were given back");
            pair.wire.borrow_mut().gives = usize::MAX;
            pair.ask(b"hello");
            assert_eq!(bytes(pair.read(100)), b"hello");
        }
    }
}

#[test]
fn nothing_is_held_at_rest() {
    for mut pair in pairs() {
        assert!(pair.read(100).is_pending());
        assert_eq!(held(&pair), 0);
        pair.ask(b"hello");
        assert_eq!(bytes(pair.read(100)), b"hello");
        assert!(pair.read(100).is_pending());
        assert!(matches!(pair.write(b"world"), Poll::Ready(Ok(5))));
        pair.take();
        assert_eq!((&*pair.came, held(&pair)), (&b"world"[..], 0));
        assert!(matches!((pair.write(b""), pair.flush()), (Poll::Ready(Ok(0)), Poll::Ready(Ok(())))));
        assert_eq!(held(&pair), 0);
    }
}

#[test]
fn a_partial_record_holds_no_more_than_itself() {
    for mut pair in pairs() {
        pair.ask(&[1; 1000]);
        let last = pair.wire.borrow_mut().up.pop_back().unwrap();
        let all = pair.wire.borrow().up.len() + 1;
        assert!(pair.read(100).is_pending());
        assert_eq!(held(&pair), all);
        pair.wire.borrow_mut().up.push_back(last);
        assert_eq!(bytes(pair.read(2000)), [1; 1000]);
        assert_eq!(held(&pair), 0);
    }
}

#[test]
fn what_the_socket_does_not_take_is_kept_and_nothing_behind_it_is_taken() {
    for mut pair in pairs() {
        pair.wire.borrow_mut().room = 10;
        assert!(matches!(pair.write(b"world"), Poll::Ready(Ok(5))));
        assert!(pair.flush().is_pending() && pair.write(b"more").is_pending());
        assert!((1..100).contains(&held(&pair)), "the rest, and no block");
        pair.wire.borrow_mut().room = usize::MAX;
        assert!(pair.read(10).is_pending(), "a read sends it");
        pair.take();
        assert_eq!((&*pair.came, held(&pair)), (&b"world"[..], 0));
    }
}

#[test]
fn the_parts_of_a_write_share_a_record() {
    for mut pair in pairs() {
        let parts = [IoSlice::new(b"head"), IoSlice::new(b""), IoSlice::new(b"body")];
        let wrote = Pin::new(&mut pair.stream).poll_write_vectored(&mut context(), &parts);
        assert!(matches!(wrote, Poll::Ready(Ok(8))));
        assert!(pair.wire.borrow().down.len() < 8 + 32);
        pair.take();
        assert_eq!(pair.came, b"headbody");
    }
}

#[test]
fn four_records_leave_in_one_write_and_come_in_two_reads() {
    let body: Vec<u8> = (0..RECORD * 4).map(|n| (n / 3) as u8).collect();
    for mut pair in pairs() {
        assert!(matches!(pair.write(&body), Poll::Ready(Ok(n)) if n == body.len()));
        pair.take();
        assert!(pair.came == body);
        pair.ask(&body);
        pair.wire.borrow_mut().reads = 0;
        assert!(bytes(pair.read(body.len())) == body);
        assert!(pair.wire.borrow().reads <= 2);
        assert!(pair.read(1).is_pending());
        assert_eq!(held(&pair), 0);
    }
}

#[test]
fn a_record_goes_to_a_caller_with_little_room_piece_by_piece() {
    for mut pair in pairs() {
        pair.ask(&[7; 1000]);
        let mut all = Vec::new();
        while let Poll::Ready(read) = pair.read(64) {
            all.extend(read.unwrap());
        }
        assert_eq!((all, held(&pair)), (vec![7; 1000], 0));
    }
}

#[test]
fn records_that_wait_do_not_stand_before_a_write() {
    for mut pair in pairs() {
        pair.ask(&[7; 1000]);
        pair.ask(&[8; 1000]);
        assert_eq!(bytes(pair.read(10)), [7; 10]);
        assert!(matches!(pair.write(b"world"), Poll::Ready(Ok(5))));
        pair.take();
        assert_eq!(pair.came, b"world");
        assert_eq!(bytes(pair.read(5000)), [&[7; 990][..], &[8; 1000]].concat());
    }
}

#[test]
fn a_client_that_says_that_it_ends_is_answered() {
    for mut pair in pairs() {
        pair.client.send_close_notify();
        pair.ask(b"");
        pair.wire.borrow_mut().up.extend(b"what comes behind it is ignored");
        assert_eq!(bytes(pair.read(10)), b"");
        assert_eq!(bytes(pair.read(10)), b"");
        assert!(matches!(pair.write(b"bye"), Poll::Ready(Ok(3))));
        assert!(matches!(pair.shutdown(), Poll::Ready(Ok(()))) && matches!(pair.shutdown(), Poll::Ready(Ok(()))));
        pair.take();
        assert_eq!((&*pair.came, pair.wire.borrow().shut, held(&pair)), (&b"bye"[..], true, 0));
        assert_eq!(error(pair.write(b"more")), ErrorKind::BrokenPipe);
    }
}

#[test]
fn an_end_without_a_word_is_an_error_and_one_may_go_on_to_write() {
    for mut pair in pairs() {
        pair.ask(b"hello");
        pair.wire.borrow_mut().up.extend([23, 3, 3]);
        pair.wire.borrow_mut().ended = true;
        assert_eq!(bytes(pair.read(10)), b"hello");
        assert_eq!(error(pair.read(10)), ErrorKind::UnexpectedEof);
        assert_eq!(error(pair.read(10)), ErrorKind::UnexpectedEof);
        assert!(matches!(pair.write(b"bye"), Poll::Ready(Ok(3))));
        pair.take();
        assert_eq!(pair.came, b"bye");
    }
}

#[test]
fn a_record_that_is_wrong_is_answered_by_an_alert_once_and_ends_both_directions() {
    for writes_first in [false, true] {
        for mut pair in pairs() {
            pair.ask(b"hello");
            pair.wire
                .borrow_mut()
                .up
                .extend([23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
            if writes_first {
                // It is there and was not read yet.
                assert_eq!(bytes(pair.read(1)), b"h");
                assert_eq!(error(pair.write(b"x")), ErrorKind::InvalidData);
                assert_eq!(bytes(pair.read(10)), b"ello");
            } else {
                assert_eq!(bytes(pair.read(10)), b"hello");
            }
            assert_eq!(error(pair.read(10)), ErrorKind::InvalidData);
            let sent = pair.wire.borrow().down.len();
            assert!(sent > 0, "the alert");
            assert_eq!(
                (error(pair.read(10)), error(pair.write(b"x"))),
                (ErrorKind::InvalidData, ErrorKind::InvalidData)
            );
            assert!(matches!(pair.shutdown(), Poll::Ready(Ok(()))));
            assert_eq!((pair.wire.borrow().down.len(), held(&pair)), (sent, 0));
        }
    }
}

#[test]
fn new_keys_of_the_client_are_answered_before_what_is_written_next() {
    let mut pair = shake(VERSIONS[1], usize::MAX);
    for _ in 0..3 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.ask(b"hello");
        assert_eq!(bytes(pair.read(10)), b"hello");
        assert!(matches!(pair.write(b"world"), Poll::Ready(Ok(5))));
        pair.take();
    }
    assert_eq!(pair.came, b"worldworldworld");
}
