//! How are thousands of things held in order, so that a change of one copies few of them?
//!
//! A list of short lists. Whoever changes something makes the short lists anew that it touches, and shares all others with the
//! version before: to take a copy costs next to nothing, and of two versions the difference is found without looking at what
//! they share.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// What has a place in an order.
pub trait Keyed: Clone {
    /// What it is found by.
    type Key: Ord + ?Sized;

    /// What it is found by.
    fn key(&self) -> &Self::Key;

    /// The order among those of one key; the first of them is the one that is found.
    fn among(&self, _other: &Self) -> Ordering {
        Ordering::Equal
    }

    /// Whether these are certainly the same, told without looking into them.
    fn is(&self, other: &Self) -> bool;
}

/// Things in the order of their keys.
#[derive(Clone)]
pub struct Sorted<T> {
    /// None is empty, and none begins with the key that the one before ends with.
    chunks: Vec<Arc<[T]>>,
    len: usize,
}

/// How many things stand together where all are new, and how many at the most.
const USUAL: usize = 32;
const MOST: usize = 96;

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<T> Sorted<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }
}

impl<T: Keyed> Sorted<T> {
    /// The first of this key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&T>
    where
        T::Key: Borrow<Q>,
    {
        self.all(key).first()
    }

    /// Everything of this key.
    pub fn all<Q: Ord + ?Sized>(&self, key: &Q) -> &[T]
    where
        T::Key: Borrow<Q>,
    {
        let begins = |chunk: &Arc<[T]>| chunk.first().is_some_and(|first| first.key().borrow() <= key);
        let Some(place) = self.chunks.partition_point(begins).checked_sub(1) else { return &[] };
        let Some(chunk) = self.chunks.get(place) else { return &[] };
        let from = chunk.partition_point(|item| item.key().borrow() < key);
        let rest = chunk.get(from..).unwrap_or_default();
        rest.get(..rest.partition_point(|item| item.key().borrow() == key)).unwrap_or_default()
    }

    /// Everything from this key on, up to and without that one, in order.
    pub fn range<'a, Q: Ord + ?Sized>(&'a self, from: &Q, to: &'a Q) -> impl Iterator<Item = &'a T>
    where
        T::Key: Borrow<Q>,
    {
        let ends = |chunk: &Arc<[T]>| chunk.last().is_some_and(|last| last.key().borrow() < from);
        let rest = self.chunks.get(self.chunks.partition_point(ends)..).unwrap_or_default();
        let first = rest.first().map_or(0, |chunk| chunk.partition_point(|item| item.key().borrow() < from));
        rest.iter().flat_map(|chunk| chunk.iter()).skip(first).take_while(move |item| item.key().borrow() < to)
    }

    /// Whether there is one of this key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        T::Key: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &T::Key> {
        self.iter().map(Keyed::key)
    }

    /// Takes out the very things in `gone`, and puts in those in `come`.
    pub fn edit(&mut self, mut gone: Vec<T>, mut come: Vec<T>) {
        if gone.is_empty() && come.is_empty() {
            return;
        }
        gone.sort_by(order);
        come.sort_by(order);
        let (mut gone, mut come) = (gone.as_slice(), come.as_slice());
        let old = std::mem::take(&mut self.chunks);
        let room = old.len() + come.len() / USUAL + 1;
        let mut chunks = Vec::with_capacity(room);
        for (place, chunk) in old.iter().enumerate() {
            if gone.is_empty() && come.is_empty() {
                chunks.extend_from_slice(old.get(place..).unwrap_or_default());
                break;
            }
            let next = old.get(place + 1).and_then(|next| next.first());
            let less = take_less(&mut gone, next);
            let more = take_less(&mut come, next);
            if less.is_empty() && more.is_empty() {
                chunks.push(Arc::clone(chunk));
            } else {
                cut(remade(chunk, less, more), &mut chunks);
            }
        }
        cut(come.to_vec(), &mut chunks);
        chunks.shrink_to_fit();
        self.chunks = chunks;
        self.len = self.chunks.iter().map(|chunk| chunk.len()).sum();
    }

    /// Where this and a later version differ, in order: what was there, and what is there now, of one key each. Where a key has
    /// several, what is common to both versions may be among them.
    pub fn diff<'a>(&'a self, new: &'a Self) -> Vec<(Option<&'a T>, Option<&'a T>)> {
        let (mut before, mut after) = (Walk::of(self), Walk::of(new));
        let mut found = Vec::new();
        loop {
            if before.skip_same(&mut after) {
                continue;
            }
            let (old, new) = (before.peek(), after.peek());
            let first = match (old, new) {
                (None, None) => return found,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) if old.is(new) => {
                    before.step();
                    after.step();
                    continue;
                }
                (Some(old), Some(new)) => old.key().cmp(new.key()),
            };
            found.push((old.filter(|_| first.is_le()), new.filter(|_| first.is_ge())));
            if first.is_le() {
                before.step();
            }
            if first.is_ge() {
                after.step();
            }
        }
    }
}

fn order<T: Keyed>(a: &T, b: &T) -> Ordering {
    a.key().cmp(b.key()).then_with(|| a.among(b))
}

/// Takes what stands before `next` off the front; everything where there is no next.
fn take_less<'a, T: Keyed>(items: &mut &'a [T], next: Option<&T>) -> &'a [T] {
    let before = |next: &T| items.partition_point(|item| item.key() < next.key());
    let (taken, rest) = items.split_at(next.map_or(items.len(), before));
    *items = rest;
    taken
}

