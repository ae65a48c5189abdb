//! How is a map by text held, so that a change of one entry copies few of thousands?
//!
//! Many small tables. A copy of the map shares all of them; whoever changes an entry copies the one table that it is in. A look-up
//! hashes once, allocates nothing, and does not get slower with the number of entries.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use std::sync::Arc;

/// Values by text.
#[derive(Clone, Debug)]
pub(super) struct Shards<V> {
    hasher: DefaultHashBuilder,
    /// Their number is a power of two, or there is none.
    shards: Vec<Arc<Shard<V>>>,
    len: usize,
}

type Shard<V> = HashTable<(Box<str>, V)>;

/// Entries of one small table, on average, where there are many of them.
const USUAL: usize = 48;

impl<V> Default for Shards<V> {
    fn default() -> Self {
        Self { hasher: DefaultHashBuilder::default(), shards: Vec::new(), len: 0 }
    }
}

impl<V: Clone> Shards<V> {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn get(&self, key: &str) -> Option<&V> {
        if self.len == 0 {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let shard = self.shards.get(place(hash, self.shards.len()))?;
        shard.find(hash, |(other, _)| **other == *key).map(|(_, value)| value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter()).map(|(key, value)| (&**key, value))
    }

    /// Makes the small tables ready for so many more entries.
    pub(super) fn reserve(&mut self, more: usize) {
        let wanted = (self.len + more).div_ceil(USUAL).next_power_of_two();
        // Twice as many entries as usual do no harm, and to cut anew is to copy everything.
        if wanted > self.shards.len() * 2 || self.shards.is_empty() {
            self.spread(wanted);
        }
    }

    /// Sets an entry; `None` takes it out.
    pub(super) fn set(&mut self, key: &str, value: Option<V>) {
        self.reserve(0);
        let hash = self.hasher.hash_one(key);
        let place = place(hash, self.shards.len());
        let Some(shard) = self.shards.get_mut(place).map(Arc::make_mut) else { return };
        match (shard.find_entry(hash, |(other, _)| **other == *key), value) {
            (Ok(mut there), Some(value)) => there.get_mut().1 = value,
            (Ok(there), None) => {
                there.remove();
                self.len -= 1;
            }
            (Err(_), Some(value)) => {
                let hasher = &self.hasher;
                shard.insert_unique(hash, (key.into(), value), |(key, _)| hasher.hash_one(&**key));
                self.len += 1;
            }
            (Err(_), None) => {}
        }
    }

    fn spread(&mut self, shards: usize) {
        let old = std::mem::take(&mut self.shards);
        let mut new = vec![HashTable::new(); shards];
        let hasher = &self.hasher;
        for entry in old.iter().flat_map(|shard| shard.iter()) {
            let hash = hasher.hash_one(&*entry.0);
            if let Some(shard) = new.get_mut(place(hash, shards)) {
                shard.insert_unique(hash, entry.clone(), |(key, _)| hasher.hash_one(&**key));
            }
        }
        self.shards = new.into_iter().map(Arc::new).collect();
    }
}

/// Bits that the small tables themselves do not go by.
fn place(hash: u64, shards: usize) -> usize {
    usize::try_from(hash >> 32 & 0xff_ffff).unwrap_or_default() & shards.wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_holds_what_a_plain_map_holds_and_its_copies_stay_as_they_were(
            edits in prop::collection::vec((0u16..400, prop::option::weighted(0.7, 0u32..9)), 0..900),
        ) {
            let (mut plain, mut shards) = (BTreeMap::new(), Shards::default());
            let mut kept = None;
            for (number, (key, value)) in edits.into_iter().enumerate() {
                let key = format!("host-{key}.test");
                shards.set(&key, value);
                match value {
                    Some(value) => drop(plain.insert(key, value)),
                    None => drop(plain.remove(&key)),
                }
                if number == 300 {
                    kept = Some((shards.clone(), plain.clone()));
                }
            }
            for (shards, plain) in kept.into_iter().chain([(shards, plain)]) {
                let there: BTreeMap<String, u32> = shards.iter().map(|(key, value)| (key.to_owned(), *value)).collect();
                prop_assert_eq!(&there, &plain);
                prop_assert_eq!(shards.is_empty(), plain.is_empty());
                let mut keys = (0..400).map(|n| format!("host-{n}.test"));
                prop_assert!(keys.all(|key| shards.get(&key) == plain.get(&key)));
            }
        }
    }
}
