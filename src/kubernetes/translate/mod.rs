//! What do the objects of a cluster ask for? Pure: objects in, a fragment and what became of each object out.

mod annotation;
mod claims;
mod config_map;
mod external;
mod ingress;
mod known;
mod outcome;
mod piece;
mod secret;
mod service;

pub use config_map::{Alone, read_alone};

use super::objects::{Ingress, Key, Objects, Service, WantedSecrets};
use crate::config::kubernetes::Settings;
use crate::model::{Action, Fragment, Problem, RouteSpec, TlsBinding};
use claims::{Settled, settle};
use ingress::Classes;
use known::Known;
use outcome::Counts;
use piece::{Owned, Owner, Piece};
use secret::Secrets;
use service::Clusters;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// Routes, clusters (without endpoints), certificates and their bindings.
    pub fragment: Fragment,
    /// Everything that could not be honoured; `origin.place` is `Kind/namespace/name`, for a ConfigMap with `/key`.
    pub problems: Vec<Problem>,
    /// Which endpoints each cluster of the fragment has.
    pub bindings: BTreeMap<String, Binding>,
    /// The Secrets that are asked for.
    pub secrets: WantedSecrets,
    /// What became of each routes ConfigMap.
    pub config_maps: BTreeMap<Key, Outcome>,
    /// Ingresses that are of our class: their status is ours to write.
    pub ingresses: BTreeMap<Key, Outcome>,
    /// Services that expose themselves.
    pub exposed: BTreeMap<Key, Outcome>,
}

/// Where the endpoints of a cluster come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// EndpointSlices of this Service, and the name of the ServicePort (empty: the unnamed one).
    Slices {
        /// The Service.
        service: Key,
        /// The name of its port.
        port: Box<str>,
    },
    /// A name to resolve, where ExternalName is followed.
    Name {
        /// The DNS name.
        host: String,
        /// The port.
        port: u16,
    },
    /// Nothing: the Service or its port does not exist. Requests get 503.
    Nothing,
}

/// What became of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// uid of the object that was translated.
    pub uid: String,
    /// resourceVersion of the object that was translated.
    pub version: String,
    /// Routes that serve because of it.
    pub accepted: usize,
    /// Routes of it that do not serve, or not as written now.
    pub refused: usize,
}

/// What earlier translations leave to later ones: what each version of an object asks for, and last good versions. One memory
/// goes with one set of settings.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    config_maps: config_map::Cache,
    ingresses: Cache<Ingress>,
    exposed: Cache<Service>,
    clusters: Known,
    secrets: secret::LastGood,
}

/// Objects in the order of their keys, with the piece that was made of each, so that it is made once.
type Cache<T> = Vec<(Arc<T>, Piece)>;

/// Translates. It costs no more than a copy of the outcome, whatever changed: only objects that are new are read, and only
/// clusters whose Service is new are looked up.
pub fn translate(objects: &Objects, settings: &Settings, own_namespace: &str, memory: &mut Memory) -> Translation {
    memory.refresh(objects, settings, own_namespace);
    let mut secrets = Secrets::new(objects, own_namespace, std::mem::take(&mut memory.secrets));
    let mut clusters = Clusters::new(objects, settings, std::mem::take(&mut memory.clusters));
    let pieces = memory.pieces();
    let mut translation = Translation::default();
    for owned in &pieces {
        let bindings = &owned.piece.fragment.tls;
        translation.fragment.tls.extend(bindings.iter().filter_map(|b| bound(b, owned.piece, &mut secrets)));
        translation.problems.extend(owned.piece.problems.iter().cloned());
    }
    let problems = clusters.settings(&pieces, &mut secrets);
    translation.problems.extend(problems);
    let counts = translation.routes(&pieces, &mut clusters);
    counts.tell(memory, &mut translation);
    translation.problems.extend(clusters.unused());
    translation.clusters(&mut clusters.known);
    memory.clusters = clusters.known;

    let (wanted, certificates, problems, last_good) = secrets.finish();
    memory.secrets = last_good;
    translation.secrets = wanted;
    translation.fragment.certificates = certificates;
    translation.problems.extend(problems);
    translation.problems.sort();
    translation.problems.dedup();
    translation
}