fn remade<T: Keyed>(chunk: &[T], less: &[T], more: &[T]) -> Vec<T> {
    let stays = |item: &&T| !less.iter().any(|gone| gone.is(item));
    let mut items: Vec<T> = chunk.iter().filter(stays).cloned().collect();
    items.extend_from_slice(more);
    items.sort_by(order);
    items
}

/// Cuts into chunks, where there are too many for one, and never between two of one key.
fn cut<T: Keyed>(items: Vec<T>, chunks: &mut Vec<Arc<[T]>>) {
    let mut rest = items.as_slice();
    while rest.len() > MOST {
        let mut end = USUAL;
        while let (Some(last), Some(next)) = (rest.get(end - 1), rest.get(end))
            && last.key() == next.key()
        {
            end += 1;
        }
        let (chunk, more) = rest.split_at(end);
        chunks.push(chunk.into());
        rest = more;
    }
    if !rest.is_empty() {
        chunks.push(rest.into());
    }
}

/// A place in a version.
struct Walk<'a, T> {
    chunks: std::slice::Iter<'a, Arc<[T]>>,
    chunk: &'a [T],
    /// The chunk is there as a whole.
    whole: bool,
}

impl<'a, T> Walk<'a, T> {
    fn of(all: &'a Sorted<T>) -> Self {
        let mut walk = Self { chunks: all.chunks.iter(), chunk: &[], whole: false };
        walk.fill();
        walk
    }

    fn fill(&mut self) {
        if self.chunk.is_empty() {
            self.chunk = self.chunks.next().map_or(&[], |chunk| chunk);
            self.whole = true;
        }
    }

    fn peek(&self) -> Option<&'a T> {
        self.chunk.first()
    }

    fn step(&mut self) {
        self.chunk = self.chunk.get(1..).unwrap_or_default();
        self.whole = false;
        self.fill();
    }

    /// Goes past a chunk that both have.
    fn skip_same(&mut self, other: &mut Self) -> bool {
        let same = self.whole && other.whole && !self.chunk.is_empty() && std::ptr::eq(self.chunk, other.chunk);
        if same {
            for walk in [self, other] {
                walk.chunk = &[];
                walk.fill();
            }
        }
        same
    }
}

impl<T: Keyed> FromIterator<T> for Sorted<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let mut sorted = Self::default();
        sorted.edit(Vec::new(), all.into_iter().collect());
        sorted
    }
}

impl<T: Keyed> From<Vec<T>> for Sorted<T> {
    fn from(all: Vec<T>) -> Self {
        all.into_iter().collect()
    }
}

impl<T: Keyed + PartialEq> PartialEq for Sorted<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.diff(other).into_iter().all(|(old, new)| old == new)
    }
}

impl<T: fmt::Debug> fmt::Debug for Sorted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A key, a rank, and which one it is.
    type Item = Arc<(u8, u8, usize)>;

    impl Keyed for Item {
        type Key = u8;

        fn key(&self) -> &u8 {
            &self.0
        }

        fn among(&self, other: &Self) -> Ordering {
            (self.1, self.2).cmp(&(other.1, other.2))
        }

        fn is(&self, other: &Self) -> bool {
            Arc::ptr_eq(self, other)
        }
    }

    fn plain(items: &Sorted<Item>) -> Vec<Item> {
        items.iter().cloned().collect()
    }

    proptest! {
        #[test]
        fn edits_do_what_they_do_to_a_plain_list_and_the_difference_is_what_was_edited(
            rounds in prop::collection::vec((prop::collection::vec((0u8..60, 0u8..3), 0..250), 0usize..7), 1..8),
        ) {
            let (mut list, mut sorted) = (Vec::<Item>::new(), Sorted::<Item>::default());
            let mut number = 0;
            for (come, nth) in rounds {
                let before = sorted.clone();
                let gone: Vec<Item> = list.iter().enumerate().filter(|(at, _)| nth > 0 && at % nth == 0).map(|(_, item)| item.clone()).collect();
                let make = |(key, rank): (u8, u8)| { number += 1; Arc::new((key, rank, number)) };
                let come: Vec<Item> = come.into_iter().map(make).collect();
                list.retain(|item| !gone.iter().any(|gone| Arc::ptr_eq(gone, item)));
                list.extend(come.iter().cloned());
                list.sort();
                sorted.edit(gone.clone(), come.clone());
                prop_assert_eq!(&plain(&sorted), &list);
                prop_assert_eq!(sorted.len(), list.len());
                for key in 0u8..60 {
                    let wanted: Vec<Item> = list.iter().filter(|item| item.0 == key).cloned().collect();
                    prop_assert_eq!(sorted.all(&key), wanted.as_slice());
                }
                let touched: BTreeSet<u8> = gone.iter().chain(&come).map(|item| item.0).collect();
                let diff = before.diff(&sorted);
                prop_assert_eq!(diff.iter().filter_map(|(old, new)| new.or(*old)).map(|item| item.0).collect::<BTreeSet<_>>(), touched);
                prop_assert!(diff.iter().all(|(old, new)| old.zip(*new).is_none_or(|(old, new)| old.0 == new.0)));
            }
            prop_assert_eq!(&sorted, &list.into_iter().collect::<Sorted<_>>());
        }
    }

    #[test]
    fn what_an_edit_does_not_touch_is_shared() {
        let all: Sorted<Item> = (0..200u8).map(|n| Arc::new((n, 0, 0))).collect();
        let mut edited = all.clone();
        edited.edit(Vec::new(), vec![Arc::new((100, 1, 0))]);
        let shared = all.chunks.iter().filter(|chunk| edited.chunks.iter().any(|other| Arc::ptr_eq(chunk, other)));
        assert_eq!((shared.count(), all.chunks.len()), (all.chunks.len() - 1, all.chunks.len()));
    }
}
