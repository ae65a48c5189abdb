//! Where do received bytes wait, without an idle connection holding memory?
//!
//! Blocks are lent from a pool of the thread and given back as soon as a buffer is empty: a connection that waits holds none.
//! A read that fills its block asks for the next larger class, so that bulk bodies move 256 KiB at a time (measured: the
//! whole gain for large bodies) while small messages stay in 16 KiB.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// Sizes of blocks in bytes.
const CLASSES: [usize; 3] = [16 * 1024, 64 * 1024, 256 * 1024];

/// Blocks kept for reuse per class: enough for the connections active at one moment on one thread; more go back to the allocator.
const KEPT: [usize; 3] = [64, 16, 8];

thread_local! {
    static POOL: RefCell<[Vec<Vec<u8>>; 3]> = const { RefCell::new([const { Vec::new() }; 3]) };
    /// The small block that came back last. A task asks for one several times in a request and holds it no longer than a look at its
    /// socket takes, so that this is nearly always the one.
    static LAST: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

fn lend(class: usize) -> Vec<u8> {
    if class == 0 {
        let last = LAST.take();
        if !last.is_empty() {
            return last;
        }
    }
    let reused = POOL.with_borrow_mut(|pool| pool.get_mut(class).and_then(Vec::pop));
    reused.unwrap_or_else(|| vec![0; CLASSES.get(class).copied().unwrap_or(CLASSES[0])])
}

fn give_back(mut block: Vec<u8>) {
    if block.len() == CLASSES[0] {
        // A thread that is ending has no place for it any more.
        let before = LAST.try_with(|last| last.replace(std::mem::take(&mut block)));
        block = before.unwrap_or_default();
        if block.is_empty() {
            return;
        }
    }
    let Some(class) = CLASSES.iter().position(|size| *size == block.len()) else { return };
    // A thread that is ending has no pool any more: then the allocator takes the block.
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if let (Some(list), Some(kept)) = (pool.get_mut(class), KEPT.get(class))
            && list.len() < *kept
        {
            list.push(block);
        }
    });
}

/// Bytes received and not yet used.
#[derive(Debug, Default)]
pub struct Buffer {
    block: Vec<u8>,
    start: usize,
    end: usize,
    class: usize,
}

impl Buffer {
    /// The bytes not yet used.
    pub fn bytes(&self) -> &[u8] {
        self.block.get(self.start..self.end).unwrap_or_default()
    }

    /// How many bytes are not yet used.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether every byte was used.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether it holds a block of memory.
    pub fn holds_memory(&self) -> bool {
        !self.block.is_empty()
    }

    /// Whether the last read filled its block: more comes than is read.
    pub fn is_pressed(&self) -> bool {
        self.class > 0
    }

    /// Begins with the smallest block again.
    pub fn relax(&mut self) {
        self.class = 0;
    }

    /// Marks the first `n` bytes as used; the block goes back to the pool when none is left.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.is_empty() {
            self.release();
        }
    }

    /// Puts bytes at the end, as if received (what was read before a connection was ours).
    pub fn preload(&mut self, bytes: &[u8]) {
        while self.room() < bytes.len() && self.grow() {}
        let n = bytes.len().min(self.room());
        if let (Some(space), Some(bytes)) = (self.block.get_mut(self.end..self.end + n), bytes.get(..n)) {
            space.copy_from_slice(bytes);
            self.end += n;
        }
    }

    /// Reads once. `Ready(Ok(0))` is the end of the stream (or a buffer that is full: see [`Self::is_full`]). While nothing
    /// comes, an empty buffer holds no memory.
    pub fn poll_fill<S: AsyncRead + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.make_room();
        let space = self.block.get_mut(self.end..).unwrap_or_default();
        let offered = space.len();
        let mut read = ReadBuf::new(space);
        let polled = Pin::new(stream).poll_read(cx, &mut read);
        let n = read.filled().len();
        if n == 0 && self.is_empty() {
            self.release();
        }
        ready!(polled)?;
        self.end += n;
        if n == offered && self.class + 1 < CLASSES.len() {
            self.class += 1;
        } else if n < offered / 8 {
            self.class = 0;
        }
        Poll::Ready(Ok(n))
    }

    /// Whether even the largest block has no room left.
    pub fn is_full(&self) -> bool {
        self.start == 0 && Some(&self.end) == CLASSES.last()
    }

    fn room(&self) -> usize {
        self.block.len() - self.end
    }

    fn make_room(&mut self) {
        if self.block.is_empty() {
            self.block = lend(self.class);
        } else if self.room() == 0 && self.start > 0 {
            self.block.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        } else if self.room() == 0 {
            self.grow();
        }
    }

    /// Moves to the next larger class; says whether there was one.
    fn grow(&mut self) -> bool {
        let class = CLASSES.iter().position(|size| *size > self.block.len());
        let Some(class) = class else { return false };
        let mut larger = lend(class);
        let kept = self.len();
        if let (Some(to), Some(from)) = (larger.get_mut(..kept), self.block.get(self.start..self.end)) {
            to.copy_from_slice(from);
        }
        give_back(std::mem::replace(&mut self.block, larger));
        (self.start, self.end, self.class) = (0, kept, class);
        true
    }

    fn release(&mut self) {
        (self.start, self.end) = (0, 0);
        if !self.block.is_empty() {
            give_back(std::mem::take(&mut self.block));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_block_holds_the_largest_head_that_a_listener_may_take() {
        assert_eq!(CLASSES.last().copied(), usize::try_from(crate::model::Limits::MAX_HEAD).ok());
    }
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn an_empty_buffer_holds_no_memory_while_it_waits() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let mut buffer = Buffer::default();
        let waiting = poll_fn(|cx| Poll::Ready(buffer.poll_fill(&mut near, cx).is_pending())).await;
        assert!(waiting && !buffer.holds_memory());
        far.write_all(b"abc").await.unwrap();
        assert_eq!(poll_fn(|cx| buffer.poll_fill(&mut near, cx)).await.unwrap(), 3);
        assert_eq!(buffer.bytes(), b"abc");
        buffer.consume(3);
        assert!(!buffer.holds_memory());
    }

    #[test]
    fn what_does_not_fit_moves_to_a_larger_block() {
        let mut buffer = Buffer::default();
        let long: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        buffer.preload(&long);
        assert_eq!(buffer.bytes(), long);
        assert!(!buffer.is_full());
    }

    #[test]
    fn used_bytes_make_room() {
        let mut buffer = Buffer::default();
        buffer.preload(&[1; 16 * 1024]);
        buffer.consume(16 * 1024 - 1);
        buffer.make_room();
        assert_eq!(buffer.len(), 1);
        assert_eq!(buffer.room(), 16 * 1024 - 1);
    }
}