/// A binding with the certificates and authorities that are there; `None` where there is none. One that asks for client
/// certificates stays all the same, because its hosts must not fall to a wildcard that does not ask.
fn bound(binding: &TlsBinding, piece: &Piece, secrets: &mut Secrets<'_>) -> Option<TlsBinding> {
    let mut binding = binding.clone();
    binding.certificates.retain(|name| match piece.secrets.get(name) {
        Some(key) => secrets.certificate(name, key, &binding.origin),
        None => true,
    });
    if let Some(client_auth) = &mut binding.client_auth {
        secrets.find(&mut client_auth.ca, &binding.origin);
    }
    (!binding.certificates.is_empty() || binding.client_auth.is_some()).then_some(binding)
}

impl Memory {
    fn refresh(&mut self, objects: &Objects, settings: &Settings, own: &str) {
        config_map::refresh(&mut self.config_maps, &objects.config_maps, own, &settings.certificates);
        let classes = Classes::of(objects, settings);
        let ours = objects.ingresses.values().filter(|ingress| classes.have(ingress));
        refresh(&mut self.ingresses, ours, |ingress| &ingress.meta.key, ingress::piece);
        let exposed = objects.services.values().filter(|service| service.expose.is_some());
        let expose = |service: &Service| annotation::expose(service, &settings.expose);
        refresh(&mut self.exposed, exposed, |service| &service.meta.key, expose);
    }

    /// Everything that is asked for; what wins conflicts comes first. Each is numbered by its place in the caches.
    fn pieces(&self) -> Vec<Owned<'_>> {
        let texts = self.config_maps.values().flat_map(|held| {
            let meta = &held.map.meta;
            held.texts.iter().map(move |(text, piece)| (Owner::ConfigMap, meta, text.as_str(), piece))
        });
        let ingresses = self.ingresses.iter().map(|(object, piece)| (Owner::Ingress, &object.meta, "", piece));
        let services = self.exposed.iter().map(|(object, piece)| (Owner::Service, &object.meta, "", piece));
        let all = texts.chain(ingresses).chain(services).enumerate();
        let owned = |(number, (owner, meta, text, piece))| Owned { number, owner, meta, text, piece };
        let mut pieces: Vec<_> = all.map(owned).collect();
        pieces.sort_by(|a, b| a.rank().cmp(&b.rank()));
        pieces
    }
}

/// Makes pieces of what is new, and forgets what is gone. Objects come in the order of their keys.
fn refresh<'a, T: PartialEq + 'a>(
    cache: &mut Cache<T>,
    objects: impl Iterator<Item = &'a Arc<T>>,
    key: fn(&T) -> &Key,
    make: impl Fn(&T) -> Piece,
) {
    let mut old = std::mem::take(cache).into_iter().peekable();
    for object in objects {
        while old.next_if(|(old, _)| !Arc::ptr_eq(old, object) && key(old) < key(object)).is_some() {}
        let same = old.next_if(|(old, _)| Arc::ptr_eq(old, object) || old == object);
        let piece = same.map_or_else(|| make(object), |(_, piece)| piece);
        cache.push((Arc::clone(object), piece));
    }
}

impl Translation {
    /// The routes that nobody older has, with their clusters.
    fn routes(&mut self, pieces: &[Owned<'_>], clusters: &mut Clusters<'_>) -> Counts {
        let Settled { routes, lost, problems } = settle(pieces);
        self.problems.extend(problems);
        let mut counts = Counts::of(pieces);
        for owned in lost.into_iter().filter_map(|place| pieces.get(place)) {
            counts.refuse(owned, 1);
        }
        for (place, route) in routes {
            let serves = self.serves(&route, clusters);
            match pieces.get(place) {
                Some(owned) if serves => counts.accept(owned),
                Some(owned) => counts.refuse(owned, 1),
                None => {}
            }
            self.fragment.routes.push(route);
        }
        counts
    }

    /// Whether each of a route's clusters is a Service; tells what is wrong with those that are not.
    fn serves(&mut self, route: &RouteSpec, clusters: &mut Clusters<'_>) -> bool {
        let Action::Forward(all) = &route.action else { return true };
        let before = self.problems.len();
        for weighted in all {
            if let Some((what, hint)) = clusters.take(&weighted.cluster) {
                self.problems.push(Problem::error(route.origin.clone(), what, hint));
            }
        }
        self.problems.len() == before
    }

    fn clusters(&mut self, known: &mut Known) {
        let (bindings, clusters): (Vec<_>, Vec<_>) = known
            .finish()
            .map(|(name, made)| ((name.to_owned(), made.binding.clone()), Arc::clone(&made.spec)))
            .unzip();
        // In the order of names already, which makes a map of them cheap.
        self.bindings = bindings.into_iter().collect();
        self.fragment.clusters = clusters;
    }
}
