//! What is a cluster while it serves?

use super::balance::{Members, Turns, Way};
use super::budget::RetryBudget;
use super::endpoint::{Endpoint, EndpointId};
use super::hash::Key;
use super::limits::Queue;
use super::meters::Meters;
use super::outlier::Ward;
use crate::message::{RequestContext, RequestHead};
use crate::model::{BalancePolicy, ClusterSpec, EndpointList, EndpointSpec};
use crate::telemetry::metrics::Registry;
use arc_swap::ArcSwap;
use once_cell::race::OnceBox;
use rustls_pki_types::ServerName;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use thiserror::Error;
use tokio::sync::watch;

/// A named upstream service: who belongs to it, who is well, and who is picked. Shared by all workers.
#[derive(Debug)]
pub struct Cluster {
    spec: Arc<ClusterSpec>,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    /// Asked for and verified; `None` where the name is unusable or there is no TLS.
    pub(crate) server_name: Option<Box<ServerName<'static>>>,
    pub(crate) ward: Arc<Ward>,
    pub(crate) queue: Queue,
    members: ArcSwap<Members>,
    key: Option<Box<Key>>,
    /// Apart, because few clusters have them and they are a kilobyte.
    turns: Option<Box<Turns>>,
    budget: RetryBudget,
    /// Counts changes of membership; its end tells the health checks that the cluster is gone. Made when someone asks for it:
    /// most clusters have no checks, and a channel is a third of a kilobyte.
    changes: OnceBox<watch::Sender<u64>>,
    /// What was said of the endpoints, as long as nobody needed one: `members` is empty until then. Held while they change.
    said: Mutex<Option<EndpointList>>,
}

/// The members of every cluster that has none or has not made them: of thousands, most.
static NOBODY: LazyLock<Arc<Members>> = LazyLock::new(Arc::default);

/// As many endpoints are made with a cluster's first request, which waits for it (a quarter of a millisecond); more of them at once.
const MOST_SAID: usize = 4096;

/// Why there is no endpoint for a request.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PickError {
    /// The cluster has none, or none with a weight.
    #[error("the cluster has no endpoints")]
    NoEndpoints,
    /// Each one that is well was tried.
    #[error("every endpoint was tried")]
    AllTried,
}

impl Cluster {
    /// A cluster with the endpoints of its spec. `tls` must be there where the spec asks for TLS: connecting fails otherwise,
    /// it never falls back to cleartext.
    pub fn new(spec: &ClusterSpec, tls: Option<Arc<rustls::ClientConfig>>, registry: &Registry) -> Arc<Self> {
        Self::of(&Arc::new(spec.clone()), tls, registry)
    }

    /// The same of a spec that others hold too: of thousands, each is there once.
    pub fn of(spec: &Arc<ClusterSpec>, tls: Option<Arc<rustls::ClientConfig>>, registry: &Registry) -> Arc<Self> {
        let ward = Arc::new(Ward::new(Meters::new(registry, spec)));
        let name =
            |tls: &crate::model::UpstreamTlsSpec| ServerName::try_from(tls.server_name.clone()).ok().map(Box::new);
        let key = match &spec.balance {
            BalancePolicy::Hash(key) => Some(Box::new(Key::new(key))),
            _ => None,
        };
        let cluster = Self {
            tls,
            server_name: spec.tls.as_deref().and_then(name),
            queue: Queue::new(spec.max_queue, spec.queue_timeout),
            members: ArcSwap::new(Arc::clone(&NOBODY)),
            key,
            turns: (spec.balance == BalancePolicy::RoundRobin).then(Box::default),
            budget: RetryBudget::new(spec.retry_budget, Arc::clone(&ward)),
            changes: OnceBox::new(),
            said: Mutex::new(Some(EndpointList::default())),
            ward,
            spec: Arc::clone(spec),
        };
        cluster.set_members(&spec.endpoints);
        Arc::new(cluster)
    }

    /// What it was made of. Its endpoints are those of the start: see [`Self::members`].
    pub fn spec(&self) -> &ClusterSpec {
        &self.spec
    }

