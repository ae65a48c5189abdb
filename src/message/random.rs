//! Where do identifiers and weighted choices take their numbers from, without a lock or a system call?

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(std::thread::current().id()));
}

/// The next number of this thread (splitmix64). Spread evenly, and never for secrets.
pub fn next() -> u64 {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A number below `bound`; 0 for a bound of 0.
pub fn below(bound: u64) -> u64 {
    let product = u128::from(next()) * u128::from(bound);
    u64::try_from(product >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_the_bound_and_reach_all_of_it() {
        let mut seen = [0u32; 4];
        for _ in 0..4_000 {
            seen[usize::try_from(below(4)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|&n| n > 700), "{seen:?}");
        assert_eq!(below(0), 0);
    }

    #[test]
    fn two_threads_do_not_draw_the_same_numbers() {
        let other = std::thread::spawn(next).join().unwrap();
        assert_ne!(next(), other);
    }
}
