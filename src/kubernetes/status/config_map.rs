//! What does a routes ConfigMap say about itself, so that whoever edited it sees in the object when the edit is live?
//!
//! `tidegate.io/live` is the resourceVersion of the last edit that serves: the one that `kubectl apply` prints for an edit. Our own
//! patch gives the object another one, which is no edit: an edit is known by the digest of the data, and other writes by a
//! resourceVersion that is not that of our last patch. Patches are conditional on the version they speak of; so an edit that
//! comes between is never taken for the one before it.

use super::pace::Attempts;
use super::place::{Kind, Place, cut, within};
use crate::kubernetes::objects::{Key, Name, Objects, RoutesConfigMap};
use crate::kubernetes::translate::{Outcome, Translation};
use crate::model::{Origin, Problem, Severity};
use crate::source::Report;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;

const LIVE: &str = "tidegate.io/live";
const ACCEPTED: &str = "tidegate.io/accepted";
const REFUSED: &str = "tidegate.io/refused";
const PROBLEMS: &str = "tidegate.io/problems";
const DIGEST: &str = "tidegate.io/digest";

/// How many problems are written, and how many bytes of them.
const PROBLEM_LINES: usize = 10;
const PROBLEM_BYTES: usize = 4_096;

/// Annotations and their values; `None`: there is to be none.
type Annotations = BTreeMap<&'static str, Option<String>>;

/// What this gate knows of ConfigMaps beyond what is watched. To be made anew with each leadership.
#[derive(Debug, Default)]
pub(super) struct Annotator {
    known: BTreeMap<Key, Known>,
    attempts: Attempts<Annotations>,
}

#[derive(Debug)]
struct Known {
    uid: Arc<str>,
    /// The version that was watched last, and the digest of its data.
    stored: (Arc<str>, Arc<str>),
    /// The version that was translated last, and the digest of its data.
    translated: Option<(Arc<str>, Arc<str>)>,
    /// The version that our last patch made, or a patch of the leader before.
    own: Option<Arc<str>>,
    /// The version that our last patch was made on, until the watch shows a later one.
    patched: Option<Arc<str>>,
}

/// What is written to a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: Key,
    pub(super) uid: Arc<str>,
    /// The version that the patch is made on.
    pub(super) version: Arc<str>,
    /// Whether its data were edited since the last time; then this says that the edit is live.
    pub(super) edited: bool,
    /// Routes that serve, and routes that do not.
    pub(super) counts: (usize, usize),
    annotations: Annotations,
}

impl Annotator {
    /// What there is to write now. The report must be of a publish that had this translation, or a later one.
    pub(super) fn plan(
        &mut self,
        (objects, translation): (&Objects, &Translation),
        report: &Report,
        now: Instant,
    ) -> Vec<Change> {
        self.known.retain(|key, _| objects.config_maps.contains_key(key));
        self.attempts.retain(|key| objects.config_maps.contains_key(key));
        let mut problems = by_config_map(&report.problems);
        let mut changes = Vec::new();
        for (key, outcome) in &translation.config_maps {
            let Some(map) = objects.config_maps.get(key).filter(|map| *map.meta.uid == *outcome.uid) else { continue };
            let problems = problems.remove(key).unwrap_or_default();
            let Some(digest) = self.translated(map, outcome) else { continue };
            let counts = counts(outcome, &problems, &translation.problems);
            let wanted = annotations(&digest, counts, &problems);
            changes.extend(self.change(map, wanted, counts, now));
        }
        changes
    }

    /// A patch was answered with this version.
    pub(super) fn written(&mut self, change: &Change, version: &str) {
        if let Some(known) = self.known.get_mut(&change.key).filter(|known| known.uid == change.uid) {
            known.own = Some(version.into());
            // A patch that changed nothing makes no version to wait for.
            known.patched = (*change.version != *version).then(|| change.version.clone());
        }
    }

    /// The digest of the data that were translated; `None`: what was watched since has other data, and is translated soon.
    fn translated(&mut self, map: &RoutesConfigMap, outcome: &Outcome) -> Option<Arc<str>> {
        let (key, meta) = (&map.meta.key, &map.meta);
        if self.known.get(key).is_none_or(|known| known.uid != meta.uid) {
            let stored = (meta.version.clone(), digest(map));
            let new = Known { uid: meta.uid.clone(), stored, translated: None, own: None, patched: None };
            self.known.insert(key.clone(), new);
        }
        let known = self.known.get_mut(key)?;
        if known.stored.0 != meta.version {
            known.stored = (meta.version.clone(), digest(map));
        }
        if *outcome.version == *meta.version {
            known.translated = Some(known.stored.clone());
        }
        let (version, digest) = known.translated.as_ref()?;
        (**version == *outcome.version && *digest == known.stored.1).then(|| digest.clone())
    }

