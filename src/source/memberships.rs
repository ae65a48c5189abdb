//! Who answers for each cluster right now, where that changes too often for a fragment?
//!
//! The fast road: a source says which endpoints a cluster has, and the publisher hands them to the cluster without merging or
//! compiling anything. What is said twice before the publisher looks counts once, in its last version.

use crate::model::EndpointList;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// The endpoints of clusters by name, between one source and the publisher. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Memberships(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    changes: Mutex<BTreeMap<Arc<str>, Change>>,
    changed: Notify,
}

/// The endpoints of a cluster, which whoever keeps them shares: all are said at once when a gate starts, and an allocator gives no peak
/// back. `None`: its source no longer speaks for it.
pub type Change = Option<EndpointList>;

impl Memberships {
    /// Says who belongs to a cluster; it may be one that no fragment has yet.
    pub fn set(&self, cluster: impl Into<Arc<str>>, endpoints: impl Into<EndpointList>) {
        self.say(cluster.into(), Some(endpoints.into()));
    }

    /// Says that this source no longer speaks for a cluster.
    pub fn remove(&self, cluster: &str) {
        self.say(cluster.into(), None);
    }

    /// What was said since the last call.
    pub fn take(&self) -> BTreeMap<Arc<str>, Change> {
        std::mem::take(&mut *self.0.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something was said; at once where that was since the last wait.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn say(&self, cluster: Arc<str>, change: Change) {
        self.0.changes.lock().unwrap_or_else(PoisonError::into_inner).insert(cluster, change);
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EndpointSpec;

    #[tokio::test]
    async fn only_the_last_word_about_a_cluster_counts() {
        let said = Memberships::default();
        let one: EndpointSpec = EndpointSpec::new(([10, 0, 0, 1], 80).into(), 1);
        said.set("shop/web", vec![]);
        said.clone().set("shop/web", vec![one.clone()]);
        said.set("shop/api", vec![one]);
        said.remove("shop/api");
        said.changed().await;
        let taken = said.take();
        assert_eq!(taken["shop/web"].as_ref().map(EndpointList::len), Some(1));
        assert_eq!(taken["shop/api"], None);
        assert!(said.take().is_empty());
    }
}
