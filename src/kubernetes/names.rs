//! What are the addresses of the names that ExternalName Services stand for?
//!
//! Off unless it is switched on: whoever may write a Service could otherwise have the gate speak to anything that the node reaches.
//! Loopback, link-local (cloud metadata), unspecified, multicast and the addresses of the gate, its machine and the other gates
//! are refused even then: what listens on a node trusts who comes from a node.

use super::objects::Key;
use super::own::is_own;
use super::store::Store;
use super::translate::{Binding, Bound, Translation};
use crate::model::{EndpointSpec, Origin, Problem};
use crate::source::Memberships;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// How often names are resolved; the system's resolver does not say how long its answers hold.
const AGAIN: Duration = Duration::from_secs(30);
/// A resolver that is away must not hold up the others for long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names that are asked for at once: each takes a thread, and a hundred that nobody answers must not hold up the others.
const AT_ONCE: usize = 16;
/// Where problems of names are kept.
const WATCH: &str = "external names";

/// Names by cluster.
pub(super) type Names = BTreeMap<String, Target>;

/// Host and port.
type Target = (String, u16);

/// The names that a translation binds clusters to.
pub(super) fn of(translation: &Translation) -> Names {
    let name = |bound: &Arc<Bound>| match &bound.binding {
        Binding::Name { host, port } => Some((bound.cluster.to_string(), (host.clone(), *port))),
        _ => None,
    };
    translation.bindings.iter().filter_map(name).collect()
}

/// Resolves names when they are new and every half minute after that.
pub(super) struct Resolver {
    pub(super) store: Rc<Store>,
    pub(super) memberships: Memberships,
    /// Addresses of this node as the settings name them; it may have more.
    pub(super) own: Vec<IpAddr>,
    /// Addresses of all gates; `None`: not known yet.
    pub(super) gates: watch::Receiver<Option<BTreeSet<IpAddr>>>,
    pub(super) names: watch::Receiver<Names>,
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("every address of it is loopback, link-local, multicast or a node's own")]
    Near,
    #[error("no answer from the resolver")]
    Silence,
    #[error(transparent)]
    Lookup(#[from] io::Error),
}

impl Resolver {
    pub(super) async fn run(mut self) {
        // Before that no name leads anywhere: it might lead to one of them.
        if self.gates.wait_for(Option::is_some).await.is_err() {
            return;
        }
        self.ask(|(host, port)| async move { Ok(lookup_host((host, port)).await?.collect()) }).await;
    }

    /// Resolves by `look`, until nobody says any more which names there are.
    async fn ask<F>(mut self, look: impl Fn(Target) -> F)
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        let (mut agenda, mut asked) = (Agenda::default(), FuturesUnordered::new());
        self.see(&mut agenda);
        loop {
            while asked.len() < AT_ONCE
                && let Some((cluster, target)) = agenda.next(Instant::now())
            {
                let answer = timeout(PATIENCE, look(target.clone()));
                asked.push(async { (cluster, target, answer.await.map_err(|_| Fault::Silence)) });
            }
            let due = agenda.due().filter(|_| asked.len() < AT_ONCE);
            tokio::select! {
                Some((cluster, target, answer)) = asked.next() => {
                    // Meanwhile it may be a Service with slices, or gone: who speaks for the cluster now has spoken already.
                    self.see(&mut agenda);
                    if let Some(first) = agenda.heard(&cluster, &target, Instant::now()) {
                        let found = answer.and_then(|found| self.judge(found?));
                        self.say(&cluster, &target.0, first, found);
                    }
                }
                changed = self.names.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.see(&mut agenda);
                }
                () = until(due) => {}
            }
        }
    }

    /// Looks which names there are now.
    fn see(&mut self, agenda: &mut Agenda) {
        let names = self.names.borrow_and_update();
        if agenda.want(&names) {
            let keys = names.keys().map(|name| Key::new("", name.as_str())).collect();
            self.store.keep_problems(&WATCH.into(), &keys);
        }
    }

    /// Says what a name came to; `first`: nothing was said of it before.
    fn say(&self, cluster: &str, host: &str, first: bool, found: Result<Vec<EndpointSpec>, Fault>) {
        let problem = match found {
            Ok(endpoints) => {
                self.memberships.set(cluster, endpoints);
                None
            }
            Err(fault) => {
                // What leads to the node is forgotten at once; a resolver that is away is waited for.
                if first || matches!(fault, Fault::Near) {
                    self.memberships.set(cluster, Vec::<EndpointSpec>::new());
                }
                let what = format!("ExternalName {host}: {fault}");
                let hint = "the addresses it had, if any, are kept where it cannot be resolved";
                Some(Problem::error(origin(cluster), what, hint))
            }
        };
        self.store.problem(&WATCH.into(), &Key::new("", cluster), problem);
    }

    /// The addresses that a name may lead to.
    fn judge(&self, mut all: Vec<SocketAddr>) -> Result<Vec<EndpointSpec>, Fault> {
        let before = all.len();
        let gates = self.gates.borrow();
        let gates: Vec<IpAddr> = gates.iter().flatten().chain(&self.own).copied().collect();
        all.retain(|address| allowed(address.ip(), &gates) && !is_own(address.ip()));
        if all.is_empty() && before > 0 {
            return Err(Fault::Near);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all.into_iter().map(|address| EndpointSpec::new(address, 1)).collect())
    }
}

