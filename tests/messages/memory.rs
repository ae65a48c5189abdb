//! How much memory does a piece of work hold at its most?
#![allow(unsafe_code, reason = "an allocator is an unsafe trait; this one counts and passes on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

/// What the work gives, and how many bytes this thread held more at its most than before.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    MOST.set(before);
    let outcome = work();
    (outcome, MOST.get().saturating_sub(before).unsigned_abs())
}

/// Sizes are below `isize::MAX`: layouts are.
fn note(more: usize, less: usize) {
    let held = HELD.get().wrapping_add_unsigned(more).wrapping_sub_unsigned(less);
    HELD.set(held);
    MOST.set(MOST.get().max(held));
}

// SAFETY: everything is passed on to the system's allocator as it came. Counting allocates nothing: these thread locals have no
// destructor and a value from the start.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller's promises are the ones asked for here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, layout.size());
        // SAFETY: the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size, layout.size());
        // SAFETY: the same.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[test]
fn the_most_is_counted_and_not_the_end() {
    let ((), most) = peak(|| drop(vec![0_u8; 5000]));
    assert_eq!(most, 5000);
    assert_eq!(peak(|| ()).1, 0);
}
