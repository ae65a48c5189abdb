//! Which addresses does each Ingress of ours carry in its status, and which of them have to be written?
//!
//! An Ingress that is not of our class any more is emptied once, if it was ours while this process ran and still carries addresses
//! of gates alone: whoever else has written to it by then keeps it.

use super::pace::Attempts;
use crate::kubernetes::lease::gates::Standing;
use crate::kubernetes::objects::{Ingress, Key, Name, Objects};
use crate::kubernetes::translate::{Became, Translation};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::time::Instant;

/// What this gate knows of Ingresses beyond what is watched.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    /// Ingresses that were of our class while this process ran, and their uid.
    ours: BTreeMap<Key, Arc<str>>,
    attempts: Attempts<BTreeSet<IpAddr>>,
}

/// A status to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: Key,
    uid: Arc<str>,
    addresses: BTreeSet<IpAddr>,
}

impl Statuses {
    /// What there is to write now, `most` of it. It counts as written.
    pub(super) fn plan(
        &mut self,
        (objects, translation): (&Objects, &Translation),
        gates: &Standing,
        now: Instant,
        most: usize,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for Became { object, .. } in translation.ingresses.iter() {
            let key = &object.key;
            let Some(ingress) = objects.ingresses.get(key).filter(|i| i.meta.uid == object.uid) else { continue };
            if self.ours.get(key).is_none_or(|uid| *uid != ingress.meta.uid) {
                self.ours.insert(key.clone(), ingress.meta.uid.clone());
            }
            // Gates without addresses have nothing to say, and do not take away what somebody else said.
            if changes.len() < most && !gates.all.is_empty() {
                changes.extend(self.change(ingress, wanted(ingress, gates), now));
            }
        }
        changes.extend(self.given_up(objects, translation, gates, now));
        changes
    }

    /// Ingresses that are ours no longer.
    fn given_up(
        &mut self,
        objects: &Objects,
        translation: &Translation,
        gates: &Standing,
        now: Instant,
    ) -> Vec<Change> {
        let gone: Vec<(Key, Arc<str>)> =
            self.ours.extract_if(.., |key, _| !translation.ingresses.contains_key(key)).collect();
        let mut changes = Vec::new();
        for (key, uid) in gone {
            let Some(ingress) = objects.ingresses.get(&key).filter(|i| i.meta.uid == uid) else { continue };
            if parsed(ingress).is_some_and(|there| there.is_subset(&gates.all)) {
                changes.extend(self.change(ingress, BTreeSet::new(), now));
            }
        }
        self.attempts.retain(|key| objects.ingresses.contains_key(key));
        changes
    }

    fn change(&mut self, ingress: &Ingress, wanted: BTreeSet<IpAddr>, now: Instant) -> Option<Change> {
        let key = &ingress.meta.key;
        if parsed(ingress).is_some_and(|there| there == wanted) || !self.attempts.may(key, &wanted, now) {
            return None;
        }
        self.attempts.note(key, wanted.clone(), now);
        Some(Change { key: key.clone(), uid: ingress.meta.uid.clone(), addresses: wanted })
    }
}

impl Change {
    /// Path of the status.
    pub(super) fn path(&self) -> String {
        let Name { namespace, name } = &*self.key;
        format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/{name}/status")
    }

    /// The patch, on the condition that it is still the same object.
    pub(super) fn body(&self) -> Value {
        let addresses: Vec<Value> = self.addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        let addresses = if addresses.is_empty() { Value::Null } else { addresses.into() };
        json!({"metadata": {"uid": &*self.uid}, "status": {"loadBalancer": {"ingress": addresses}}})
    }
}

/// Every gate that is alive, and of those in doubt the ones that are there already.
fn wanted(ingress: &Ingress, gates: &Standing) -> BTreeSet<IpAddr> {
    let doubtful = ingress.addresses.iter().filter_map(|a| a.parse().ok()).filter(|a| gates.doubtful.contains(a));
    gates.live.iter().copied().chain(doubtful).collect()
}