    /// Its endpoints now, made if they were only said.
    pub fn members(&self) -> arc_swap::Guard<Arc<Members>> {
        self.make();
        self.members.load()
    }

    /// Makes these its endpoints, as [`Self::follow`] does.
    pub fn set_members(&self, specs: &[EndpointSpec]) {
        self.follow(&specs.into());
    }

    /// Makes these its endpoints. One whose address stays keeps its `Arc`, its health and its counts, even if its weight
    /// or nearness changes.
    pub fn follow(&self, endpoints: &EndpointList) {
        let mut said = self.said();
        let counted = match &*said {
            Some(before) if before == endpoints => return,
            Some(before) => Some(before.len()),
            None => None,
        };
        let changed = match counted {
            Some(counted) if self.may_wait(endpoints) => {
                self.ward.meters.joined(endpoints.len(), counted);
                *said = Some(endpoints.clone());
                true
            }
            counted => {
                *said = None;
                self.put(endpoints, counted.unwrap_or(0))
            }
        };
        if let Some(changes) = self.changes.get().filter(|_| changed) {
            changes.send_modify(|n| *n += 1);
        }
    }

    /// What was said of endpoints that are not made yet.
    pub(super) fn said(&self) -> MutexGuard<'_, Option<EndpointList>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether endpoints need not be made before a request does. Most clusters of many never get one.
    fn may_wait(&self, endpoints: &EndpointList) -> bool {
        self.spec.health_check.is_none() && endpoints.len() <= MOST_SAID
    }

    /// Makes the endpoints that were only said until now.
    fn make(&self) {
        let mut said = self.said();
        if let Some(endpoints) = said.take() {
            self.put(&endpoints, endpoints.len());
        }
    }

    /// Has these as members, of which so many that are not made were counted; says whether anything changed.
    fn put(&self, endpoints: &EndpointList, counted: usize) -> bool {
        let before = self.members.load_full();
        let (mut all, mut left, mut joined) = (Vec::new(), Vec::new(), 0);
        let mut old = before.iter().peekable();
        let mut changed = false;
        // They come in order, as those before stand: this looks at each once.
        for spec in endpoints.iter() {
            left.extend(std::iter::from_fn(|| old.next_if(|e| e.address() < spec.address)));
            let stays = old.next_if(|e| e.address() == spec.address);
            changed |= stays.is_none_or(|e| e.weight() != spec.weight || e.near() != spec.near);
            let endpoint = stays.cloned().unwrap_or_else(|| {
                joined += 1;
                self.join(&spec, before.is_empty())
            });
            endpoint.set_share(&spec);
            if spec.weight == 0 {
                // It takes no requests, so it must not count among those put aside.
                self.ward.reinstate(&endpoint);
            }
            all.push(endpoint);
        }
        left.extend(old);
        self.ward.meters.joined(joined, counted);
        if !changed && left.is_empty() {
            return counted > 0;
        }
        let members = Arc::new(Members::new(all, &self.spec.balance));
        self.members.store(Arc::clone(&members));
        self.ward.resize(left.into_iter(), members.open());
        true
    }

    /// A new endpoint. Those of the start are not slowed: they would only be slow together.
    fn join(&self, spec: &EndpointSpec, first: bool) -> Arc<Endpoint> {
        let endpoint = Endpoint::new(spec, Arc::clone(&self.ward));
        if !first && !self.spec.slow_start.is_zero() {
            endpoint.warm_up();
        }
        Arc::new(endpoint)
    }

    /// The endpoint for a request, other than those already tried; `hash` as [`Self::hash`] gave it.
    ///
    /// Only endpoints that are well are picked, unless none is: then all are (panic mode), because verdicts about every endpoint
    /// at once say more about the one who judges. An ejected endpoint whose time is over gets one request as a probe.
    pub fn pick(&self, tried: &[EndpointId], hash: Option<u64>) -> Result<Arc<Endpoint>, PickError> {
        match self.pick_of(&self.members.load(), tried, hash) {
            // They may not be made yet.
            Err(PickError::NoEndpoints) => self.pick_of(&self.members(), tried, hash),
            found => found,
        }
    }

