//! Where do records wait, without an idle connection holding memory?
//!
//! Whole blocks are lent by the thread and go back when nothing is in them any more. What has to stay while nothing comes or leaves
//! moves to a piece of its own size: a client that stops within a record holds that record and no more.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of plaintext in a record at most (RFC 8446 section 5.1).
pub(super) const RECORD: usize = 16 * 1024;

/// Records that are sealed, or read, at once.
pub(super) const RECORDS: usize = 4;

/// What stands around a record of either version, and before it (a key update), is far below that (a client may add 2048 bytes, and
/// then fewer records fit).
const OVERHEAD: usize = 512;

/// A block. It bounds what is read ahead; the largest message of a handshake that rustls takes (65535 bytes with the headers of its
/// records) fits.
const WHOLE: usize = RECORDS * (RECORD + OVERHEAD);
const _: () = assert!(WHOLE >= 0xffff, "the longest message fits");

/// Blocks that a thread keeps: one that is read into, one that is written from, one to gather in.
const KEPT: usize = 3;

/// Room behind a partial record whose length has not come, or behind a part of a handshake.
const SOME: usize = 4096;

thread_local! {
    static BLOCKS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn lend() -> Vec<u8> {
    let kept = BLOCKS.try_with(|blocks| blocks.borrow_mut().pop());
    kept.ok().flatten().unwrap_or_else(|| vec![0; WHOLE])
}

fn give_back(block: Vec<u8>) {
    if block.len() == WHOLE {
        // A thread that is ending keeps none.
        let _ = BLOCKS.try_with(|blocks| {
            let mut blocks = blocks.borrow_mut();
            if blocks.len() < KEPT {
                blocks.push(block);
            }
        });
    }
}

/// Bytes that wait, in a block that is lent or a piece of their own.
#[derive(Debug, Default)]
pub struct Block {
    memory: Vec<u8>,
    start: usize,
    end: usize,
    pressed: bool,
}

impl Block {
    /// The bytes that wait.
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.end).unwrap_or_default()
    }

    /// The same, to be opened in place.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether the last read took all there was room for: more may have come.
    pub(super) fn is_pressed(&self) -> bool {
        self.pressed
    }

    /// Takes the first `n` bytes away; with the last one the memory goes.
    pub(super) fn discard(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Takes everything away.
    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        if !self.memory.is_empty() {
            give_back(std::mem::take(&mut self.memory));
        }
    }

    /// Has a whole block where nothing waits.
    pub(super) fn lend(&mut self) {
        if self.is_empty() && self.memory.len() < WHOLE {
            self.clear();
            self.memory = lend();
        }
    }

    /// Room for `n` bytes behind those that wait; [`Self::added`] says how many were written there.
    pub(super) fn room(&mut self, n: usize) -> &mut [u8] {
        if self.memory.len() - self.end < n {
            let len = self.end - self.start;
            self.move_to(vec![0; (len + n).max(2 * len)]);
        }
        self.memory.get_mut(self.end..).unwrap_or_default()
    }

    /// `n` bytes were written into the room.
    pub(super) fn added(&mut self, n: usize) {
        self.end = (self.end + n).min(self.memory.len());
    }

    /// Puts bytes behind those that wait.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.room(bytes.len()).get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
            self.added(bytes.len());
        }
    }

    /// Moves what waits out of a block that is lent.
    pub(super) fn settle(&mut self) {
        self.settle_in(self.end - self.start);
    }

    /// Reads once, as much as there is room for; 0 is the end of the stream. While nothing comes, no block is held.
    ///
    /// # Errors
    /// That of the stream, or [`ErrorKind::InvalidData`] where a block is full of what still is not complete.
    pub fn poll_fill<S: AsyncRead + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.make_room() {
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, "a handshake message too long")));
        }
        let room = self.memory.get_mut(self.end..).unwrap_or_default();
        let offered = room.len();
        let mut read = ReadBuf::new(room);
        let polled = Pin::new(stream).poll_read(cx, &mut read);
        let n = read.filled().len();
        self.added(n);
        self.pressed = n == offered;
        if n == 0 {
            self.settle_in(wanted(self.bytes()));
        }
        ready!(polled)?;
        Poll::Ready(Ok(n))
    }

    /// Moves to the front what waits, which by then is less than one record, and each record once at most: something before it was
    /// taken away. Says whether there is room.
    fn make_room(&mut self) -> bool {
        self.lend();
        if self.start > 0 {
            self.memory.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.memory.len() && self.end < WHOLE {
            self.move_to(lend());
        }
        self.end < self.memory.len()
    }

    fn settle_in(&mut self, size: usize) {
        if self.is_empty() {
            self.clear();
        } else if self.memory.len() == WHOLE && size < WHOLE {
            self.move_to(vec![0; size]);
        }
    }

    fn move_to(&mut self, mut memory: Vec<u8>) {
        let kept = self.bytes();
        let len = kept.len();
        if let Some(to) = memory.get_mut(..len) {
            to.copy_from_slice(kept);
        }
        give_back(std::mem::replace(&mut self.memory, memory));
        (self.start, self.end) = (0, len);
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.clear();
    }
}

