//! Who belongs to the clusters whose endpoints come by the fast road?
//!
//! What was said last about a cluster is kept, so that one that appears later, or is made anew by a compile, has its members
//! before it serves.

use crate::model::EndpointList;
use crate::source::Memberships;
use crate::source::memberships::Change;
use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::Arc;

/// The endpoints of clusters by name, as their source said last.
#[derive(Default)]
pub(super) struct Members {
    source: Option<Memberships>,
    last: HashMap<Arc<str>, EndpointList>,
}

impl Members {
    /// Those that are said here.
    pub(super) fn of(source: Memberships) -> Self {
        Self { source: Some(source), last: HashMap::new() }
    }

    /// What is new since the last call; what was only said once more is not.
    pub(super) fn take(&mut self) -> BTreeMap<Arc<str>, Change> {
        let mut said = self.source.as_ref().map(Memberships::take).unwrap_or_default();
        said.retain(|name, endpoints| match endpoints {
            Some(endpoints) => {
                let new = self.last.get(name) != Some(endpoints);
                if new {
                    self.last.insert(Arc::clone(name), endpoints.clone());
                }
                new
            }
            None => self.last.remove(name).is_some(),
        });
        said
    }

    /// Whether its source speaks for a cluster; where it does not, the model does.
    pub(super) fn have(&self, cluster: &str) -> bool {
        self.last.contains_key(cluster)
    }

    /// What was said last about a cluster.
    pub(super) fn get(&self, cluster: &str) -> Option<&EndpointList> {
        self.last.get(cluster)
    }

    /// Waits until something was said.
    pub(super) async fn changed(&self) {
        match &self.source {
            Some(source) => source.changed().await,
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EndpointSpec;

    fn endpoint(port: u16) -> EndpointSpec {
        EndpointSpec::new(([10, 0, 0, 1], port).into(), 1)
    }

    #[test]
    fn what_is_said_again_is_no_change() {
        let source = Memberships::default();
        let mut members = Members::of(source.clone());
        source.set("shop/web", vec![endpoint(1)]);
        assert_eq!(members.take().len(), 1);
        source.set("shop/web", vec![endpoint(1)]);
        source.remove("shop/api");
        assert!(members.take().is_empty());
        source.remove("shop/web");
        assert_eq!(members.take()["shop/web"], None);
    }
}