    fn pick_of(&self, members: &Members, tried: &[EndpointId], hash: Option<u64>) -> Result<Arc<Endpoint>, PickError> {
        if let Some(key) = hash.filter(|_| self.key.is_some()) {
            return self.pick_by_key(members, key, tried);
        }
        if self.ward.is_probe_due()
            && let Some(probed) = self.ward.probe(members.open(), |e| !tried.contains(&e.id))
        {
            return Ok(Arc::clone(probed));
        }
        let way = match (&self.spec.balance, &self.turns) {
            (_, Some(turns)) => Way::Turn(turns),
            (BalancePolicy::Random, _) => Way::Random,
            _ => Way::Least,
        };
        members.pick(way, tried, self.spec.slow_start).map(Arc::clone)
    }

    /// An endpoint that is due for a probe gets it from one of its own keys.
    fn pick_by_key(&self, members: &Members, key: u64, tried: &[EndpointId]) -> Result<Arc<Endpoint>, PickError> {
        if self.ward.is_probe_due()
            && let Some(owner) = members.owner(key)
            && !tried.contains(&owner.id)
            && self.ward.try_probe(owner)
        {
            return Ok(Arc::clone(owner));
        }
        members.pick(Way::Key(key), tried, self.spec.slow_start).map(Arc::clone)
    }

    /// The number by which a request finds its endpoint; `None` where the cluster does not hash or the request lacks the key.
    pub fn hash(&self, head: &RequestHead, context: &RequestContext) -> Option<u64> {
        self.key.as_ref().and_then(|key| key.of(head, context))
    }

    /// How many retries its endpoints can bear.
    pub fn budget(&self) -> &RetryBudget {
        &self.budget
    }

    /// Whether a connection may serve another client's requests (be pooled, or shared by HTTP/2 streams of several clients): not
    /// where it began with a PROXY header, which names one client.
    pub fn may_reuse_connections(&self) -> bool {
        self.spec.proxy_header.is_none()
    }

