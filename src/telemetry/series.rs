//! Where are the numbers of a series held, so that workers count without touching each other's memory?
//!
//! A block has one row for each worker and a last one for all other threads. A row is aligned to two cache lines (the
//! adjacent-line prefetcher pairs them) and holds many cells, so that a counter costs 8 bytes for each worker rather than a
//! line of its own, and the counters of one route lie side by side.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Tells that this thread counts for worker `index`. To be called once on each worker thread, before it counts anything;
/// two threads must not use the same index, or counts are lost. Other threads share the last row.
pub fn set_worker(index: usize) {
    WORKER.set(index);
}

/// The index that [`set_worker`] gave this thread; beyond every worker's where it gave none.
pub(super) fn worker() -> usize {
    WORKER.get()
}

/// Cells of a row.
const ROW: usize = 64;

#[derive(Debug)]
#[repr(align(128))]
struct Row([AtomicU64; ROW]);

/// Consecutive cells of one block, the same in each row.
#[derive(Clone, Debug)]
pub(super) struct Cells {
    rows: Arc<[Row]>,
    start: u8,
    len: u8,
}

const _: () = assert!(ROW <= u8::MAX as usize);

impl Cells {
    /// Adds to the cell `at` (0 is the first of these cells).
    #[inline]
    pub(super) fn add(&self, at: usize, n: u64) {
        let others = self.rows.len().saturating_sub(1);
        let worker = WORKER.get();
        let row = self.rows.get(worker.min(others));
        let Some(cell) = row.and_then(|r| r.0.get(usize::from(self.start) + at)) else { return };
        if worker < others {
            // One writer per row: a plain load and store cost a fifth of a locked add.
            cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
        } else {
            cell.fetch_add(n, Relaxed);
        }
    }

    /// Sum of the cell `at` over all rows; wraps, so that it is right for negative numbers, too.
    pub(super) fn sum(&self, at: usize) -> u64 {
        let cells = self.rows.iter().filter_map(|row| row.0.get(usize::from(self.start) + at));
        cells.fold(0, |sum, cell| sum.wrapping_add(cell.load(Relaxed)))
    }

    /// Makes `value` the sum of the cell `at`. Meaningless beside concurrent [`Self::add`].
    pub(super) fn set(&self, at: usize, value: u64) {
        let others = self.rows.len().saturating_sub(1);
        for (index, row) in self.rows.iter().enumerate() {
            if let Some(cell) = row.0.get(usize::from(self.start) + at) {
                cell.store(if index == others { value } else { 0 }, Relaxed);
            }
        }
    }
}

/// Gives out cells and takes them back. Blocks are never freed: the cap on series bounds them.
#[derive(Debug)]
pub(super) struct Store {
    workers: usize,
    block: Option<(Arc<[Row]>, u8)>,
    free: HashMap<u8, Vec<Cells>>,
}

impl Store {
    pub(super) fn new(workers: usize) -> Self {
        Self { workers, block: None, free: HashMap::new() }
    }

    /// `len` cells (at most a row), all zero.
    pub(super) fn take(&mut self, len: u8) -> Cells {
        if let Some(cells) = self.free.get_mut(&len).and_then(Vec::pop) {
            return cells;
        }
        let (rows, start) = match self.block.take() {
            Some((rows, used)) if usize::from(used) + usize::from(len) <= ROW => (rows, used),
            _ => (self.new_block(), 0),
        };
        self.block = Some((Arc::clone(&rows), start + len));
        Cells { rows, start, len }
    }

    /// Takes cells back that nobody counts in any more.
    pub(super) fn give_back(&mut self, cells: Cells) {
        (0..cells.len).for_each(|at| cells.set(at.into(), 0));
        self.free.entry(cells.len).or_default().push(cells);
    }

    fn new_block(&self) -> Arc<[Row]> {
        (0..=self.workers).map(|_| Row(std::array::from_fn(|_| AtomicU64::new(0)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_two_workers_share_no_cache_line() {
        assert_eq!(align_of::<Row>(), 128);
        assert_eq!(size_of::<Row>() % 128, 0);
    }

    #[test]
    fn cells_are_reused_and_zero_again() {
        let mut store = Store::new(1);
        let cells = store.take(3);
        cells.add(2, 7);
        store.give_back(cells);
        let again = store.take(3);
        assert_eq!((again.start, again.sum(2)), (0, 0));
        assert_eq!(store.take(3).start, 3);
    }

    #[test]
    fn a_full_block_is_followed_by_another() {
        let mut store = Store::new(0);
        let first = store.take(63);
        let second = store.take(2);
        second.add(1, 5);
        assert_eq!((second.start, second.sum(1), first.sum(0)), (0, 5, 0));
    }
}
