//! Which clusters have other endpoints now, and who is told?
//!
//! The fast road: a slice changes, the clusters bound to its Service are said anew, and nothing is translated.

use super::endpoints::Slices;
use super::objects::Key;
use super::translate::{Binding, Bound, Translation};
use crate::source::Memberships;
use std::rc::Rc;
use std::sync::Arc;

/// Bindings of clusters, and where their endpoints are said.
#[derive(Debug)]
pub(super) struct Road {
    memberships: Memberships,
    bound: Rc<Translation>,
    /// Clusters that nothing binds any more. They are given up with the next translation, when no snapshot has them.
    leaving: Vec<Arc<str>>,
}

impl Road {
    /// Nothing is bound.
    pub(super) fn new(memberships: Memberships) -> Self {
        Self { memberships, bound: Rc::default(), leaving: Vec::new() }
    }

    /// Says the endpoints of every cluster that is bound anew. Names to resolve are not this road's.
    pub(super) fn bind(&mut self, translation: &Rc<Translation>, slices: &Slices) {
        let (old, new) = (std::mem::replace(&mut self.bound, Rc::clone(translation)), translation);
        for name in std::mem::take(&mut self.leaving).iter().filter(|name| !new.bindings.contains_key(&***name)) {
            self.memberships.remove(name);
        }
        for (old, new) in old.bindings.diff(&new.bindings) {
            match (old, new) {
                (Some(old), None) => self.leaving.push(Arc::clone(&old.cluster)),
                (old, Some(new)) if old.is_none_or(|old| old.binding != new.binding) => self.say(new, slices),
                _ => {}
            }
        }
    }

    /// Says the endpoints of clusters that are bound to these Services. A cluster is named after its Service.
    pub(super) fn touched<'a>(&self, services: impl IntoIterator<Item = &'a Key>, slices: &Slices) {
        let bindings = &self.bound.bindings;
        for key in services {
            let whole = key.to_string();
            // A semicolon is what comes after a colon.
            let (from, to) = (format!("{whole}:"), format!("{whole};"));
            let ports = bindings.range(&*from, &*to);
            bindings.get(&*whole).into_iter().chain(ports).for_each(|bound| self.say(bound, slices));
        }
    }

    /// Says the endpoints of every cluster: how near they are may have changed.
    pub(super) fn all(&self, slices: &Slices) {
        let of_slices = |bound: &&Arc<Bound>| matches!(bound.binding, Binding::Slices { .. });
        self.bound.bindings.iter().filter(of_slices).for_each(|bound| self.say(bound, slices));
    }

    fn say(&self, bound: &Bound, slices: &Slices) {
        let endpoints = match &bound.binding {
            Binding::Slices { service, port } => slices.members(service, port),
            Binding::Nothing => Vec::new(),
            Binding::Name { .. } => return,
        };
        self.memberships.set(Arc::clone(&bound.cluster), endpoints);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kubernetes::Settings;
    use serde_json::json;

    fn slices() -> Slices {
        Slices::new(&Settings::default())
    }

    fn put(slices: &mut Slices, service: &str, address: &str) -> Vec<Key> {
        let object = json!({ "metadata": { "namespace": "shop", "name": format!("{service}-1"),
            "labels": { "kubernetes.io/service-name": service } }, "addressType": "IPv4",
            "ports": [{ "port": 80 }], "endpoints": [{ "addresses": [address] }] });
        let read = slices.read(serde_json::from_value(object).unwrap());
        slices.put(read)
    }

    fn bound(bindings: &[(&str, &str)]) -> Rc<Translation> {
        let binding = |(name, service): &(&str, &str)| {
            let service = Key::new("shop", *service);
            let binding =
                if service.name.is_empty() { Binding::Nothing } else { Binding::Slices { service, port: "".into() } };
            Arc::new(Bound { cluster: (*name).into(), binding })
        };
        Rc::new(Translation { bindings: bindings.iter().map(binding).collect(), ..Translation::default() })
    }

    fn said(memberships: &Memberships) -> Vec<(String, Option<usize>)> {
        memberships.take().into_iter().map(|(name, said)| (name.to_string(), said.map(|all| all.len()))).collect()
    }

    #[test]
    fn only_clusters_of_a_service_whose_slice_changed_are_said_again() {
        let (memberships, mut slices) = (Memberships::default(), slices());
        let mut road = Road::new(memberships.clone());
        put(&mut slices, "web", "10.0.0.1");
        road.bind(&bound(&[("shop/web", "web"), ("shop/web:80", "web"), ("shop/api", "api"), ("shop/x", "")]), &slices);
        let all = [("shop/api", 0), ("shop/web", 1), ("shop/web:80", 1), ("shop/x", 0)];
        assert_eq!(said(&memberships), all.map(|(name, n)| (name.to_owned(), Some(n))));
        let touched = put(&mut slices, "api", "10.0.0.2");
        road.touched(&touched, &slices);
        assert_eq!(said(&memberships), [("shop/api".to_owned(), Some(1))]);
        let touched = put(&mut slices, "other", "10.0.0.3");
        road.touched(&touched, &slices);
        assert!(said(&memberships).is_empty());
    }

    #[test]
    fn a_new_translation_says_what_is_bound_otherwise_and_gives_up_the_rest_one_later() {
        let (memberships, mut slices) = (Memberships::default(), slices());
        let mut road = Road::new(memberships.clone());
        put(&mut slices, "web", "10.0.0.1");
        road.bind(&bound(&[("a", "web"), ("b", "web"), ("c", "")]), &slices);
        said(&memberships);
        road.bind(&bound(&[("b", "web"), ("c", "web")]), &slices);
        assert_eq!(said(&memberships), [("c".to_owned(), Some(1))], "a may still serve");
        road.bind(&bound(&[("b", "web"), ("c", "web")]), &slices);
        assert_eq!(said(&memberships), [("a".to_owned(), None)]);
        road.bind(&bound(&[("a", "web")]), &slices);
        road.bind(&bound(&[("b", "web")]), &slices);
        let last = [("a", Some(1)), ("b", Some(1)), ("c", None)];
        assert_eq!(
            said(&memberships),
            last.map(|(name, n)| (name.to_owned(), n)),
            "b came back before it was given up"
        );
    }
}