/// What is there now; `None`: something that is no address, which no gate wrote.
fn parsed(ingress: &Ingress) -> Option<BTreeSet<IpAddr>> {
    ingress.addresses.iter().map(|address| address.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::objects::Meta;
    use std::time::Duration;

    fn cluster(ingresses: &[(&str, bool, &[&str])]) -> (Objects, Translation) {
        let (mut objects, mut translation) = (Objects::default(), Translation::default());
        for (name, ours, addresses) in ingresses {
            let key = Key::new("shop", *name);
            let meta = Arc::new(Meta { key: key.clone(), uid: "u".into(), ..Meta::default() });
            let addresses = addresses.iter().map(|a| Box::from(*a)).collect();
            objects
                .ingresses
                .insert(key.clone(), Arc::new(Ingress { meta: Arc::clone(&meta), addresses, ..Ingress::default() }));
            if *ours {
                translation.ingresses.edit(Vec::new(), vec![Became { object: meta, accepted: 0, refused: 0 }]);
            }
        }
        (objects, translation)
    }

    fn gates(live: &[&str], doubtful: &[&str]) -> Standing {
        let set = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<BTreeSet<IpAddr>>();
        let all = set(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        Standing { live: set(live), doubtful: set(doubtful), all }
    }

    fn plan(statuses: &mut Statuses, cluster: &(Objects, Translation), gates: &Standing, now: Instant) -> Vec<Change> {
        statuses.plan((&cluster.0, &cluster.1), gates, now, 100)
    }

    #[test]
    fn only_what_differs_is_written_sorted_and_for_the_same_object() {
        let there = ["2001:db8::1", "192.0.2.1"];
        let cluster = cluster(&[("new", true, &[]), ("same", true, &there), ("other", false, &[])]);
        let gates = gates(&["2001:db8::1", "192.0.2.1"], &[]);
        let changes = plan(&mut Statuses::default(), &cluster, &gates, Instant::now());
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].path(), "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/new/status");
        let body = changes[0].body();
        assert_eq!(body["status"]["loadBalancer"]["ingress"], json!([{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}]));
        assert_eq!(body["metadata"]["uid"], "u");
    }

    #[test]
    fn a_gate_that_goes_is_taken_back_and_the_last_one_leaves_nothing() {
        let cluster = cluster(&[("web", true, &["192.0.2.1", "192.0.2.2"])]);
        let (mut statuses, now) = (Statuses::default(), Instant::now());
        let changes = plan(&mut statuses, &cluster, &gates(&["192.0.2.2"], &[]), now);
        assert_eq!(changes[0].body()["status"]["loadBalancer"]["ingress"], json!([{"ip": "192.0.2.2"}]));
        let changes = plan(&mut statuses, &cluster, &gates(&[], &[]), now);
        assert_eq!(changes[0].body()["status"]["loadBalancer"]["ingress"], Value::Null);
    }

    #[test]
    fn a_new_leader_neither_adds_nor_removes_gates_in_doubt() {
        let cluster = cluster(&[("web", true, &["192.0.2.1"])]);
        let in_doubt = gates(&[], &["192.0.2.1", "192.0.2.2"]);
        assert_eq!(plan(&mut Statuses::default(), &cluster, &in_doubt, Instant::now()), []);
    }

    #[test]
    fn gates_without_addresses_leave_every_status_alone() {
        let cluster = cluster(&[("web", true, &["198.51.100.7"])]);
        assert_eq!(plan(&mut Statuses::default(), &cluster, &Standing::default(), Instant::now()), []);
    }

    #[test]
    fn an_ingress_that_was_ours_is_emptied_once_and_one_that_never_was_is_not() {
        let (mut statuses, now) = (Statuses::default(), Instant::now());
        let live = gates(&["192.0.2.1"], &[]);
        let there: &[&str] = &["192.0.2.1"];
        plan(&mut statuses, &cluster(&[("was", true, there), ("never", false, there)]), &live, now);
        let after = cluster(&[("was", false, there), ("never", false, there)]);
        let changes = plan(&mut statuses, &after, &live, now);
        assert_eq!(changes.iter().map(|c| &*c.key.name).collect::<Vec<_>>(), ["was"]);
        assert_eq!(plan(&mut statuses, &after, &live, now + Duration::from_secs(60)), []);
    }

    #[test]
    fn what_another_controller_has_written_since_is_left_alone() {
        let (mut statuses, now) = (Statuses::default(), Instant::now());
        let live = gates(&["192.0.2.1"], &[]);
        plan(&mut statuses, &cluster(&[("a", true, &["192.0.2.1"]), ("b", true, &["192.0.2.1"])]), &live, now);
        let after = cluster(&[("a", false, &["198.51.100.7"]), ("b", false, &["lb.example.com"])]);
        assert_eq!(plan(&mut statuses, &after, &live, now), []);
    }

    #[test]
    fn what_the_watch_does_not_show_yet_is_not_written_twice_and_a_fight_is_slow() {
        let (mut statuses, start) = (Statuses::default(), Instant::now());
        let cluster = cluster(&[("web", true, &["198.51.100.7"])]);
        let live = gates(&["192.0.2.1"], &[]);
        let mut writes = 0;
        for tenth in 0..6_000 {
            writes += plan(&mut statuses, &cluster, &live, start + Duration::from_millis(100 * tenth)).len();
        }
        assert!((5..=10).contains(&writes), "{writes} in ten minutes");
    }

    #[test]
    fn no_more_is_planned_than_is_asked_for() {
        let names: Vec<String> = (0..50).map(|n| format!("web-{n}")).collect();
        let all: Vec<(&str, bool, &[&str])> = names.iter().map(|name| (name.as_str(), true, &[][..])).collect();
        let (objects, translation) = cluster(&all);
        let (mut statuses, live, now) = (Statuses::default(), gates(&["192.0.2.1"], &[]), Instant::now());
        let mut rounds = Vec::new();
        for _ in 0..4 {
            rounds.push(statuses.plan((&objects, &translation), &live, now, 20).len());
        }
        assert_eq!(rounds, [20, 20, 10, 0]);
    }
}
