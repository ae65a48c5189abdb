//! What is in a Lease, and how does this gate keep its own and learn of others?
//!
//! Two kinds: `tidegate-leader`, held by the one gate that writes for all, and `tidegate-gate-NODE`, by which each gate says that
//! it lives, whether it is ready and at which addresses. Deciding is pure (`election`, `presence`, `gates`); `keeper` asks.

pub(super) mod election;
pub(super) mod gates;
pub(super) mod keeper;
pub(super) mod presence;

use super::calls::timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
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
}

/// A Lease as the API writes it.
#[derive(Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
pub(super) struct Wire {
    metadata: WireMeta,
    spec: WireSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireMeta {
    name: String,
    resource_version: String,
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireSpec {
    holder_identity: Option<String>,
    /// Whoever may write a Lease may write any number.
    lease_duration_seconds: Option<i64>,
    lease_transitions: Option<i64>,
    renew_time: Option<String>,
}

/// A list of Leases as the API writes it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct WireList {
    #[serde(default)]
    pub(super) items: Vec<Wire>,
}

impl From<Wire> for Record {
    fn from(wire: Wire) -> Self {
        let seconds = wire.spec.lease_duration_seconds.and_then(|seconds| u16::try_from(seconds).ok());
        let duration = seconds.map_or(DURATION, |seconds| Duration::from_secs(seconds.into()));
        Self {
            name: wire.metadata.name,
            version: wire.metadata.resource_version,
            holder: wire.spec.holder_identity.unwrap_or_default(),
            duration,
            transitions: wire.spec.lease_transitions.unwrap_or_default(),
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
    fn a_lease_with_an_odd_duration_is_read_and_counts_as_usual() {
        let lease = |name: &str, seconds: i64| json!({ "metadata": { "name": name }, "spec": { "leaseDurationSeconds": seconds } });
        let list = json!({ "items": [lease("usual", 40), lease("long", 2_000_000_000), lease("none", -1)] });
        let list: WireList = serde_json::from_value(list).unwrap();
        let read: Vec<Duration> = list.items.into_iter().map(|wire| Record::from(wire).duration).collect();
        assert_eq!(read, [Duration::from_secs(40), DURATION, DURATION]);
    }
}
