//! Who asked the API server for what, and what was the answer?

use super::cluster::Cluster;
use serde_json::Value;

/// One request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub verb: String,
    /// With the API group where there is one, and the subresource: `ingresses.networking.k8s.io/status`.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    /// As the request named it, with its query.
    pub uri: String,
    pub code: u16,
}

impl Cluster {
    /// What a user asked so far, such as `system:serviceaccount:shop:tidegate`. A watch stands there twice: when it was granted,
    /// and when it ended.
    pub fn audit(&self, user: &str) -> Vec<Record> {
        let log = std::fs::read_to_string(self.control_plane.audit_log()).unwrap_or_default();
        // The last line may be half written.
        let records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter(|record| record["user"]["username"] == user).map(|record| read(&record)).collect()
    }
}

fn read(record: &Value) -> Record {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &record["objectRef"];
    let mut resource = text(&object["resource"]);
    if let Some(group) = object["apiGroup"].as_str() {
        resource = format!("{resource}.{group}");
    }
    if let Some(part) = object["subresource"].as_str() {
        resource = format!("{resource}/{part}");
    }
    Record {
        verb: text(&record["verb"]),
        resource,
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        uri: text(&record["requestURI"]),
        code: record["responseStatus"]["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or_default(),
    }
}