    fn change(
        &mut self,
        map: &RoutesConfigMap,
        mut wanted: Annotations,
        counts: (usize, usize),
        now: Instant,
    ) -> Option<Change> {
        let meta = &map.meta;
        let known = self.known.get_mut(&meta.key)?;
        if known.patched.as_ref() == Some(&meta.version) {
            return None;
        }
        known.patched = None;
        let there = |name: &str| map.annotations.get(name).map(String::as_str);
        let edited = there(DIGEST) != wanted.get(DIGEST).and_then(Option::as_deref);
        if !edited && known.own.is_none() {
            known.own = Some(meta.version.clone());
        }
        let touched = known.own.as_ref() != Some(&meta.version) && there(LIVE) != Some(&*meta.version);
        let differs = wanted.iter().any(|(name, value)| there(name) != value.as_deref());
        if !(edited || touched || differs) || !self.attempts.may(&meta.key, &wanted, now) {
            return None;
        }
        self.attempts.note(&meta.key, wanted.clone(), now);
        if edited || touched {
            wanted.insert(LIVE, Some(meta.version.to_string()));
        }
        let (key, uid, version) = (meta.key.clone(), meta.uid.clone(), meta.version.clone());
        Some(Change { key, uid, version, edited, counts, annotations: wanted })
    }
}

impl Change {
    /// Path of the ConfigMap.
    pub(super) fn path(&self) -> String {
        let Name { namespace, name } = &*self.key;
        format!("/api/v1/namespaces/{namespace}/configmaps/{name}")
    }

    /// The patch.
    pub(super) fn body(&self) -> Value {
        json!({"metadata": {"resourceVersion": &*self.version, "annotations": self.annotations}})
    }
}

fn annotations(digest: &str, (accepted, refused): (usize, usize), problems: &[&Problem]) -> Annotations {
    [
        (ACCEPTED, Some(accepted.to_string())),
        (REFUSED, Some(refused.to_string())),
        (PROBLEMS, lines(problems)),
        (DIGEST, Some(digest.to_owned())),
    ]
    .into()
}

/// The problems of each ConfigMap.
fn by_config_map(problems: &[Problem]) -> BTreeMap<Key, Vec<&Problem>> {
    let mut found: BTreeMap<Key, Vec<&Problem>> = BTreeMap::new();
    for problem in problems {
        if let Some(place) = Place::of(&problem.origin).filter(|place| place.kind == Kind::ConfigMap) {
            found.entry(place.key).or_default().push(problem);
        }
    }
    found
}

/// Routes that serve and routes that do not. Translation knows of what it could not read; merging and compiling refuse more, each
/// route once.
fn counts(outcome: &Outcome, problems: &[&Problem], known: &[Problem]) -> (usize, usize) {
    let errors = problems.iter().filter(|p| p.severity == Severity::Error && !known.contains(p));
    let routes: BTreeSet<(&Arc<str>, &str)> =
        errors.filter_map(|p| Some((&p.origin.place, route(&p.origin)?))).collect();
    let lost = routes.len().min(outcome.accepted);
    (outcome.accepted - lost, outcome.refused + lost)
}

/// `routes[3]` of `routes[3].path`.
fn route(origin: &Origin) -> Option<&str> {
    let first = origin.key.split('.').next()?;
    first.starts_with("routes[").then_some(first)
}

/// The first problems, one a line; `None`: there is none.
fn lines(problems: &[&Problem]) -> Option<String> {
    let line = |problem: &&Problem| {
        let Problem { origin, what, hint, .. } = problem;
        let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
        let place = within(origin);
        let text = if place.is_empty() { format!("{what}{hint}") } else { format!("{place}: {what}{hint}") };
        cut(text.replace('\n', " "), PROBLEM_BYTES / PROBLEM_LINES)
    };
    let mut lines: Vec<String> = problems.iter().take(PROBLEM_LINES).map(line).collect();
    if problems.len() > PROBLEM_LINES {
        lines.push(format!("and {} more", problems.len() - PROBLEM_LINES));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Stands for the data: FNV-1a of 64 bits, the same in every version and on every node. Whoever makes two texts of one digest
/// hides an edit from themselves.
fn digest(map: &RoutesConfigMap) -> Arc<str> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for (key, text) in &map.data {
        for part in [key, text] {
            add(&part.len().to_le_bytes());
            add(part.as_bytes());
        }
    }
    map.binary.iter().for_each(|key| add(key.as_bytes()));
    format!("{hash:016x}").into()
}

#[cfg(test)]
mod tests;
