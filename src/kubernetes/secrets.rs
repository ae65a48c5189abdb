//! Which Secrets are known: those that the last translation asked for, each by a watch of its own?

use super::desk::{Desk, count};
use super::objects::{Key, Secret, SecretState, WantedSecrets};
use super::store::{Change, Store};
use super::watch::{self, News, Sink, Watch};
use crate::lifecycle::{Task, Tasks};
use crate::telemetry::{Registry, families};
use k8s_openapi::api::core::v1 as core;
use kube::Api;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// The watches that run.
pub(super) struct Secrets {
    store: Rc<Store>,
    shared: Rc<watch::Shared>,
    tasks: Tasks,
    registry: Registry,
    running: BTreeMap<Key, (Task, Desk)>,
    followed: Arc<WantedSecrets>,
}

impl Secrets {
    /// None yet.
    pub(super) fn new(store: &Rc<Store>, shared: &Rc<watch::Shared>, tasks: &Tasks, registry: &Registry) -> Self {
        let (store, shared) = (Rc::clone(store), Rc::clone(shared));
        Self {
            store,
            shared,
            tasks: tasks.clone(),
            registry: registry.clone(),
            running: BTreeMap::new(),
            followed: Arc::default(),
        }
    }

    /// Follows these and no others.
    pub(super) fn follow(&mut self, wanted: &Arc<WantedSecrets>) {
        if Arc::ptr_eq(wanted, &self.followed) {
            return;
        }
        self.followed = Arc::clone(wanted);
        let unwanted: Vec<Key> = self.running.keys().filter(|key| !wanted.contains(*key)).cloned().collect();
        for key in unwanted {
            self.store.objects.borrow_mut().secrets.remove(&key);
            if let Some((_, desk)) = self.running.remove(&key) {
                self.store.keep_problems(&desk.name, &BTreeSet::new());
            }
        }
        for key in &**wanted {
            if !self.running.contains_key(key) {
                self.store.objects.borrow_mut().secrets.insert(key.clone(), SecretState::Unknown);
                self.running.insert(key.clone(), self.start(key));
            }
        }
        self.registry.gauge(&families::KUBERNETES_OBJECTS, &[("kind", "Secret")]).set(count(self.running.len()));
    }

    /// Whether something is known of each that is followed.
    pub(super) fn known(&self) -> bool {
        let objects = self.store.objects.borrow();
        !objects.secrets.values().any(|state| matches!(state, SecretState::Unknown))
    }

    fn start(&self, key: &Key) -> (Task, Desk) {
        let resource = "secrets";
        let mut desk = Desk::new(&self.store, ("Secret", resource), Some(Arc::clone(&key.namespace)), &self.registry);
        desk.name = format!("secret {key}").into();
        let namespace = Arc::clone(&key.namespace);
        let watch: Watch<core::Secret> = Watch {
            resource,
            api: Box::new(move |client| Api::namespaced(client, &namespace)),
            labels: None,
            fields: Some(format!("metadata.name={}", key.name)),
            restarts: desk.restarts(&self.registry),
        };
        let keeper = SecretKeeper { desk: desk.clone(), key: key.clone() };
        let future = watch::follow(watch, Rc::clone(&self.shared), keeper);
        (self.tasks.spawn_local(format!("watch of secret {key}"), future), desk)
    }
}

/// Keeps one Secret.
struct SecretKeeper {
    desk: Desk,
    key: Key,
}

impl SecretKeeper {
    fn set(&self, state: SecretState) {
        let mut objects = self.desk.store.objects.borrow_mut();
        // Not there: no longer wanted.
        let Some(known) = objects.secrets.get_mut(&self.key) else { return };
        if *known != state {
            *known = state;
            drop(objects);
            self.desk.store.tell(Change::Wish);
        }
    }

    fn present(&self) -> bool {
        matches!(self.desk.store.objects.borrow().secrets.get(&self.key), Some(SecretState::Present(_)))
    }
}

