//! How are the objects of most kinds kept?

use super::desk::{Desk, count};
use super::objects::{Ingress, IngressClass, Key, Meta, Objects, RoutesConfigMap, Service};
use super::store::Change;
use super::watch::{News, Sink, keys};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A kind whose objects are kept whole.
pub(super) trait Kept: Clone + PartialEq + 'static {
    /// Who it is.
    fn meta(&self) -> &Arc<Meta>;
    /// Takes the very texts of another object where they are equal: of thousands, nearly all have some in common.
    fn share(&mut self, other: &Self) {
        let _ = other;
    }
    /// All of its kind.
    fn all(objects: &mut Objects) -> &mut BTreeMap<Key, Arc<Self>>;
    /// Whether a translation would see no difference to what it was.
    fn same(&self, was: &Self) -> bool;
}

impl Kept for RoutesConfigMap {
    fn meta(&self) -> &Arc<Meta> {
        &self.meta
    }

    fn all(objects: &mut Objects) -> &mut BTreeMap<Key, Arc<Self>> {
        &mut objects.config_maps
    }

    fn same(&self, was: &Self) -> bool {
        self == was
    }
}

impl Kept for Service {
    fn meta(&self) -> &Arc<Meta> {
        &self.meta
    }

    fn share(&mut self, other: &Self) {
        share_namespace(&mut self.meta, &other.meta);
    }

    fn all(objects: &mut Objects) -> &mut BTreeMap<Key, Arc<Self>> {
        &mut objects.services
    }

    fn same(&self, was: &Self) -> bool {
        Self { meta: versioned(&self.meta, &was.meta), ..self.clone() } == *was
    }
}

impl Kept for IngressClass {
    fn meta(&self) -> &Arc<Meta> {
        &self.meta
    }

    fn all(objects: &mut Objects) -> &mut BTreeMap<Key, Arc<Self>> {
        &mut objects.classes
    }

    fn same(&self, was: &Self) -> bool {
        Self { meta: versioned(&self.meta, &was.meta), ..self.clone() } == *was
    }
}

impl Kept for Ingress {
    fn meta(&self) -> &Arc<Meta> {
        &self.meta
    }

    fn share(&mut self, other: &Self) {
        share_namespace(&mut self.meta, &other.meta);
        if self.class == other.class {
            self.class.clone_from(&other.class);
        }
        if self.addresses == other.addresses {
            self.addresses.clone_from(&other.addresses);
        }
    }

    fn all(objects: &mut Objects) -> &mut BTreeMap<Key, Arc<Self>> {
        &mut objects.ingresses
    }

    fn same(&self, was: &Self) -> bool {
        // The status of five thousand Ingresses must not have them translated as often.
        self.asks_as(was)
    }
}

fn share_namespace(meta: &mut Arc<Meta>, other: &Meta) {
    let (key, namespace) = (&meta.key, &other.key.namespace);
    if key.namespace == *namespace && !Arc::ptr_eq(&key.namespace, namespace) {
        let key = Key::new(Arc::clone(namespace), Arc::clone(&key.name));
        Arc::make_mut(meta).key = key;
    }
}

/// With the version that it was: versions change with every write, whatever was written.
fn versioned(meta: &Meta, was: &Meta) -> Arc<Meta> {
    Arc::new(Meta { version: Arc::clone(&was.version), ..meta.clone() })
}

/// Keeps objects of a kind.
pub(super) struct Keeper<O> {
    pub(super) desk: Desk,
    last: Option<Arc<O>>,
}

impl<O: Kept> Keeper<O> {
    pub(super) fn new(desk: Desk) -> Self {
        Self { desk, last: None }
    }

    fn put(&mut self, mut object: O) {
        self.last.iter().for_each(|last| object.share(last));
        let object = Arc::new(object);
        self.last = Some(Arc::clone(&object));
        let mut objects = self.desk.store.objects.borrow_mut();
        let all = O::all(&mut objects);
        let key = object.meta().key.clone();
        let change = match all.get(&key) {
            Some(was) if *was == object => None,
            Some(was) if object.same(was) => Some(Change::Version),
            _ => Some(Change::Wish),
        };
        if let Some(change) = change {
            all.insert(key, object);
            self.desk.gauge.set(count(all.len()));
            drop(objects);
            self.desk.store.tell(change);
        }
    }

