//! What is known of the cluster, who is woken when that changes, and what could not be read?

use super::endpoints::Slices;
use super::objects::{Key, Objects};
use super::road::Road;
use crate::config::kubernetes::Settings;
use crate::model::Problem;
use crate::source::Memberships;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tokio::sync::Notify;

/// Everything that watches fill, on the control thread.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) objects: Rc<RefCell<Objects>>,
    pub(super) slices: RefCell<Slices>,
    pub(super) road: RefCell<Road>,
    /// Watches that have not delivered their first list, which serving waits for.
    pub(super) missing: RefCell<BTreeSet<String>>,
    problems: RefCell<BTreeMap<(Rc<str>, Key), Problem>>,
    stale: Cell<bool>,
    changed: Notify,
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Something that a translation sees.
    Wish,
    /// Something that only those see who write back.
    Version,
}

impl Store {
    pub(super) fn new(settings: &Settings, memberships: Memberships) -> Self {
        Self {
            objects: Rc::default(),
            slices: RefCell::new(Slices::new(settings)),
            road: RefCell::new(Road::new(memberships)),
            missing: RefCell::default(),
            problems: RefCell::default(),
            stale: Cell::new(false),
            changed: Notify::new(),
        }
    }

    /// Waits until something has changed since the last call.
    pub(super) async fn changed(&self) -> Change {
        self.changed.notified().await;
        if self.stale.replace(false) { Change::Wish } else { Change::Version }
    }

    /// Forgets that something has changed: it is looked at now.
    pub(super) fn seen(&self) {
        self.stale.set(false);
    }

    /// What could not be read.
    pub(super) fn problems(&self) -> Vec<Problem> {
        self.problems.borrow().values().cloned().collect()
    }

    pub(super) fn tell(&self, change: Change) {
        if change == Change::Wish {
            self.stale.set(true);
        }
        self.changed.notify_one();
    }

    /// Adds a problem; `None` takes it away.
    pub(super) fn problem(&self, watch: &Rc<str>, key: &Key, problem: Option<Problem>) {
        let at = (Rc::clone(watch), key.clone());
        let mut problems = self.problems.borrow_mut();
        let changed = match problem {
            Some(problem) => problems.insert(at, problem.clone()).as_ref() != Some(&problem),
            None => problems.remove(&at).is_some(),
        };
        drop(problems);
        if changed {
            self.tell(Change::Wish);
        }
    }

    /// Takes every problem of a watch away but these.
    pub(super) fn keep_problems(&self, watch: &Rc<str>, keep: &BTreeSet<Key>) {
        let before = self.problems.borrow().len();
        self.problems.borrow_mut().retain(|(of, key), _| of != watch || keep.contains(key));
        if self.problems.borrow().len() != before {
            self.tell(Change::Wish);
        }
    }
}
