//! A message of the handshake that comes in parts once bytes flow: rustls keeps positions in what it was shown, so that a stream that
//! shows it anything else while one writes would panic.

use super::error;
use super::wire::{Pair, VERSIONS, shake};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;
use std::io::ErrorKind;
use std::task::Poll;

const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
/// key_update, update_requested (RFC 8446 section 4.6.3).
const NEW_KEYS: [u8; 5] = [24, 0, 0, 1, 1];

/// The keys of one direction, in hands that may do what rustls' client does not.
struct Keys {
    key: LessSafeKey,
    iv: Vec<u8>,
    next: u64,
}

impl Keys {
    fn new((next, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => panic!("a cipher of TLS 1.3"),
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).unwrap());
        Self { key, iv: iv.as_ref().to_vec(), next }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv.clone();
        nonce[4..].iter_mut().zip(self.next.to_be_bytes()).for_each(|(byte, n)| *byte ^= n);
        self.next += 1;
        Nonce::try_assume_unique_for_key(&nonce).unwrap()
    }

    fn seal(&mut self, kind: u8, bytes: &[u8]) -> Vec<u8> {
        let mut inner = [bytes, &[kind]].concat();
        let head = [DATA, 3, 3, 0, (inner.len() + 16) as u8];
        let nonce = self.nonce();
        self.key.seal_in_place_append_tag(nonce, Aad::from(head), &mut inner).unwrap();
        [&head[..], &inner].concat()
    }

    /// The first record and its kind, taken away.
    fn open(&mut self, records: &mut Vec<u8>) -> (u8, Vec<u8>) {
        let end = 5 + usize::from(u16::from_be_bytes([records[3], records[4]]));
        let mut record: Vec<u8> = records.drain(..end).collect();
        let (head, inner) = record.split_at_mut(5);
        let nonce = self.nonce();
        let inner = self.key.open_in_place(nonce, Aad::from(&*head), inner).unwrap();
        let (kind, bytes) = inner.split_last().unwrap();
        (*kind, bytes.to_vec())
    }
}

/// A connection, and the client's keys to send and to receive.
fn taken_apart() -> (Pair, Keys, Keys) {
    let mut pair = shake(VERSIONS[1], usize::MAX);
    let (client, _) = &**VERSIONS[1];
    let other = rustls::ClientConnection::new(client.clone(), "a.test".try_into().unwrap()).unwrap();
    let client = std::mem::replace(&mut pair.client, other);
    let secrets = client.dangerous_extract_secrets().unwrap();
    (pair, Keys::new(secrets.tx), Keys::new(secrets.rx))
}

#[test]
fn one_may_write_wherever_a_message_was_cut() {
    for cut in 1..NEW_KEYS.len() {
        let (first, second) = NEW_KEYS.split_at(cut);
        let (_, mut keys, _) = taken_apart();
        let length =
            keys.seal(DATA, b"hi").len() + keys.seal(HANDSHAKE, first).len() + keys.seal(HANDSHAKE, second).len();
        for arrived in 0..=length {
            let (mut pair, mut up, mut down) = taken_apart();
            let mut records = up.seal(DATA, b"hi");
            records.extend(up.seal(HANDSHAKE, first));
            records.extend(up.seal(HANDSHAKE, second));
            let mut read = Vec::new();
            for part in [&records[..arrived], &records[arrived..]] {
                pair.wire.borrow_mut().up.extend(part);
                // With room for one byte, what stands behind it is opened by the write.
                if let Poll::Ready(some) = pair.read(1) {
                    read.extend(some.unwrap());
                }
                assert!(matches!(pair.write(b"a"), Poll::Ready(Ok(1))));
                assert!(matches!(pair.write(b"b"), Poll::Ready(Ok(1))));
                if let Poll::Ready(some) = pair.read(100) {
                    read.extend(some.unwrap());
                }
            }
            assert_eq!(read, b"hi");
            assert!(matches!(pair.write(b"c"), Poll::Ready(Ok(1))));
            let mut sent = std::mem::take(&mut pair.wire.borrow_mut().down);
            let answers = std::iter::from_fn(|| Some(down.open(&mut sent)));
            let before: Vec<u8> = answers.take_while(|(kind, _)| *kind == DATA).flat_map(|(_, bytes)| bytes).collect();
            assert!(b"ababc".starts_with(&before), "the answer to the new keys stands behind what was written");
        }
    }
}

#[test]
fn one_may_write_and_close_behind_a_message_that_never_ends() {
    for cut in 1..NEW_KEYS.len() {
        let (mut pair, mut up, mut down) = taken_apart();
        pair.wire.borrow_mut().up.extend(up.seal(HANDSHAKE, &NEW_KEYS[..cut]));
        pair.wire.borrow_mut().ended = true;
        assert_eq!(error(pair.read(100)), ErrorKind::UnexpectedEof);
        assert!(matches!(pair.write(b"a"), Poll::Ready(Ok(1))));
        assert_eq!(error(pair.read(100)), ErrorKind::UnexpectedEof);
        assert!(matches!(pair.shutdown(), Poll::Ready(Ok(()))));
        let mut sent = std::mem::take(&mut pair.wire.borrow_mut().down);
        assert_eq!(down.open(&mut sent), (DATA, b"a".to_vec()));
        assert_eq!(down.open(&mut sent), (21, vec![1, 0]), "close_notify");
    }
}

#[test]
fn bytes_within_a_message_are_refused_to_reads_and_writes() {
    for writes in [false, true] {
        let (mut pair, mut up, _) = taken_apart();
        pair.wire.borrow_mut().up.extend(up.seal(HANDSHAKE, &NEW_KEYS[..3]));
        assert!(pair.read(100).is_pending());
        pair.wire.borrow_mut().up.extend(up.seal(DATA, b"hi"));
        if writes {
            // What was not received is not seen.
            assert!(matches!(pair.write(b"a"), Poll::Ready(Ok(1))));
        }
        assert_eq!(error(pair.read(100)), ErrorKind::InvalidData);
        assert_eq!(error(pair.write(b"a")), ErrorKind::InvalidData);
    }
}

#[test]
fn a_message_in_many_parts_is_bounded() {
    let (mut pair, mut up, _) = taken_apart();
    // A message that says that it is 65535 bytes long, one byte a record: it does not fit with all the headers.
    let head = [24, 0, 0xff, 0xff];
    let mut bytes = head.iter().copied().chain(std::iter::repeat_n(0, 4000));
    let ended = loop {
        let record = up.seal(HANDSHAKE, &[bytes.next().unwrap()]);
        pair.wire.borrow_mut().up.extend(record);
        match pair.read(100) {
            Poll::Ready(ended) => break ended,
            Poll::Pending => assert!(super::held(&pair) < 70_000),
        }
    };
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::InvalidData);
}
