//! Whatever comes, in whichever order: every byte arrives, or an error does.

use super::held;
use super::wire::{Near, Pair, VERSIONS, Wire, context, shake};
use crate::message::tls_stream::{Block, TlsStream};
use proptest::prelude::*;
use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::task::Poll;

#[derive(Clone, Debug)]
enum Step {
    /// The client sends.
    Ask(usize),
    /// So much of it arrives.
    Arrive(usize),
    Read(usize),
    Write(usize),
    /// The socket takes so much more.
    Room(usize),
    Flush,
    NewKeys,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..40_000_usize).prop_map(Step::Ask),
        (0..300_usize).prop_map(Step::Ask),
        (1..30_000_usize).prop_map(Step::Arrive),
        (1..50_usize).prop_map(Step::Arrive),
        (1..40_000_usize).prop_map(Step::Read),
        (1..50_usize).prop_map(Step::Read),
        (1..90_000_usize).prop_map(Step::Write),
        (1..300_usize).prop_map(Step::Write),
        (1..90_000_usize).prop_map(Step::Room),
        (1..50_usize).prop_map(Step::Room),
        Just(Step::Flush),
        Just(Step::NewKeys),
    ]
}

/// Bytes that differ wherever they stand.
fn body(from: usize, n: usize) -> Vec<u8> {
    (from..from + n).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// What went each way.
#[derive(Default)]
struct Counts {
    asked: usize,
    read: Vec<u8>,
    wrote: usize,
}

fn run(pair: &mut Pair, counts: &mut Counts, step: &Step, tls13: bool) {
    match *step {
        Step::Ask(n) => {
            pair.ask(&body(counts.asked, n));
            counts.asked += n;
        }
        Step::Arrive(n) => pair.wire.borrow_mut().arrived += n,
        Step::Read(n) => {
            if let Poll::Ready(read) = pair.read(n) {
                let read = read.unwrap();
                assert!(!read.is_empty());
                counts.read.extend(read);
            }
        }
        Step::Write(n) => {
            if let Poll::Ready(wrote) = pair.write(&body(counts.wrote, n)) {
                let wrote = wrote.unwrap();
                assert!(wrote > 0 && wrote <= n);
                counts.wrote += wrote;
            }
        }
        Step::Room(n) => pair.wire.borrow_mut().room = n,
        Step::Flush => assert!(!matches!(pair.flush(), Poll::Ready(Err(_)))),
        Step::NewKeys => {
            if tls13 {
                pair.client.refresh_traffic_keys().unwrap();
            }
        }
    }
    assert!(held(pair) < 3 * 70_000, "{} bytes are held", held(pair));
    pair.take();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_byte_arrives_in_order_whatever_the_pieces(
        tls13: bool,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut pair = shake(VERSIONS[usize::from(tls13)], usize::MAX);
        (pair.wire.borrow_mut().arrived, pair.wire.borrow_mut().room) = (100, 100);
        let mut counts = Counts::default();
        for step in &steps {
            run(&mut pair, &mut counts, step, tls13);
        }
        (pair.wire.borrow_mut().arrived, pair.wire.borrow_mut().room) = (usize::MAX, usize::MAX);
        pair.client.send_close_notify();
        pair.ask(b"");
        loop {
            match pair.read(5000) {
                Poll::Ready(Ok(read)) if read.is_empty() => break,
                Poll::Ready(Ok(read)) => counts.read.extend(read),
                other => panic!("{other:?}"),
            }
        }
        prop_assert!(matches!(pair.shutdown(), Poll::Ready(Ok(()))));
        pair.take();
        prop_assert!(counts.read == body(0, counts.asked));
        prop_assert!(pair.came == body(0, counts.wrote));
        prop_assert_eq!(held(&pair), 0);
    }

    #[test]
    fn a_stream_of_records_cut_anywhere_comes_up_to_the_cut(tls13: bool, sizes in proptest::collection::vec(0..20_000_usize, 1..4), cut: u16) {
        let mut pair = shake(VERSIONS[usize::from(tls13)], usize::MAX);
        let mut asked = 0;
        for n in sizes {
            pair.ask(&body(asked, n));
            asked += n;
        }
        let all = pair.wire.borrow().up.len();
        pair.wire.borrow_mut().up.truncate(all * usize::from(cut) / usize::from(u16::MAX));
        pair.wire.borrow_mut().ended = true;
        let mut read = Vec::new();
        let end = loop {
            match pair.read(4000) {
                Poll::Ready(Ok(some)) => read.extend(some),
                Poll::Ready(Err(error)) => break error.kind(),
                Poll::Pending => panic!("the end was seen"),
            }
        };
        prop_assert_eq!(end, ErrorKind::UnexpectedEof);
        prop_assert!(read == body(0, read.len()) && read.len() <= asked);
    }

    #[test]
    fn no_bytes_behind_a_handshake_make_it_panic(
        tls13: bool,
        asked in 0..3_usize,
        records in proptest::collection::vec((any::<u8>(), 0..40_usize, any::<bool>()), 0..6),
        gives in 1..60_usize,
        touched: Option<u16>,
    ) {
        let mut pair = shake(VERSIONS[usize::from(tls13)], usize::MAX);
        for _ in 0..asked {
            pair.ask(b"hello");
        }
        for (kind, n, known) in records {
            let kind = if known { 20 + kind % 4 } else { kind };
            pair.wire.borrow_mut().up.extend([kind, 3, 3, 0, n as u8]);
            pair.wire.borrow_mut().up.extend(body(n, n));
        }
        if let Some(at) = touched {
            let mut wire = pair.wire.borrow_mut();
            let len = wire.up.len().max(1);
            wire.up.get_mut(usize::from(at) % len).into_iter().for_each(|byte| *byte ^= 1);
        }
        pair.wire.borrow_mut().gives = gives;
        for turn in 0..200 {
            let ended = matches!(pair.read(1 + turn % 7), Poll::Ready(Err(_)));
            let _ = (pair.write(b"x"), pair.flush());
            if ended {
                break;
            }
        }
        let _ = pair.shutdown();
    }

    #[test]
    fn no_bytes_instead_of_a_handshake_make_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        hello in any::<Option<u16>>(),
        gives in 1..60_usize,
    ) {
        let (client, server) = &**VERSIONS[1];
        let mut up = Vec::new();
        if let Some(touched) = hello {
            let mut client = rustls::ClientConnection::new(client.clone(), "a.test".try_into().unwrap()).unwrap();
            client.write_tls(&mut up).unwrap();
            let len = up.len();
            up[usize::from(touched) % len] ^= 1;
        }
        up.extend(bytes);
        let wire = Wire { up: up.into(), ended: true, gives, ..Wire::open() };
        let wire = Rc::new(RefCell::new(wire));
        let mut accept = Box::pin(TlsStream::accept(Near(wire), Block::default(), server.clone()));
        prop_assert!(matches!(accept.as_mut().poll(&mut context()), Poll::Ready(Err(_))));
    }
}
