//! What waits, by number, and whose time comes next?
//!
//! Everything in one piece of memory, and nothing beside it for one that waits: lists of those whose time comes within the same
//! tenth of a second run through the places themselves.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Times are kept in steps of a tenth of a second, and come up to one late.
const STEP: Duration = Duration::from_millis(100);

/// Steps of the longest time that is usual, a minute, and some more.
const STEPS: usize = 1000;

/// Things that wait, each until a time of its own.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    begun: Instant,
    places: Vec<Option<Place<T>>>,
    free: BinaryHeap<Reverse<u32>>,
    /// Each step with the first of its list, by step. Room for it is made at the start: what is allocated when many go to rest
    /// stands behind all that they give back, and keeps the allocator from giving it to the kernel.
    due: VecDeque<(u32, u32)>,
}

#[derive(Debug)]
struct Place<T> {
    thing: T,
    step: u32,
    before: Option<u32>,
    after: Option<u32>,
}

impl<T> Waiting<T> {
    /// Bytes that a place takes.
    #[cfg(test)]
    pub(super) const EACH: usize = size_of::<Option<Place<T>>>();

    /// Nothing.
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), places: Vec::new(), free: BinaryHeap::new(), due: VecDeque::with_capacity(STEPS) }
    }

    /// Keeps a thing until `until`, in the lowest place that is free: its number. The thing comes back where there is none.
    pub(super) fn insert(&mut self, thing: T, until: Instant) -> Result<u32, T> {
        let Some(number) = self.free_place() else { return Err(thing) };
        let since = until.saturating_duration_since(self.begun).as_millis() / STEP.as_millis();
        let step = u32::try_from(since).unwrap_or(u32::MAX - 1) + 1;
        let after = match self.list(step) {
            Ok(at) => self.due.get_mut(at).map(|(_, first)| std::mem::replace(first, number)),
            Err(at) => {
                self.due.insert(at, (step, number));
                None
            }
        };
        if let Some(after) = after.and_then(|after| self.place(after)) {
            after.before = Some(number);
        }
        if let Some(place) = self.places.get_mut(number as usize) {
            *place = Some(Place { thing, step, before: None, after });
        }
        Ok(number)
    }

    /// The thing with a number.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        Some(&self.places.get(number as usize)?.as_ref()?.thing)
    }

    /// Takes a thing out.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let Place { thing, step, before, after } = self.places.get_mut(number as usize)?.take()?;
        if let Some(after) = after.and_then(|after| self.place(after)) {
            after.before = before;
        }
        if let Some(before) = before.and_then(|before| self.place(before)) {
            before.after = after;
        } else if let Ok(at) = self.list(step) {
            match after {
                Some(after) => self.due.get_mut(at).into_iter().for_each(|(_, first)| *first = after),
                None => drop(self.due.remove(at)),
            }
        }
        self.leave(number);
        Some(thing)
    }

    /// When the next time comes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.front().map(|(step, _)| self.begun + STEP * *step)
    }

    /// One whose time has come.
    pub(super) fn due(&self, now: Instant) -> Option<u32> {
        let (step, number) = self.due.front()?;
        (self.begun + STEP * *step <= now).then_some(*number)
    }

    /// Numbers of all things for which something holds.
    pub(super) fn numbers(&self, holds: impl Fn(&T) -> bool) -> Vec<u32> {
        let all = (0..).zip(&self.places);
        all.filter_map(|(number, place)| holds(&place.as_ref()?.thing).then_some(number)).collect()
    }

    /// Where the list of a step stands, or would.
    fn list(&self, step: u32) -> Result<usize, usize> {
        self.due.binary_search_by_key(&step, |(step, _)| *step)
    }

    fn place(&mut self, number: u32) -> Option<&mut Place<T>> {
        self.places.get_mut(number as usize)?.as_mut()
    }

    fn free_place(&mut self) -> Option<u32> {
        match self.free.pop() {
            Some(Reverse(number)) if (number as usize) < self.places.len() => Some(number),
            // Nothing below the end is free: what is left was given up when places behind it were.
            _ => {
                self.free.clear();
                self.places.push(None);
                u32::try_from(self.places.len() - 1).ok()
            }
        }
    }

    /// A place is free; free ones at the end are given up.
    fn leave(&mut self, number: u32) {
        self.free.push(Reverse(number));
        while self.places.pop_if(|place| place.is_none()).is_some() {}
        if self.places.len() < self.places.capacity() / 4 {
            self.places.shrink_to(self.places.capacity() / 2);
        }
        if self.places.is_empty() {
            self.free = BinaryHeap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn later(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    fn all_due(waiting: &mut Waiting<u64>, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| waiting.due(now).and_then(|number| waiting.remove(number))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_comes_up_when_its_time_has_come_and_not_before() {
        let mut waiting = Waiting::new();
        for seconds in [3, 1, 2, 3] {
            waiting.insert(seconds, later(seconds)).unwrap();
        }
        assert_eq!(waiting.due(later(1)), None, "a step late, never early");
        assert_eq!(all_due(&mut waiting, later(1) + STEP), [1]);
        assert_eq!(waiting.next(), Some(later(2) + STEP));
        assert_eq!(all_due(&mut waiting, later(9)), [2, 3, 3]);
        assert_eq!((waiting.next(), waiting.places.len(), waiting.free.len()), (None, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_lowest_free_place_is_taken_and_those_at_the_end_are_given_up() {
        let mut waiting = Waiting::new();
        let insert = |waiting: &mut Waiting<u64>| waiting.insert(0, later(1)).unwrap();
        let numbers: Vec<_> = (0..100).map(|_| insert(&mut waiting)).collect();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
        (3..100).for_each(|number| assert_eq!(waiting.remove(number), Some(0)));
        assert!(waiting.places.len() == 3 && waiting.places.capacity() < 100);
        waiting.remove(1);
        assert_eq!([insert(&mut waiting), insert(&mut waiting), insert(&mut waiting)], [1, 3, 4]);
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_nobody_is_lost_and_nobody_comes_up_twice(
            steps in proptest::collection::vec((0_u64..6, any::<prop::sample::Index>(), any::<bool>()), 1..200)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let (mut waiting, mut there) = (Waiting::new(), Vec::new());
                for (count, (seconds, index, comes)) in steps.into_iter().enumerate() {
                    let thing = count as u64 * 10 + seconds;
                    if comes || there.is_empty() {
                        there.push((waiting.insert(thing, later(seconds)).unwrap(), thing));
                    } else {
                        let (number, thing) = there.swap_remove(index.index(there.len()));
                        assert_eq!(waiting.get(number), Some(&thing));
                        assert_eq!(waiting.remove(number), Some(thing));
                        assert_eq!(waiting.remove(number), None);
                    }
                }
                assert_eq!(waiting.numbers(|_| true).len(), there.len());
                let mut left: Vec<_> = there.into_iter().map(|(_, thing)| thing).collect();
                let mut due = all_due(&mut waiting, later(9));
                assert!(due.is_sorted_by_key(|thing| thing % 10));
                left.sort_unstable();
                due.sort_unstable();
                assert_eq!(due, left);
            });
        }
    }
}
