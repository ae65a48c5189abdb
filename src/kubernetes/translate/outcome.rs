//! What became of each object: how many of its routes serve?

use super::piece::Owned;
use super::{Memory, Outcome, Translation};
use crate::kubernetes::objects::{Key, Meta};
use std::collections::BTreeMap;

/// Routes that serve and that do not, of each piece by its number.
pub(super) struct Counts(Vec<(usize, usize)>);

impl Counts {
    /// What the pieces say themselves.
    pub(super) fn of(pieces: &[Owned<'_>]) -> Self {
        let mut counts = Self(vec![(0, 0); pieces.len()]);
        for owned in pieces {
            counts.refuse(owned, owned.piece.refused);
        }
        counts
    }

    pub(super) fn accept(&mut self, owned: &Owned<'_>) {
        if let Some((accepted, _)) = self.0.get_mut(owned.number) {
            *accepted += 1;
        }
    }

    pub(super) fn refuse(&mut self, owned: &Owned<'_>, more: usize) {
        if let Some((_, refused)) = self.0.get_mut(owned.number) {
            *refused += more;
        }
    }

    /// The outcome of every object; numbers go by the order of the caches.
    pub(super) fn tell(self, memory: &Memory, translation: &mut Translation) {
        let mut counts = self.0.into_iter();
        for held in memory.config_maps.values() {
            let texts: Vec<_> = counts.by_ref().take(held.texts.len()).collect();
            let accepted = texts.iter().map(|(accepted, _)| accepted).sum();
            let refused = texts.iter().map(|(_, refused)| refused).sum::<usize>() + held.problems.len();
            let outcome = outcome(&held.map.meta, (accepted, refused));
            translation.config_maps.insert(held.map.meta.key.clone(), outcome);
            translation.problems.extend(held.problems.iter().cloned());
        }
        translation.ingresses = outcomes(memory.ingresses.iter().map(|(object, _)| &object.meta), counts.by_ref());
        translation.exposed = outcomes(memory.exposed.iter().map(|(object, _)| &object.meta), counts);
    }
}

fn outcomes<'a>(
    objects: impl Iterator<Item = &'a Meta>,
    counts: impl Iterator<Item = (usize, usize)>,
) -> BTreeMap<Key, Outcome> {
    // Objects first: zip takes from its first part before it knows that there is nothing in the second.
    objects.zip(counts).map(|(meta, count)| (meta.key.clone(), outcome(meta, count))).collect()
}

fn outcome(meta: &Meta, (accepted, refused): (usize, usize)) -> Outcome {
    Outcome { uid: meta.uid.to_string(), version: meta.version.to_string(), accepted, refused }
}
