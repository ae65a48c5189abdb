//! What do the routes ConfigMaps ask for?
//!
//! Each data key is a text in the grammar of routes files. A text is read once for each of its versions; what of it is wrong
//! keeps its last good version. A cluster is a Service: `clusters:` may say how it is spoken to, never where it is.

use super::super::objects::{Key, RoutesConfigMap};
use super::piece::{Owned, Owner, Piece, origin};
use super::service::Reference;
use crate::config::decode::NoFiles;
use crate::config::kubernetes::is_subdomain;
use crate::config::tls::{no_authorities, no_secret};
use crate::model::{ClusterSpec, Fragment, Problem, Severity};
use crate::source::grammar::{Parsed, keep_last_good, parse};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// The ConfigMaps as they were last read.
pub(super) type Cache = BTreeMap<Key, Held>;

/// A ConfigMap as it was last read.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) map: Arc<RoutesConfigMap>,
    /// What its texts ask for, last good versions included.
    pub(super) texts: BTreeMap<String, Rc<Owned>>,
    /// What no text of it can ask for.
    pub(super) problems: Vec<Problem>,
}

/// A ConfigMap read by itself.
#[derive(Clone, Debug, Default)]
pub struct Alone {
    /// What each of its texts asks for, and what is wrong there.
    pub texts: BTreeMap<String, (Fragment, Vec<Problem>)>,
    /// What is wrong with each key of `binaryData`.
    pub binary: BTreeMap<String, Problem>,
}

/// Reads a ConfigMap as a gate does that never saw it before: for whoever wants to know what a gate will say of it.
pub fn read_alone(map: RoutesConfigMap, own: &str, known: &BTreeSet<String>) -> Alone {
    let held = read(&Arc::new(map), None, own, known);
    let piece = |owned: &Rc<Owned>| (owned.fragment(), owned.piece().problems.clone());
    let texts = held.texts.iter().map(|(name, owned)| (name.clone(), piece(owned))).collect();
    Alone { texts, binary: held.map.binary.iter().cloned().zip(held.problems).collect() }
}

/// Reads what is new. `own` is the namespace of Secrets, `known` are the certificates of the install configuration.
pub(super) fn refresh(
    cache: &mut Cache,
    maps: &BTreeMap<Key, Arc<RoutesConfigMap>>,
    own: &str,
    known: &BTreeSet<String>,
) {
    cache.retain(|key, _| maps.contains_key(key));
    for (key, map) in maps {
        // What was right in another object of this name is not this one's: a gate that starts now knows nothing of it.
        let before = cache.remove(key).filter(|held| held.map.meta.uid == map.meta.uid);
        let held = match before {
            Some(held) if Arc::ptr_eq(&held.map, map) => held,
            before => read(map, before, own, known),
        };
        cache.insert(key.clone(), held);
    }
}

/// Has every text read anew, with its last good version as it is.
pub(super) fn forget(cache: &mut Cache) {
    for held in cache.values_mut() {
        Arc::make_mut(&mut held.map).data.clear();
    }
}

fn read(map: &Arc<RoutesConfigMap>, before: Option<Held>, own: &str, known: &BTreeSet<String>) -> Held {
    let mut before = before.map(|held| (held.map, held.texts));
    let mut last = |name: &String| -> (bool, Option<Rc<Owned>>) {
        let Some((old, texts)) = &mut before else { return (false, None) };
        let same = old.data.get(name) == map.data.get(name) && old.meta.created == map.meta.created;
        (same, texts.remove(name))
    };
    let text = |(name, text): (&String, &String)| {
        let owned = match last(name) {
            (true, Some(owned)) => owned,
            (_, old) => {
                let place = format!("ConfigMap/{}/{name}", map.meta.key);
                let last = old.as_ref().map(|old| old.fragment()).unwrap_or_default();
                let mut piece = piece(&place, text, map.meta.created, &last, own, known);
                old.into_iter().for_each(|old| piece.adopt(&old));
                Owned::new(Owner::ConfigMap, &map.meta, name.as_str(), piece)
            }
        };
        (name.clone(), owned)
    };
    let binary = |name: &String| {
        let hint = "put it into data: as text";
        let origin = origin("ConfigMap", &map.meta, format!("binaryData[{name}]"));
        Problem::error(origin, "binary data holds no routes", hint)
    };
    let texts = map.data.iter().map(text).collect();
    Held { texts, problems: map.binary.iter().map(binary).collect(), map: Arc::clone(map) }
}