/// The Service that a cluster is of: Events are written to what is named here.
fn origin(cluster: &str) -> Origin {
    let service = cluster.split_once(':').map_or(cluster, |(service, _)| service);
    Origin::of(format!("Service/{service}"))
}

/// When each name is asked for.
#[derive(Debug, Default)]
struct Agenda(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    target: Target,
    /// `None`: it was never answered, and goes before all others.
    due: Option<Instant>,
    asked: bool,
}

impl Agenda {
    /// Takes in the names there are now; whether they are others than before.
    fn want(&mut self, names: &Names) -> bool {
        let before = self.0.len();
        self.0.retain(|cluster, entry| names.get(cluster) == Some(&entry.target));
        let mut changed = before != self.0.len();
        for (cluster, target) in names {
            if !self.0.contains_key(cluster) {
                changed = true;
                self.0.insert(cluster.clone(), Entry { target: target.clone(), due: None, asked: false });
            }
        }
        changed
    }

    /// What is to be asked for now.
    fn next(&mut self, now: Instant) -> Option<(String, Target)> {
        let waiting = self.0.iter_mut().filter(|(_, entry)| !entry.asked && entry.due <= Some(now));
        let (cluster, entry) = waiting.min_by_key(|(_, entry)| entry.due)?;
        entry.asked = true;
        Some((cluster.clone(), entry.target.clone()))
    }

    /// When the next that was answered before is to be asked for again.
    fn due(&self) -> Option<Instant> {
        self.0.values().filter(|entry| !entry.asked).filter_map(|entry| entry.due).min()
    }