    /// Counts changes of membership, until the cluster is gone.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.get_or_init(|| Box::new(watch::Sender::new(0))).subscribe()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        match &*self.said() {
            Some(said) => self.ward.meters.joined(0, said.len()),
            None => self.ward.resize(self.members.load().iter(), &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::{cluster, endpoints, members, spec};
    use crate::upstream::{Outcome, testing};

    #[test]
    fn endpoints_that_stay_keep_their_health_and_their_counts() {
        let cluster = cluster(&spec(&[1, 1, 1]));
        let before = members(&cluster);
        cluster.ward.judge(&before[0], false);
        before[1].report(Outcome::Reset);
        let _permit = cluster.try_admit(&before[1]).unwrap();
        cluster.set_members(&endpoints(&[1, 7]));
        let after = members(&cluster);
        assert!(Arc::ptr_eq(&before[0], &after[0]) && Arc::ptr_eq(&before[1], &after[1]));
        assert!(!after[0].is_healthy());
        assert_eq!((after[1].weight(), after[1].totals(), after[1].in_flight()), (7, (1, 1), 1));
        assert!(before[2].has_left() && !before[1].has_left());
    }

    #[test]
    fn an_endpoint_that_comes_back_is_another_one() {
        let cluster = cluster(&spec(&[1, 1]));
        let before = members(&cluster);
        cluster.set_members(&endpoints(&[1]));
        cluster.set_members(&endpoints(&[1, 1]));
        assert_ne!(before[1].id, members(&cluster)[1].id);
    }

    #[test]
    fn the_same_endpoints_in_another_order_are_no_change() {
        let cluster = cluster(&spec(&[1, 2]));
        let changes = cluster.changes();
        let mut reversed = endpoints(&[1, 2]);
        reversed.reverse();
        reversed.push(reversed[0].clone());
        cluster.set_members(&reversed);
        assert!(!changes.has_changed().unwrap());
        assert_eq!(cluster.members().len(), 2);
    }

    #[test]
    fn endpoints_are_made_with_the_first_request_and_counted_before_it() {
        let registry = Registry::new(1, 1000);
        let healthy = |n: i64| format!("tidegate_endpoints{{cluster=\"test\",state=\"healthy\"}} {n}\n");
        let cluster = Cluster::new(&spec(&[1, 1, 1]), None, &registry);
        assert!(cluster.members.load().is_empty() && registry.render().contains(&healthy(3)));
        assert_eq!((cluster.describe().endpoints.len(), cluster.describe().available), (3, 3));
        cluster.set_members(&endpoints(&[1, 0]));
        assert_eq!((cluster.describe().endpoints.len(), cluster.describe().available), (2, 1));
        assert!(cluster.members.load().is_empty() && registry.render().contains(&healthy(2)));
        let view = cluster.describe();
        let picked = cluster.pick(&[], None).unwrap();
        assert!(cluster.members.load().len() == 2 && registry.render().contains(&healthy(2)));
        assert_eq!((cluster.describe(), picked.address()), (view, testing::address(0)));
        let other = Cluster::new(&spec(&[1]), None, &registry);
        drop((picked, cluster));
        drop(Cluster::new(&spec(&[1, 1, 1]), None, &registry));
        assert!(registry.render().contains(&healthy(1)), "those of the other cluster of this name");
        drop(other);
    }

    #[test]
    fn many_endpoints_are_made_at_once() {
        let cluster = cluster(&spec(&[1]));
        cluster.set_members(&endpoints(&[1; MOST_SAID]));
        assert!(cluster.members.load().is_empty());
        cluster.set_members(&endpoints(&[1; MOST_SAID + 1]));
        assert_eq!(cluster.members.load().len(), MOST_SAID + 1);
    }

    #[test]
    fn a_request_finds_endpoints_whoever_makes_them() {
        for _ in 0..200 {
            let cluster = cluster(&spec(&[1, 1]));
            std::thread::scope(|scope| {
                let picks: Vec<_> = (0..3).map(|_| scope.spawn(|| cluster.pick(&[], None))).collect();
                cluster.set_members(&endpoints(&[1, 2, 1]));
                assert!(picks.into_iter().all(|pick| pick.join().unwrap().is_ok()));
            });
            assert_eq!(cluster.members().len(), 3);
        }
    }

    #[test]
    fn no_endpoints_at_all_is_an_error_at_once() {
        let cluster = cluster(&spec(&[1]));
        cluster.set_members(&[]);
        assert_eq!(cluster.pick(&[], None).unwrap_err(), PickError::NoEndpoints);
        cluster.set_members(&endpoints(&[1]));
        assert!(cluster.pick(&[], None).is_ok());
    }

    #[test]
    fn the_scrape_tells_how_endpoints_stand_and_forgets_a_dropped_cluster() {
        let registry = Registry::new(1, 1000);
        let cluster = Cluster::new(&spec(&[1, 1, 1, 1]), None, &registry);
        let all = members(&cluster);
        cluster.ward.judge(&all[0], false);
        (0..5).for_each(|_| all[1].report(Outcome::Status(503)));
        let line = |state, n| format!("tidegate_endpoints{{cluster=\"test\",state=\"{state}\"}} {n}\n");
        let scrape = registry.render();
        for wanted in [line("healthy", 2), line("unhealthy", 1), line("ejected", 1)] {
            assert!(scrape.contains(&wanted), "{wanted} is not in {scrape}");
        }
        cluster.set_members(&testing::endpoints(&[1]));
        assert!(registry.render().contains(&line("ejected", 0)));
        let other = Cluster::new(&spec(&[1, 1]), None, &registry);
        drop((cluster, all));
        assert!(registry.render().contains(&line("healthy", 2)), "those of the other cluster of this name");
        drop(other);
    }
}