    /// Removes what is of this watch and not in a new list, which may hold what cannot be read.
    fn replace(&mut self, all: Vec<O>, unreadable: &[(Key, String)]) {
        let mut there: BTreeSet<Key> = all.iter().map(|object| object.meta().key.clone()).collect();
        there.extend(keys(unreadable));
        let mut objects = self.desk.store.objects.borrow_mut();
        let kept = O::all(&mut objects);
        let before = kept.len();
        kept.retain(|key, _| !self.desk.of(key) || there.contains(key));
        let gone = before != kept.len();
        self.desk.gauge.set(count(kept.len()));
        drop(objects);
        if gone {
            self.desk.store.tell(Change::Wish);
        }
        all.into_iter().for_each(|object| self.put(object));
    }
}

impl<K: Into<O>, O: Kept> Sink<K> for Keeper<O> {
    type Object = O;

    fn read(&mut self, object: K) -> O {
        object.into()
    }

    fn take(&mut self, news: News<O>) {
        match news {
            News::Listed { all, unreadable } => {
                self.replace(all, &unreadable);
                self.desk.listed(&unreadable);
            }
            News::Put(object) => {
                self.desk.readable(&object.meta().key);
                self.put(object);
            }
            News::Gone(key) => {
                self.desk.readable(&key);
                let mut objects = self.desk.store.objects.borrow_mut();
                let gone = O::all(&mut objects).remove(&key).is_some();
                self.desk.gauge.set(count(O::all(&mut objects).len()));
                drop(objects);
                if gone {
                    self.desk.store.tell(Change::Wish);
                }
            }
            News::Unreadable(key, why) => self.desk.unreadable(&key, &why),
            News::Refused(words) => self.desk.refused(&words),
            News::Pause => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kubernetes::Settings;
    use crate::kubernetes::store::Store;
    use crate::source::Memberships;
    use crate::telemetry::Registry;
    use futures_util::FutureExt;
    use k8s_openapi::api::{core::v1 as core, networking::v1 as networking};
    use std::rc::Rc;

    fn store() -> Rc<Store> {
        Rc::new(Store::new(&Settings::default(), Memberships::default()))
    }

    fn keeper<O: Kept>(store: &Rc<Store>, namespace: Option<&str>) -> Keeper<O> {
        let desk = Desk::new(store, ("Service", "services"), namespace.map(Into::into), &Registry::new(1, 10));
        Keeper::new(desk.required())
    }

    fn service(namespace: &str, name: &str, version: &str) -> Service {
        let meta = Meta { key: Key::new(namespace, name), version: version.into(), ..Meta::default() };
        Service { meta: meta.into(), ..Service::default() }
    }

    fn take(keeper: &mut Keeper<Service>, news: News<Service>) {
        Sink::<core::Service>::take(keeper, news);
    }

    fn list(all: Vec<Service>) -> News<Service> {
        News::Listed { all, unreadable: vec![] }
    }

    fn changed(store: &Store) -> Option<Change> {
        store.changed().now_or_never()
    }

    fn names(store: &Store) -> Vec<String> {
        store.objects.borrow().services.keys().map(Key::to_string).collect()
    }

    #[test]
    fn a_new_list_takes_away_what_it_does_not_hold_and_wakes_only_for_a_difference() {
        let store = store();
        let mut keeper = keeper(&store, None);
        take(&mut keeper, list(vec![service("shop", "a", "1"), service("shop", "b", "1")]));
        assert!(store.missing.borrow().is_empty());
        assert_eq!(changed(&store), Some(Change::Wish));
        take(&mut keeper, list(vec![service("shop", "a", "1"), service("shop", "b", "1")]));
        assert_eq!(changed(&store), None);
        take(&mut keeper, list(vec![service("shop", "b", "1")]));
        assert_eq!((changed(&store), names(&store)), (Some(Change::Wish), vec!["shop/b".to_owned()]));
        take(&mut keeper, News::Gone(Key::new("shop", "none")));
        assert_eq!(changed(&store), None);
    }

    #[test]
    fn an_empty_first_list_is_one() {
        let store = store();
        take(&mut keeper(&store, None), list(vec![]));
        assert!(store.missing.borrow().is_empty());
        assert_eq!(changed(&store), Some(Change::Wish));
    }

    #[test]
    fn watches_of_two_namespaces_leave_each_other_alone() {
        let store = store();
        let (mut one, mut other) = (keeper(&store, Some("one")), keeper(&store, Some("other")));
        take(&mut one, list(vec![service("one", "a", "1")]));
        assert_eq!(store.missing.borrow().len(), 1);
        take(&mut other, list(vec![service("other", "a", "1")]));
        take(&mut one, list(vec![]));
        assert_eq!(names(&store), ["other/a"]);
    }

    #[test]
    fn a_new_version_alone_is_no_wish_and_neither_are_our_own_words_in_a_status() {
        let store = store();
        let mut services = keeper(&store, None);
        take(&mut services, News::Put(service("shop", "a", "1")));
        changed(&store);
        take(&mut services, News::Put(service("shop", "a", "2")));
        assert_eq!(changed(&store), Some(Change::Version));
        let mut ingresses = keeper::<Ingress>(&store, None);
        let mut ingress = Ingress { meta: service("shop", "a", "1").meta, ..Ingress::default() };
        Sink::<networking::Ingress>::take(&mut ingresses, News::Put(ingress.clone()));
        changed(&store);
        ingress.addresses = Arc::new([Box::from("192.0.2.1")]);
        Sink::<networking::Ingress>::take(&mut ingresses, News::Put(ingress.clone()));
        assert_eq!(changed(&store), Some(Change::Version));
        assert_eq!(store.objects.borrow().ingresses.values().next().unwrap().addresses[..], [Box::from("192.0.2.1")]);
        ingress.class = Some("tidegate".into());
        Sink::<networking::Ingress>::take(&mut ingresses, News::Put(ingress));
        assert_eq!(changed(&store), Some(Change::Wish));
    }

    #[test]
    fn what_objects_have_in_common_is_held_once() {
        let store = store();
        let mut ingresses = keeper::<Ingress>(&store, None);
        let ingress = |name: &str| Ingress {
            meta: service("shop", name, "1").meta,
            class: Some("tidegate".into()),
            addresses: Arc::new(["192.0.2.1".into()]),
            ..Ingress::default()
        };
        for name in ["a", "b"] {
            Sink::<networking::Ingress>::take(&mut ingresses, News::Put(ingress(name)));
        }
        let objects = store.objects.borrow();
        let [a, b] = ["a", "b"].map(|name| &objects.ingresses[&Key::new("shop", name)]);
        assert_eq!((&*b.meta.key.name, &**b), ("b", &ingress("b")));
        assert!(Arc::ptr_eq(&a.meta.key.namespace, &b.meta.key.namespace));
        assert!(Arc::ptr_eq(a.class.as_ref().unwrap(), b.class.as_ref().unwrap()));
        assert!(Arc::ptr_eq(&a.addresses, &b.addresses));
    }

    #[test]
    fn what_cannot_be_read_is_a_problem_and_stays_what_it_was() {
        let store = store();
        let mut keeper = keeper(&store, None);
        take(&mut keeper, News::Put(service("shop", "a", "1")));
        take(&mut keeper, News::Listed { all: vec![], unreadable: vec![(Key::new("shop", "a"), "odd".into())] });
        assert_eq!(names(&store), ["shop/a"]);
        let problems = store.problems();
        assert_eq!(&*problems[0].origin.place, "Service/shop/a");
        assert!(problems[0].what.contains("odd") && problems.len() == 1);
        take(&mut keeper, News::Put(service("shop", "a", "2")));
        assert!(store.problems().is_empty());
    }

    #[test]
    fn a_refusal_says_what_to_grant_until_it_is_granted() {
        let store = store();
        let mut keeper = keeper(&store, Some("shop"));
        take(&mut keeper, News::Refused("services is forbidden".into()));
        assert!(!store.missing.borrow().is_empty());
        let problem = store.problems().remove(0);
        assert!(problem.what.contains("services in namespace shop: services is forbidden"), "{problem}");
        assert!(problem.hint.contains("list and watch on services by a Role in namespace shop"), "{problem}");
        take(&mut keeper, list(vec![]));
        assert!(store.problems().is_empty() && store.missing.borrow().is_empty());
    }
}
