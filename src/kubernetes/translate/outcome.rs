//! What became of each object: how many of its routes serve?

use super::config_map::Held;
use super::piece::Owned;
use crate::kubernetes::objects::{Key, Meta};
use crate::model::Keyed;
use std::sync::Arc;

/// What became of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// uid of the object that was translated.
    pub uid: Arc<str>,
    /// resourceVersion of the object that was translated.
    pub version: Arc<str>,
    /// Routes that serve because of it.
    pub accepted: usize,
    /// Routes of it that do not serve, or not as written now.
    pub refused: usize,
}

/// An object and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Became {
    /// The object that was translated.
    pub object: Arc<Meta>,
    /// Routes that serve because of it.
    pub accepted: u32,
    /// Routes of it that do not serve, or not as written now.
    pub refused: u32,
}

impl Keyed for Became {
    type Key = Key;

    fn key(&self) -> &Key {
        &self.object.key
    }

    fn is(&self, other: &Self) -> bool {
        self == other
    }
}

impl Became {
    pub(super) fn of(owned: &Owned) -> Self {
        let state = owned.state.borrow();
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self { object: Arc::clone(&owned.meta), accepted: small(state.accepted), refused: small(state.refused) }
    }
}

/// What became of a ConfigMap.
pub(super) fn of_config_map(held: &Held) -> Outcome {
    let states = held.texts.values().map(|owned| owned.state.borrow());
    let counts = states.map(|state| (state.accepted, state.refused));
    let (accepted, refused) = counts.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    outcome(&held.map.meta, (accepted, refused + held.problems.len()))
}

fn outcome(meta: &Meta, (accepted, refused): (usize, usize)) -> Outcome {
    Outcome { uid: Arc::clone(&meta.uid), version: Arc::clone(&meta.version), accepted, refused }
}
