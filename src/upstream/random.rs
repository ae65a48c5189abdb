//! Where does chance come from, cheaply and without a lock?

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0u8));
}

/// The next random number of this thread. Not for secrets.
pub(crate) fn next() -> u64 {
    STATE.with(|state| {
        let seed = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(seed);
        mix(seed)
    })
}

/// The same numbers from here on in every run, on this thread.
#[cfg(test)]
pub(crate) fn begin_at(seed: u64) {
    STATE.set(seed);
}

/// A number below `bound`; 0 for a bound of 0. The bias of the multiplication is below 2^-32 for any realistic bound.
pub(crate) fn below(bound: u64) -> u64 {
    let product = u128::from(next()) * u128::from(bound);
    u64::try_from(product >> 64).unwrap_or(0)
}

/// Spreads every bit over all others: the finalizer of splitmix64. Stable for ever, because hashing for balance builds on it.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_the_bound_and_reach_all_of_it() {
        let mut seen = [0u32; 5];
        for _ in 0..5_000 {
            seen[usize::try_from(below(5)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|&n| n > 700), "{seen:?}");
        assert_eq!(below(0), 0);
    }
}