/// How much memory a record takes of which this is the beginning. What is longer than the record it begins with is a part of a
/// handshake that rustls has seen, and whose end it waits for.
fn wanted(bytes: &[u8]) -> usize {
    let record = match bytes {
        [_, _, _, high, low, ..] => 5 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    if record > bytes.len() { record } else { bytes.len() + SOME }
}

#[cfg(test)]
impl Block {
    /// Bytes of memory that it holds.
    pub(super) fn held(&self) -> usize {
        self.memory.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    async fn fill(block: &mut Block, stream: &mut DuplexStream) -> Poll<usize> {
        poll_fn(|cx| Poll::Ready(block.poll_fill(stream, cx).map(Result::unwrap))).await
    }

    #[tokio::test]
    async fn nothing_is_held_while_nothing_comes() {
        let (mut near, mut far) = duplex(64);
        let mut block = Block::default();
        assert!(fill(&mut block, &mut near).await.is_pending());
        assert_eq!(block.held(), 0);
        far.write_all(b"abc").await.unwrap();
        assert_eq!(fill(&mut block, &mut near).await, Poll::Ready(3));
        assert_eq!((block.bytes(), block.held()), (&b"abc"[..], WHOLE));
        block.discard(3);
        assert_eq!(block.held(), 0);
    }

    #[tokio::test]
    async fn a_partial_record_holds_as_much_as_it_will_be_long() {
        let (mut near, mut far) = duplex(64);
        let mut block = Block::default();
        far.write_all(&[23, 3, 3, 1, 0, 7]).await.unwrap();
        assert_eq!(fill(&mut block, &mut near).await, Poll::Ready(6));
        assert!(fill(&mut block, &mut near).await.is_pending());
        assert_eq!((block.bytes(), block.held()), (&[23, 3, 3, 1, 0, 7][..], 5 + 256));
        far.write_all(&[8]).await.unwrap();
        assert_eq!(fill(&mut block, &mut near).await, Poll::Ready(1));
        assert_eq!((block.bytes(), block.held()), (&[23, 3, 3, 1, 0, 7, 8][..], 5 + 256));
    }

    #[tokio::test]
    async fn what_is_never_complete_is_read_up_to_one_block() {
        let (mut near, mut far) = duplex(2 * WHOLE);
        let mut block = Block::default();
        far.write_all(&vec![22; WHOLE + 1]).await.unwrap();
        assert_eq!(fill(&mut block, &mut near).await, Poll::Ready(WHOLE));
        let error = poll_fn(|cx| block.poll_fill(&mut near, cx)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        block.discard(1);
        assert_eq!(fill(&mut block, &mut near).await, Poll::Ready(1));
    }

    #[test]
    fn bytes_that_are_put_stay_in_order() {
        let mut block = Block::default();
        for n in 0..100_u8 {
            block.put(&[n; 100]);
            block.discard(50);
        }
        assert_eq!((block.bytes().len(), block.bytes().first(), block.bytes().last()), (5000, Some(&50), Some(&99)));
    }
}
