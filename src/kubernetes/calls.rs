//! How is the API server asked to write and to delete? Thinly: a path and JSON in, what matters of the answer out.
//!
//! Writes are JSON merge patches of exactly the fields that are ours, by the field manager `tidegate`. Server-side apply would
//! give the same and more than is wanted: it needs `force` as soon as another manager has touched a field, takes away fields that
//! one apply leaves out, and lets an apply of something that is gone create it anew (and ask for the right to). A merge patch of
//! what does not exist is refused, and `resourceVersion` or `uid` in it makes it conditional.

use super::client::Connection;
use crate::telemetry::{Counter, Registry, families};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::timeout;

/// A time as the API writes it, and the time between two.
pub(super) use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// How long one answer may take; below the time for which a lease holds, so that one lost request costs no leadership.
const PATIENCE: Duration = Duration::from_secs(4);
/// What writes to the fields of an object, as the API server notes it.
const MANAGER: &str = "tidegate";
/// Of a written object only its metadata come back: a ConfigMap may hold a megabyte.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// A kind of object that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Lease,
    Ingress,
    Event,
    ConfigMap,
}

/// Why nothing was written, or nothing could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another version is there, or another object of that name.
    Conflict,
    /// It is not there.
    Absent,
    /// It may not be done.
    Forbidden,
    /// Its namespace is being deleted, in which nothing can be made any more.
    Ending,
    /// Anything else, silence among it; whether it was done is unknown.
    Failed,
}

/// What is known of an object after it was written.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Written {
    pub(super) metadata: WrittenMeta,
}

/// See [`Written`].
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WrittenMeta {
    pub(super) resource_version: String,
}

/// Asks the API server, and counts.
pub(super) struct Calls {
    connection: Rc<Connection>,
    counts: [Counts; 4],
}

struct Counts {
    written: Counter,
    failed: Counter,
    told: Cell<bool>,
}

impl Calls {
    pub(super) fn new(connection: Rc<Connection>, registry: &Registry) -> Self {
        let counts = |kind: Kind| Counts {
            written: registry.counter(&families::KUBERNETES_WRITES, &[("kind", kind.as_str())]),
            failed: registry.counter(&families::KUBERNETES_WRITE_FAILURES, &[("kind", kind.as_str())]),
            told: Cell::new(false),
        };
        Self { connection, counts: Kind::ALL.map(counts) }
    }

    pub(super) async fn read<T: DeserializeOwned>(&self, kind: Kind, path: &str) -> Result<T, Refusal> {
        let request = http::Request::get(path).header("accept", "application/json");
        self.ask(kind, request, Vec::new()).await
    }

    /// Makes an object below a collection's path.
    pub(super) async fn create<T: DeserializeOwned>(&self, kind: Kind, path: &str, body: &Value) -> Result<T, Refusal> {
        let request = http::Request::post(format!("{path}?fieldManager={MANAGER}"))
            .header("accept", kind.accept())
            .header("content-type", "application/json");
        self.counted(kind, self.ask(kind, request, body.to_string().into_bytes()).await)
    }

    /// Changes an object; `body` is a merge patch.
    pub(super) async fn patch<T: DeserializeOwned>(&self, kind: Kind, path: &str, body: &Value) -> Result<T, Refusal> {
        let request = http::Request::patch(format!("{path}?fieldManager={MANAGER}"))
            .header("accept", kind.accept())
            .header("content-type", "application/merge-patch+json");
        self.counted(kind, self.ask(kind, request, body.to_string().into_bytes()).await)
    }

