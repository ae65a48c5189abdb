//! How is a fragment held, so that a copy of it costs next to nothing and a change of it tells what has changed?

use super::{CertificateSpec, ClusterSpec, Fragment, Keyed, ListenerSpec, Origin, RouteSpec, Sorted, TlsBinding};
use std::cmp::Ordering;
use std::fmt::Debug;
use std::sync::Arc;

/// A [`Fragment`] as it is delivered, and what all of them are merged to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Listeners.
    pub listeners: Arc<[ListenerSpec]>,
    /// Routes by name; of one name there may be several until they are merged.
    pub routes: Sorted<Arc<RouteSpec>>,
    /// Which certificates serve which host names.
    pub tls: Arc<[TlsBinding]>,
    /// Certificates by name; of one name there may be several until they are merged.
    pub certificates: Sorted<Arc<CertificateSpec>>,
    /// Clusters by name; of one name there may be several until they are merged.
    pub clusters: Sorted<Arc<ClusterSpec>>,
}

impl From<Fragment> for Wanted {
    fn from(fragment: Fragment) -> Self {
        Self {
            listeners: fragment.listeners.into(),
            routes: fragment.routes.into(),
            tls: fragment.tls.into(),
            certificates: fragment.certificates.into_iter().map(Arc::new).collect(),
            clusters: fragment.clusters.into(),
        }
    }
}

/// Who wins of those that want one name: the oldest, then the place, then the position in it; the content itself settles what is
/// left.
pub fn older<T: Debug>(origin: fn(&T) -> &Origin, a: &T, b: &T) -> Ordering {
    let (x, y) = (origin(a), origin(b));
    x.created.cmp(&y.created).then_with(|| x.cmp(y)).then_with(|| format!("{a:?}").cmp(&format!("{b:?}")))
}

impl Keyed for Arc<RouteSpec> {
    type Key = str;

    fn key(&self) -> &str {
        &self.name
    }

    fn among(&self, other: &Self) -> Ordering {
        if self.is(other) { Ordering::Equal } else { older(|route| &route.origin, self, other) }
    }

    fn is(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }
}

impl Keyed for Arc<CertificateSpec> {
    type Key = str;

    fn key(&self) -> &str {
        &self.name
    }

    fn among(&self, other: &Self) -> Ordering {
        if self.is(other) { Ordering::Equal } else { older(|certificate| &certificate.origin, self, other) }
    }

    fn is(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }
}

impl Keyed for Arc<ClusterSpec> {
    type Key = str;

    fn key(&self) -> &str {
        &self.name
    }

    fn among(&self, other: &Self) -> Ordering {
        if self.is(other) { Ordering::Equal } else { older(|cluster| &cluster.origin, self, other) }
    }

    fn is(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }
}
