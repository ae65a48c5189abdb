//! What are the addresses of the names that ExternalName Services stand for?
//!
//! Off unless it is switched on: whoever may write a Service could otherwise have the gate speak to anything that the node reaches.
//! Loopback, link-local (cloud metadata), unspecified, multicast and the gate's own addresses are refused even then.

use super::objects::Key;
use super::store::Store;
use super::translate::{Binding, Translation};
use crate::model::{EndpointSpec, Origin, Problem};
use crate::source::Memberships;
use futures_util::{FutureExt, StreamExt, stream};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::timeout;

/// How often names are resolved; the system's resolver does not say how long its answers hold.
const AGAIN: Duration = Duration::from_secs(30);
/// Names that are asked for at once.
const AT_ONCE: usize = 16;
/// A resolver that is away must not hold up the others for long.
const PATIENCE: Duration = Duration::from_secs(5);
const REFUSED: &str = "every address of it is loopback, link-local, multicast or this node's own";

/// Names by cluster.
pub(super) type Names = BTreeMap<String, (String, u16)>;

/// The names that a translation binds clusters to.
pub(super) fn of(translation: &Translation) -> Names {
    let name = |(cluster, binding): (&String, &Binding)| match binding {
        Binding::Name { host, port } => Some((cluster.clone(), (host.clone(), *port))),
        _ => None,
    };
    translation.bindings.iter().filter_map(name).collect()
}

/// Resolves names when they are new and every half minute after that.
pub(super) struct Resolver {
    pub(super) store: Rc<Store>,
    pub(super) memberships: Memberships,
    /// Addresses of this node.
    pub(super) own: Vec<IpAddr>,
    pub(super) names: watch::Receiver<Names>,
}

impl Resolver {
    pub(super) async fn run(mut self) {
        let mut known = Names::new();
        let watch: Rc<str> = "external names".into();
        let own = &std::mem::take(&mut self.own);
        loop {
            let names = self.names.borrow_and_update().clone();
            self.store.keep_problems(&watch, &names.keys().map(|name| Key::new("", name.as_str())).collect());
            let questions =
                names.iter().map(|(cluster, (host, port))| resolve(host, *port, own).map(move |a| (cluster, a)));
            let mut answers = stream::iter(questions).buffer_unordered(AT_ONCE);
            while let Some((cluster, answer)) = answers.next().await {
                // The Service may be another since it was asked, and its endpoints no longer ours to say.
                if self.names.borrow().get(cluster) == names.get(cluster) {
                    self.take(&watch, cluster, answer, known.get(cluster) == names.get(cluster));
                }
            }
            drop(answers);
            known = names;
            let pause = if known.is_empty() { Duration::MAX } else { AGAIN };
            if matches!(timeout(pause, self.names.changed()).await, Ok(Err(_))) {
                return;
            }
        }
    }

    /// What a name of a cluster stands for now; `asked` before, so that it may have addresses already.
    fn take(&self, watch: &Rc<str>, cluster: &str, answer: Answer, asked: bool) {
        let key = Key::new("", cluster);
        let (host, why) = match answer {
            Ok(endpoints) => {
                self.memberships.set(cluster, endpoints);
                return self.store.problem(watch, &key, None);
            }
            Err(refused) => refused,
        };
        // What leads to the node is forgotten at once; a resolver that is away is waited for.
        if why == REFUSED || !asked {
            self.memberships.set(cluster, Vec::<EndpointSpec>::new());
        }
        let what = format!("ExternalName {host}: {why}");
        let hint = "the addresses it had, if any, are kept where it cannot be resolved";
        let problem = Problem::error(Origin::of(place(cluster)), what, hint);
        self.store.problem(watch, &key, Some(problem));
    }
}

/// The Service of a cluster, without the port that a route may name.
fn place(cluster: &str) -> String {
    format!("Service/{}", cluster.split(':').next().unwrap_or(cluster))
}

/// Endpoints, or the name and why it has none.
type Answer = Result<Vec<EndpointSpec>, (String, String)>;

async fn resolve(host: &str, port: u16, own: &[IpAddr]) -> Answer {
    let failed = |why: String| (host.to_owned(), why);
    let found = timeout(PATIENCE, lookup_host((host, port))).await;
    let found = found.map_err(|_| failed("no answer from the resolver".to_owned()))?;
    let mut all: Vec<_> = found.map_err(|error| failed(error.to_string()))?.collect();
    let before = all.len();
    all.retain(|address| allowed(address.ip(), own));
    if all.is_empty() && before > 0 {
        return Err(failed(REFUSED.into()));
    }
    all.sort_unstable();
    all.dedup();
    Ok(all.into_iter().map(|address| EndpointSpec::new(address, 1)).collect())
}

/// Whether a name may lead there.
fn allowed(address: IpAddr, own: &[IpAddr]) -> bool {
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets().starts_with(&[0]),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let refused = link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast();
    !refused && !own.iter().any(|own| own.to_canonical() == address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kubernetes::Settings;

    #[test]
    fn an_answer_for_a_name_that_is_wanted_no_more_is_not_said() {
        let memberships = Memberships::default();
        let store = Rc::new(Store::new(&Settings::default(), memberships.clone()));
        let name = || ("localhost".to_owned(), 80);
        let asked = Names::from([("shop/a".to_owned(), name()), ("shop/b:80".to_owned(), name())]);
        let (wanted, names) = watch::channel(asked);
        let own = Vec::new();
        let resolver = Resolver { store: Rc::clone(&store), memberships: memberships.clone(), own, names };
        // Names are looked up on this one thread, which is busy until it is let go.
        let one = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_time().build().unwrap();
        let (go, busy) = std::sync::mpsc::channel::<()>();
        one.spawn_blocking(move || busy.recv());
        one.block_on(async {
            let mut run = Box::pin(resolver.run());
            assert!((&mut run).now_or_never().is_none());
            // One of the Services is another now.
            wanted.send_modify(|names| drop(names.remove("shop/a")));
            drop((wanted, go));
            run.await;
        });
        assert_eq!(memberships.take().into_keys().collect::<Vec<_>>(), ["shop/b:80".into()]);
        assert_eq!(&*store.problems()[0].origin.place, "Service/shop/b", "where its Events are");
    }

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
}