fn piece(place: &str, text: &str, created: u64, last: &Fragment, own: &str, known: &BTreeSet<String>) -> Piece {
    let mut parsed = parse(place, text, &NoFiles);
    refuse_clusters(&mut parsed);
    refuse_authorities(&mut parsed, last, own);
    let wrong = parsed.problems.iter().any(|problem| problem.severity == Severity::Error);
    let refused = match &parsed.refused {
        refused if refused.text => last.routes.len().max(1),
        refused => refused.routes.len().max(usize::from(wrong)),
    };
    let mut closed = parsed.refused.clusters.clone();
    let (mut fragment, mut problems) = keep_last_good(place, parsed, last);
    closed.retain(|name| !fragment.clusters.iter().any(|cluster| *cluster.name == **name));
    let secrets = name_secrets(&mut fragment, own, known, &mut problems);
    date(&mut fragment, &mut problems, created);
    Piece { fragment, fallback: None, secrets, problems, closed, refused }
}

/// Where a cluster of Kubernetes is, its Service alone says: addresses in a text could be of the node itself or of what a
/// cloud keeps at link-local ones.
fn refuse_clusters(parsed: &mut Parsed) {
    let why = |cluster: &ClusterSpec| {
        if Reference::parse(&cluster.name).is_none() {
            let what = format!("{:?} is no Service", cluster.name);
            return Some((what, "a cluster of Kubernetes is namespace/service[:port]"));
        }
        let what = format!("cluster {} has endpoints of its own, which a ConfigMap cannot give it", cluster.name);
        let hint = "leave them out: they come from the Service; addresses outside are a Service without selector and an EndpointSlice";
        (!cluster.endpoints.is_empty()).then_some((what, hint))
    };
    for cluster in std::mem::take(&mut parsed.fragment.clusters) {
        match why(&cluster) {
            None => parsed.fragment.clusters.push(cluster),
            Some((what, hint)) => {
                parsed.problems.push(Problem::error(cluster.origin.clone(), what, hint));
                parsed.refused.clusters.push(cluster.name.to_string());
            }
        }
    }
}

/// A name that is no Secret's: the cluster keeps its last good version. Without one it stays as it is and gets no endpoints,
/// because settings that are left out would be requests in cleartext.
fn refuse_authorities(parsed: &mut Parsed, last: &Fragment, own: &str) {
    let Parsed { fragment, problems, refused } = parsed;
    let wrong = |cluster: &ClusterSpec| cluster.tls.as_ref().and_then(|tls| no_secret(&tls.ca)).map(no_authorities);
    fragment.clusters.retain(|cluster| {
        let Some(what) = wrong(cluster) else { return true };
        let hint = format!("name a Secret of namespace {own} that has ca.crt, without the namespace");
        problems.push(Problem::error(cluster.origin.clone(), what, hint));
        let kept = last.clusters.iter().any(|old| old.name == cluster.name && wrong(old).is_none());
        if kept {
            refused.clusters.push(cluster.name.to_string());
        }
        !kept
    });
}

/// Names of certificates that the install configuration does not have are Secrets of the gate's own namespace.
fn name_secrets(
    fragment: &mut Fragment,
    own: &str,
    known: &BTreeSet<String>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Key> {
    let mut secrets = BTreeMap::new();
    let mut fits = |name: &String, origin: &crate::model::Origin| {
        if known.contains(name) {
            return true;
        }
        if is_subdomain(name) {
            secrets.insert(name.clone(), Key::new(own, name.as_str()));
            return true;
        }
        let what = format!("{name:?} is neither a certificate of the install configuration nor the name of a Secret");
        let hint = format!("name a Secret of namespace {own}, without the namespace");
        problems.push(Problem::error(origin.clone(), what, hint));
        false
    };
    for binding in &mut fragment.tls {
        binding.certificates.retain(|name| fits(name, &binding.origin));
    }
    for cluster in fragment.clusters.iter_mut().map(Arc::make_mut) {
        let tls = cluster.tls.as_mut();
        if let Some(tls) = tls.filter(|tls| tls.client_certificate.as_ref().is_some_and(|n| !fits(n, &cluster.origin)))
        {
            tls.client_certificate = None;
        }
    }
    secrets
}

/// Texts have no age; their object has.
fn date(fragment: &mut Fragment, problems: &mut [Problem], created: u64) {
    for route in fragment.routes.iter_mut().filter(|route| route.origin.created != created) {
        Arc::make_mut(route).origin.created = created;
    }
    let clusters = fragment.clusters.iter_mut().map(|cluster| &mut Arc::make_mut(cluster).origin);
    let tls = fragment.tls.iter_mut().map(|binding| &mut binding.origin);
    let problems = problems.iter_mut().map(|problem| &mut problem.origin);
    for origin in clusters.chain(tls).chain(problems) {
        origin.created = created;
    }
}