    /// Deletes an object that is still of this version.
    pub(super) async fn delete(&self, kind: Kind, path: &str, version: &str) -> Result<(), Refusal> {
        let request = http::Request::delete(path).header("accept", METADATA).header("content-type", "application/json");
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": version}});
        let answer = self.ask::<IgnoredAny>(kind, request, body.to_string().into_bytes()).await;
        self.counted(kind, answer.map(drop))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        kind: Kind,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<T, Refusal> {
        let request = request.body(body).map_err(|error| {
            tracing::error!(%error, %kind, "a request could not be made");
            Refusal::Failed
        })?;
        let answer = timeout(PATIENCE, self.connection.client().request::<T>(request)).await;
        let error = match answer {
            Ok(Ok(object)) => return Ok(object),
            Ok(Err(error)) => error,
            Err(_) => {
                tracing::debug!(%kind, "the API server did not answer in time");
                return Err(Refusal::Failed);
            }
        };
        if matches!(&error, kube::Error::Api(status) if status.code == 401) {
            self.connection.renew().await;
        }
        Err(self.refusal(kind, &error))
    }

    fn refusal(&self, kind: Kind, error: &kube::Error) -> Refusal {
        let code = if let kube::Error::Api(status) = error { status.code } else { 0 };
        match code {
            403 if is_ending(error) => {
                tracing::debug!(%error, %kind, "its namespace is being deleted");
                return Refusal::Ending;
            }
            404 => return Refusal::Absent,
            409 => return Refusal::Conflict,
            403 => {
                // Once: it is asked again for as long as the process lives, because the permission may come.
                if !self.counts(kind).told.replace(true) {
                    tracing::warn!(%error, %kind, "no permission: see the roles in deploy/");
                }
                return Refusal::Forbidden;
            }
            400 | 422 => tracing::warn!(%error, %kind, "the API server takes it for wrong"),
            _ => tracing::debug!(%error, %kind, "the API server could not be asked"),
        }
        Refusal::Failed
    }

    fn counted<T>(&self, kind: Kind, answer: Result<T, Refusal>) -> Result<T, Refusal> {
        match &answer {
            Ok(_) => self.counts(kind).written.add(1),
            Err(Refusal::Conflict | Refusal::Absent | Refusal::Ending) => {}
            Err(Refusal::Forbidden | Refusal::Failed) => self.counts(kind).failed.add(1),
        }
        answer
    }

    fn counts(&self, kind: Kind) -> &Counts {
        let [lease, ingress, event, config_map] = &self.counts;
        match kind {
            Kind::Lease => lease,
            Kind::Ingress => ingress,
            Kind::Event => event,
            Kind::ConfigMap => config_map,
        }
    }
}

impl Kind {
    /// In the order of [`Calls::counts`].
    const ALL: [Self; 4] = [Self::Lease, Self::Ingress, Self::Event, Self::ConfigMap];

    fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Ingress => "ingress",
            Self::Event => "event",
            Self::ConfigMap => "configmap",
        }
    }

    fn accept(self) -> &'static str {
        if self == Self::Lease { "application/json" } else { METADATA }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether it is refused because of the end of its namespace: the API server says that as if a permission were missing, and only the
/// cause tells.
fn is_ending(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// The time as the API writes it, to the microsecond. For readers only: nothing here is decided by anybody's calendar.
pub(super) fn timestamp() -> String {
    format!("{:.6}", Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::client::Body;
    use std::convert::Infallible;

    fn refused(cause: &str) -> kube::Error {
        let details = serde_json::json!({"causes": [{"reason": cause, "message": "says so"}]});
        let status = serde_json::json!({"status": "Failure", "reason": "Forbidden", "code": 403, "details": details});
        kube::Error::Api(serde_json::from_value::<Box<kube::core::Status>>(status).unwrap())
    }

    #[tokio::test]
    async fn that_a_namespace_is_being_deleted_is_no_missing_permission() {
        let nobody = tower::service_fn(|_: http::Request<Body>| async {
            Ok::<_, Infallible>(http::Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
        });
        let registry = Registry::new(1, 100);
        let connection = Connection::of(kube::Client::new(nobody, "edge"), &registry);
        let calls = Calls::new(Rc::new(connection), &registry);
        let told = || calls.counts(Kind::Event).told.get();
        assert_eq!(calls.refusal(Kind::Event, &refused("NamespaceTerminating")), Refusal::Ending);
        assert!(!told(), "a permission that is missing later is still told");
        assert_eq!(calls.refusal(Kind::Event, &refused("")), Refusal::Forbidden);
        assert!(told());
    }
}