    /// Takes in that there was an answer; says whether it is the first. `None`: nobody wants it any more.
    fn heard(&mut self, cluster: &str, target: &Target, now: Instant) -> Option<bool> {
        let entry = self.0.get_mut(cluster).filter(|entry| entry.target == *target)?;
        entry.asked = false;
        Some(entry.due.replace(now + AGAIN).is_none())
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Whether a name may lead there.
fn allowed(address: IpAddr, nodes: &[IpAddr]) -> bool {
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets().starts_with(&[0]),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let refused = link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast();
    !refused && !nodes.iter().any(|node| node.to_canonical() == address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kubernetes::Settings;
    use tokio::time::sleep;

    #[test]
    fn a_name_leads_nowhere_near_the_node_itself() {
        let own: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        for refused in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "ff02::1",
            "192.0.2.7",
            "::ffff:192.0.2.7",
            "::ffff:127.0.0.1",
            "2001:db8::7",
            "255.255.255.255",
        ] {
            assert!(!allowed(refused.parse().unwrap(), &own), "{refused}");
        }
        for fine in ["192.0.2.8", "10.0.0.1", "2001:db8::8", "fd00::1"] {
            assert!(allowed(fine.parse().unwrap(), &own), "{fine}");
        }
    }

    /// Resolves by this until it is over, while `change` happens to the names.
    async fn resolved<F>(
        names: Names,
        look: impl Fn(Target) -> F,
        change: impl AsyncFnOnce(&watch::Sender<Names>, &Memberships),
    ) -> Rc<Store>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        let (sender, reader) = watch::channel(names);
        let memberships = Memberships::default();
        let store = Rc::new(Store::new(&Settings::default(), memberships.clone()));
        let (own, said) = (Vec::new(), memberships.clone());
        let (_told, gates) = watch::channel(Some(BTreeSet::from(["192.0.2.9".parse().unwrap()])));
        let resolver = Resolver { store: Rc::clone(&store), memberships, own, gates, names: reader };
        tokio::select! {
            () = resolver.ask(look) => {}
            () = change(&sender, &said) => {}
        }
        store
    }

    fn names(all: &[(&str, &str)]) -> Names {
        all.iter().map(|(cluster, host)| ((*cluster).to_owned(), ((*host).to_owned(), 80))).collect()
    }

    /// After three seconds, for ever, or at once.
    async fn look((host, port): Target) -> io::Result<Vec<SocketAddr>> {
        match host.as_str() {
            "slow" => sleep(Duration::from_secs(3)).await,
            "dead" => std::future::pending().await,
            "near" => return Ok(vec![([127, 0, 0, 1], port).into()]),
            "gate" => return Ok(vec![([192, 0, 2, 9], port).into()]),
            _ => {}
        }
        Ok(vec![([198, 51, 100, 1], port).into()])
    }

    fn said(memberships: &Memberships) -> Vec<(String, usize)> {
        let count = |change: Option<crate::model::EndpointList>| change.map_or(9, |all| all.len());
        memberships.take().into_iter().map(|(cluster, change)| (cluster.to_string(), count(change))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_when_its_name_is_no_longer_wanted_is_not_said() {
        let before = names(&[("shop/gone", "slow"), ("shop/other", "slow"), ("shop/same", "slow")]);
        resolved(before, look, async |sender, memberships| {
            sleep(Duration::from_secs(1)).await;
            sender.send_replace(names(&[("shop/other", "dead"), ("shop/same", "slow")]));
            sleep(Duration::from_secs(3)).await;
            assert_eq!(said(memberships), [("shop/same".to_owned(), 1)]);
            sleep(Duration::from_secs(3)).await;
            assert_eq!(said(memberships), [("shop/other".to_owned(), 0)], "what it had as another is not kept");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_names_that_nobody_answers_do_not_hold_up_a_new_one() {
        let dead: Vec<String> = (0..100).map(|number| format!("shop/dead-{number}")).collect();
        let dead: Vec<(&str, &str)> = dead.iter().map(|cluster| (cluster.as_str(), "dead")).collect();
        resolved(names(&dead), look, async |sender, memberships| {
            sleep(Duration::from_secs(36)).await;
            assert_eq!(said(memberships).len(), 100);
            sender.send_modify(|all| all.extend(names(&[("shop/zzz", "fine")])));
            sleep(Duration::from_secs(6)).await;
            assert_eq!(said(memberships), [("shop/zzz".to_owned(), 1)]);
            sleep(AGAIN + 2 * PATIENCE).await;
            assert_eq!(said(memberships), [("shop/zzz".to_owned(), 1)], "and it is asked for again");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_resolved_is_a_problem_until_it_can_or_is_gone() {
        let all =
            names(&[("shop/db:5432", "dead"), ("shop/near", "near"), ("shop/gate", "gate"), ("shop/fine", "fine")]);
        let store = resolved(all, look, async |_, _| sleep(Duration::from_secs(6)).await).await;
        let problems = store.problems().into_iter().map(|problem| problem.what).collect::<Vec<_>>();
        assert_eq!(
            problems,
            [
                "ExternalName dead: no answer from the resolver".to_owned(),
                format!("ExternalName gate: {}", Fault::Near),
                format!("ExternalName near: {}", Fault::Near)
            ]
        );
        let places: Vec<_> = store.problems().into_iter().map(|problem| problem.origin.place.to_string()).collect();
        assert_eq!(
            places,
            ["Service/shop/db", "Service/shop/gate", "Service/shop/near"],
            "the Service, whose name has no port"
        );
        let change = async |sender: &watch::Sender<Names>, _: &Memberships| {
            sleep(Duration::from_secs(6)).await;
            sender.send_replace(names(&[("shop/db:5432", "fine")]));
            sleep(Duration::from_secs(1)).await;
        };
        let store = resolved(names(&[("shop/db:5432", "dead"), ("shop/near", "near")]), look, change).await;
        assert!(store.problems().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_comes_to_lead_to_the_node_is_forgotten_and_one_that_is_silent_for_a_while_is_not() {
        let times = std::cell::Cell::new(0);
        let look = |target: Target| {
            let first = times.replace(times.get() + 1) < 2;
            let host = match (first, target.0.as_str()) {
                (true, _) => "fine",
                (false, later) => later,
            };
            self::look((host.to_owned(), target.1))
        };
        resolved(names(&[("shop/rebound", "near"), ("shop/silent", "dead")]), look, async |_, memberships| {
            sleep(Duration::from_secs(1)).await;
            assert_eq!(said(memberships), [("shop/rebound".to_owned(), 1), ("shop/silent".to_owned(), 1)]);
            sleep(AGAIN + 2 * PATIENCE).await;
            assert_eq!(said(memberships), [("shop/rebound".to_owned(), 0)]);
        })
        .await;
    }
}