impl Sink<core::Secret> for SecretKeeper {
    type Object = Secret;

    fn read(&mut self, object: core::Secret) -> Secret {
        object.into()
    }

    fn take(&mut self, news: News<Secret>) {
        match news {
            News::Listed { all, unreadable } => {
                match all.into_iter().find(|secret| secret.meta.key == self.key) {
                    Some(secret) => self.set(SecretState::Present(Arc::new(secret))),
                    None if unreadable.is_empty() || !self.present() => self.set(SecretState::Absent),
                    None => {}
                }
                self.desk.listed(&unreadable);
            }
            News::Put(secret) => {
                self.desk.readable(&self.key);
                self.set(SecretState::Present(Arc::new(secret)));
            }
            News::Gone(_) => {
                self.desk.readable(&self.key);
                self.set(SecretState::Absent);
            }
            News::Unreadable(key, why) => self.desk.unreadable(&key, &why),
            // What was read before keeps serving; that it may be old by now is a problem all the same.
            News::Refused(words) if self.present() => self.desk.refused(&words),
            News::Refused(words) => self.set(SecretState::Forbidden(words)),
            News::Pause => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kubernetes::Settings;
    use crate::source::Memberships;

    fn keeper() -> SecretKeeper {
        let store = Rc::new(Store::new(&Settings::default(), Memberships::default()));
        let key = Key::new("edge", "cert");
        store.objects.borrow_mut().secrets.insert(key.clone(), SecretState::Unknown);
        let desk = Desk::new(&store, ("Secret", "secrets"), Some("edge".into()), &Registry::new(1, 10));
        SecretKeeper { desk, key }
    }

    fn state(keeper: &SecretKeeper) -> &'static str {
        match keeper.desk.store.objects.borrow().secrets.get(&keeper.key) {
            None => "unwanted",
            Some(SecretState::Unknown) => "unknown",
            Some(SecretState::Absent) => "absent",
            Some(SecretState::Forbidden(_)) => "forbidden",
            Some(SecretState::Present(_)) => "present",
        }
    }

    fn secret() -> Secret {
        let mut secret = Secret::default();
        secret.meta.key = Key::new("edge", "cert");
        secret
    }

    fn list(all: Vec<Secret>) -> News<Secret> {
        News::Listed { all, unreadable: vec![] }
    }

    #[test]
    fn a_secret_is_unknown_then_absent_or_present_as_the_api_server_says() {
        let mut keeper = keeper();
        assert_eq!(state(&keeper), "unknown");
        for (news, then) in [
            (list(vec![]), "absent"),
            (News::Put(secret()), "present"),
            (News::Gone(secret().meta.key), "absent"),
            (News::Refused("no".into()), "forbidden"),
            (list(vec![secret()]), "present"),
        ] {
            keeper.take(news);
            assert_eq!(state(&keeper), then);
        }
    }

    #[test]
    fn what_was_read_is_kept_where_it_can_no_longer_be_read_and_that_is_a_problem() {
        let mut keeper = keeper();
        keeper.take(list(vec![secret()]));
        keeper.take(News::Refused("no".into()));
        assert_eq!((state(&keeper), keeper.desk.store.problems().len()), ("present", 1));
        keeper.take(list(vec![secret()]));
        assert!(keeper.desk.store.problems().is_empty());
        keeper.take(News::Listed { all: vec![], unreadable: vec![(secret().meta.key, "odd".into())] });
        assert_eq!((state(&keeper), keeper.desk.store.problems().len()), ("present", 1));
    }

    #[test]
    fn late_news_of_a_secret_that_nobody_wants_any_more_changes_nothing() {
        let mut keeper = keeper();
        keeper.desk.store.objects.borrow_mut().secrets.clear();
        keeper.take(News::Put(secret()));
        assert_eq!(state(&keeper), "unwanted");
    }
}
