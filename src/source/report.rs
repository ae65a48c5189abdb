//! What became of the last change?

use crate::model::Problem;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The outcome of the last publish; kept in a watch that status, admin and the log read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Generation of the snapshot that serves; 0 before the first.
    pub generation: u64,
    /// Everything that could not be honoured, or deserves a warning, sorted by origin.
    pub problems: Arc<[Problem]>,
    /// Number of the delivery of each source, by its name, that this is the outcome of.
    pub delivered: BTreeMap<Arc<str>, u64>,
    /// When that snapshot, or the endpoints in it, was published.
    pub published_at: Option<SystemTime>,
    /// How long that took.
    pub timings: Timings,
}

/// How long the steps of a publish took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Fragments to one model.
    pub merge: Duration,
    /// Model to snapshot.
    pub compile: Duration,
    /// Making it serve.
    pub swap: Duration,
}
