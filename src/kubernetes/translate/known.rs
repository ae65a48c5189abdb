//! Which clusters are there, who forwards to each, and which of them have to be made anew?
//!
//! A cluster depends on its Service and on settings in ConfigMaps. Of thousands, a change touches a few: the others are not looked
//! at.

use super::Bound;
use super::claims::Affected;
use super::piece::Owned;
use super::service::{Clusters, Fault, Made};
use crate::model::{ClusterSpec, Sorted};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};
use std::rc::Rc;
use std::sync::Arc;

/// Clusters by name.
#[derive(Debug, Default)]
pub(super) struct Known {
    made: BTreeMap<Arc<str>, Used>,
    pub(super) specs: Sorted<Arc<ClusterSpec>>,
    pub(super) bindings: Sorted<Arc<Bound>>,
    /// What there was of those that were touched since the collections were last brought up to date.
    touched: BTreeMap<Arc<str>, Option<Was>>,
}

/// Settings and binding of a cluster.
type Was = (Arc<ClusterSpec>, Arc<Bound>);

#[derive(Debug)]
struct Used {
    made: Made,
    users: SmallVec<[Rc<Owned>; 1]>,
}

impl Known {
    /// Makes the clusters of these Services (`namespace/name`) anew, and adds whom that touches.
    pub(super) fn renew(&mut self, services: &BTreeSet<String>, clusters: &Clusters<'_>, affected: &mut Affected) {
        for service in services {
            // A semicolon is what comes after a colon.
            let ports = (Excluded(format!("{service}:")), Excluded(format!("{service};")));
            let ports = (ports.0.as_ref().map(String::as_str), ports.1.as_ref().map(String::as_str));
            let whole = self.made.range_mut::<str, _>((Included(service.as_str()), Included(service.as_str())));
            let renewed: Vec<_> = whole.map(|(name, used)| (Arc::clone(name), used.renew(name, clusters))).collect();
            let rest = self.made.range_mut::<str, _>(ports);
            let rest = rest.map(|(name, used)| (Arc::clone(name), used.renew(name, clusters)));
            let all: Vec<_> = renewed.into_iter().chain(rest).collect();
            for (name, old) in all {
                let Some(used) = self.made.get(&name) else { continue };
                let Some(old) = old else { continue };
                if old.fault != used.made.fault {
                    affected.extend(used.users.iter().map(|owned| (Rc::as_ptr(owned), Rc::clone(owned))));
                }
                self.touched.entry(name).or_insert(Some((old.spec, old.bound)));
            }
        }
    }

    /// A piece forwards to this cluster; it is made where it is new. Nothing where the name is no Service's.
    pub(super) fn take(&mut self, name: &Arc<str>, owned: &Rc<Owned>, clusters: &Clusters<'_>) {
        if let Some(used) = self.made.get_mut(name) {
            if !used.users.iter().any(|user| Rc::ptr_eq(user, owned)) {
                used.users.push(Rc::clone(owned));
            }
        } else if let Some(made) = clusters.make(name) {
            let name = Arc::clone(name);
            self.touched.entry(Arc::clone(&name)).or_insert(None);
            self.made.insert(name, Used { made, users: SmallVec::from_elem(Rc::clone(owned), 1) });
        }
    }

    /// A piece does not forward to this cluster any more; one to which nobody does is forgotten.
    pub(super) fn release(&mut self, name: &str, owned: &Rc<Owned>) {
        let Some(used) = self.made.get_mut(name) else { return };
        used.users.retain(|user| !Rc::ptr_eq(user, owned));
        if used.users.is_empty()
            && let Some((name, used)) = self.made.remove_entry(name)
        {
            self.touched.entry(name).or_insert(Some((used.made.spec, used.made.bound)));
        }
    }

    /// What is wrong with a cluster.
    pub(super) fn fault(&self, name: &str) -> Option<&Fault> {
        self.made.get(name)?.made.fault.as_deref()
    }

    /// Names of the settings that clusters took.
    pub(super) fn said(&self) -> BTreeSet<&str> {
        self.made.values().filter_map(|used| used.made.said.as_deref()).collect()
    }

    /// Brings the collections up to date; whether that changed anything.
    pub(super) fn finish(&mut self) -> bool {
        let (mut specs, mut bindings) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for (name, old) in std::mem::take(&mut self.touched) {
            let new = self.made.get(&name).map(|used| &used.made);
            let both = old.as_ref().zip(new);
            let same_spec = both.is_some_and(|((spec, _), made)| Arc::ptr_eq(spec, &made.spec));
            let same_binding = both.is_some_and(|((_, bound), made)| Arc::ptr_eq(bound, &made.bound));
            if !same_binding {
                bindings.0.extend(old.as_ref().map(|(_, bound)| Arc::clone(bound)));
                bindings.1.extend(new.map(|made| Arc::clone(&made.bound)));
            }
            if !same_spec {
                specs.0.extend(old.map(|(spec, _)| spec));
                specs.1.extend(new.map(|made| Arc::clone(&made.spec)));
            }
        }
        let changed = !(specs.0.is_empty() && specs.1.is_empty() && bindings.0.is_empty() && bindings.1.is_empty());
        self.specs.edit(specs.0, specs.1);
        self.bindings.edit(bindings.0, bindings.1);
        changed
    }
}

impl Used {
    /// What it was, where it is something else now.
    fn renew(&mut self, name: &Arc<str>, clusters: &Clusters<'_>) -> Option<Made> {
        let mut made = clusters.make(name)?;
        if made.spec == self.made.spec {
            made.spec = Arc::clone(&self.made.spec);
        }
        if made.bound == self.made.bound {
            made.bound = Arc::clone(&self.made.bound);
        }
        Some(std::mem::replace(&mut self.made, made))
    }
}
