//! What is in a Lease, and how does this gate keep its own and learn of others?
//!
//! Two kinds: `tidegate-leader`, held by the one gate that writes for all, and `tidegate-gate-NODE`, by which each gate says that
//! it lives, whether it is ready and at which addresses. Deciding is pure (`election`, `presence`, `gates`); `keeper` asks.

pub(super) mod election;
pub(super) mod gates;
pub(super) mod keeper;
pub(super) mod presence;

use super::calls::timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How long a Lease holds without being renewed.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed.
pub(super) const RENEW: Duration = Duration::from_secs(5);
/// The Lease of the gate that writes for all.
pub(super) const LEADER: &str = "tidegate-leader";
/// Label of the Leases by which gates say that they live.
pub(super) const GATE_LABEL: &str = "tidegate.io/gate";
const ADDRESSES: &str = "tidegate.io/addresses";
const READY: &str = "tidegate.io/ready";

/// What is read of a Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    /// resourceVersion: makes a patch conditional.
    pub(super) version: String,
    /// Empty: nobody.
    pub(super) holder: String,
    pub(super) duration: Duration,
    pub(super) transitions: i64,
    /// Only compared with itself, never with a clock.
    pub(super) renewed: String,
    pub(super) annotations: BTreeMap<String, String>,
}

impl Record {
    /// What changes whenever its holder is alive.
    pub(super) fn pulse(&self) -> (&str, &str, i64) {
        (&self.holder, &self.renewed, self.transitions)
    }

    /// Whether the gate that holds it says that it is ready.
    pub(super) fn is_ready(&self) -> bool {
        self.annotations.get(READY).is_some_and(|ready| ready == "true")
    }

    /// The addresses that the gate says it is reached at, divided by commas.
    pub(super) fn addresses(&self) -> &str {
        self.annotations.get(ADDRESSES).map_or("", String::as_str)
    }

    /// The same, those that are addresses.
    pub(super) fn read_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses().split(',').filter_map(|address| address.trim().parse().ok())
    }
}

/// A Lease as the API writes it. Anybody may write to one: what makes no sense in it counts as absent, because otherwise one
/// Lease would hide all others of its list.
#[derive(Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
pub(super) struct Wire {
    metadata: WireMeta,
    #[serde(deserialize_with = "or_absent")]
    spec: WireSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireMeta {
    name: String,
    resource_version: String,
    #[serde(deserialize_with = "or_absent")]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireSpec {
    #[serde(deserialize_with = "or_absent")]
    holder_identity: Option<String>,
    #[serde(deserialize_with = "or_absent")]
    lease_duration_seconds: Option<u16>,
    #[serde(deserialize_with = "or_absent")]
    lease_transitions: Option<i32>,
    #[serde(deserialize_with = "or_absent")]
    renew_time: Option<String>,
}

/// What a field holds; as if it were not there where it holds something else.
fn or_absent<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(field: D) -> Result<T, D::Error> {
    Value::deserialize(field).map(|value| serde_json::from_value(value).unwrap_or_default())
}

/// A list of Leases as the API writes it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct WireList {
    #[serde(default)]
    pub(super) items: Vec<Wire>,
}

impl From<Wire> for Record {
    fn from(wire: Wire) -> Self {
        let duration = wire.spec.lease_duration_seconds.map_or(DURATION, |s| Duration::from_secs(s.into()));
        Self {
            name: wire.metadata.name,
            version: wire.metadata.resource_version,
            holder: wire.spec.holder_identity.unwrap_or_default(),
            duration,
            transitions: wire.spec.lease_transitions.unwrap_or_default().into(),
            renewed: wire.spec.renew_time.unwrap_or_default(),
            annotations: wire.metadata.annotations,
        }
    }
}

/// The path of all Leases of a namespace.
pub(super) fn collection(namespace: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
}

/// A spec that says: held from now on.
fn held_spec(holder: &str) -> Fields {
    [
        ("holderIdentity".to_owned(), holder.into()),
        ("leaseDurationSeconds".to_owned(), DURATION.as_secs().into()),
        ("renewTime".to_owned(), timestamp().into()),
    ]
    .into_iter()
    .collect()
}

/// A new Lease.
fn new_lease(name: &str, mut metadata: Fields, spec: Fields) -> Value {
    metadata.insert("name".into(), name.into());
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec})
}

/// A patch on the condition that the Lease is still of that version.
fn conditional(version: &str, mut metadata: Fields, spec: Fields) -> Value {
    metadata.insert("resourceVersion".into(), version.into());
    json!({"metadata": metadata, "spec": spec})
}

/// Fields of a JSON object.
type Fields = serde_json::Map<String, Value>;

/// Somewhere between four fifths of it and all of it, so that gates which started together do not stay together.
fn jittered(time: Duration) -> Duration {
    let fifth = u64::try_from(time.as_millis()).unwrap_or(u64::MAX) / 5;
    time.saturating_sub(Duration::from_millis(crate::message::random::below(fifth)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_odd_lease_does_not_hide_the_others_and_what_is_odd_of_it_counts_as_absent() {
        let list = json!({"items": [
            {"metadata": {"name": "a", "annotations": null},
             "spec": {"leaseDurationSeconds": 100_000, "holderIdentity": "x", "leaseTransitions": "many"}},
            {"metadata": {"name": "b", "annotations": {READY: "true"}}, "spec": {"leaseDurationSeconds": -1}},
            {"metadata": {"name": "c"}, "spec": {"leaseDurationSeconds": 40, "leaseTransitions": 7}},
            {"metadata": {"name": "d"}, "spec": null},
        ]});
        let list: WireList = serde_json::from_value(list).unwrap();
        let records: Vec<Record> = list.items.into_iter().map(Record::from).collect();
        let read: Vec<_> = records.iter().map(|r| (&*r.name, r.duration.as_secs(), r.transitions)).collect();
        assert_eq!(read, [("a", 15, 0), ("b", 15, 0), ("c", 40, 7), ("d", 15, 0)]);
        assert_eq!((&*records[0].holder, records[1].is_ready()), ("x", true));
    }
}
