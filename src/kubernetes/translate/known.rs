//! Which clusters were made before, and which of them still hold?
//!
//! A cluster depends on its Service and on settings in ConfigMaps. Of thousands, a change touches a few: the others are not looked
//! up again, because looking up is what a translation of thousands of Ingresses would spend its time with.

use super::super::objects::{Key, Service};
use super::service::Made;
use crate::model::ClusterSpec;
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Settings of a Service, and whether what they name is there.
pub(super) type Settled = (ClusterSpec, bool);

/// Clusters by name, as they were made in earlier translations.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The Services that were there, in the order of their keys.
    seen: Vec<Arc<Service>>,
    said: Vec<Settled>,
    made: HashMap<Arc<str>, (Made, Round)>,
    /// Every name, in order.
    order: Vec<Arc<str>>,
    round: Round,
}

/// Counts translations, so that a cluster that nobody names any more is noticed.
type Round = u64;

impl Known {
    /// Forgets what depends on what changed.
    pub(super) fn begin(&mut self, services: &BTreeMap<Key, Arc<Service>>, said: Vec<Settled>) {
        self.round += 1;
        let changed = self.changed(services);
        if said != self.said {
            self.said = said;
            self.made.clear();
        } else if !changed.is_empty() {
            self.made.retain(|_, (made, _)| !changed.contains(&made.service));
        }
        if !changed.is_empty() {
            self.seen = services.values().cloned().collect();
        }
    }

    /// A cluster that still holds.
    pub(super) fn get(&mut self, name: &str) -> Option<&Made> {
        let round = self.round;
        self.made.get_mut(name).map(|(made, used)| {
            *used = round;
            &*made
        })
    }

    /// A new one.
    pub(super) fn insert(&mut self, name: &str, made: Made) {
        self.made.insert(name.into(), (made, self.round));
    }

    /// What was asked for in this round, in the order of names; the rest is forgotten.
    pub(super) fn finish(&mut self) -> impl Iterator<Item = (&str, &Made)> {
        let round = self.round;
        self.made.retain(|_, (_, used)| *used == round);
        if self.order.len() != self.made.len() || !self.order.iter().all(|name| self.made.contains_key(name)) {
            self.order = self.made.keys().cloned().collect();
            self.order.sort();
        }
        self.order.iter().filter_map(|name| Some((&**name, &self.made.get(name)?.0)))
    }

    /// Services that appeared, went or are not what they were.
    fn changed(&self, services: &BTreeMap<Key, Arc<Service>>) -> BTreeSet<Key> {
        let mut changed = BTreeSet::new();
        let mut old = self.seen.iter().peekable();
        for (key, service) in services {
            // Both in the order of keys; of what is the same object nothing is compared.
            let same = |old: &&Arc<Service>| Arc::ptr_eq(old, service);
            while let Some(gone) = old.next_if(|old| !same(old) && old.meta.key < *key) {
                changed.insert(gone.meta.key.clone());
            }
            if old.next_if(same).is_none() {
                old.next_if(|old| old.meta.key == *key);
                changed.insert(key.clone());
            }
        }
        changed.extend(old.map(|gone| gone.meta.key.clone()));
        changed
    }
}
