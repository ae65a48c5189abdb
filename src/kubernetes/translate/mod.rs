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
mod secured;
mod seen;
mod service;
mod settle;

pub use config_map::{Alone, read_alone};
pub use outcome::{Became, Outcome};

use super::objects::{Ingress, IngressClass, Key, Meta, Objects, RoutesConfigMap, Service, WantedSecrets};
use crate::config::kubernetes::Settings;
use crate::model::{Keyed, ListenerSpec, Problem, Sorted, Wanted};
use ingress::Classes;
use piece::{Owned, Owner, Piece};
use secured::Secured;
use seen::{Asks, News, Seen};
use service::Clusters;
use settle::Settlement;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;
use std::sync::Arc;

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// Routes, clusters (without endpoints), certificates and their bindings.
    pub fragment: Wanted,
    /// Everything that could not be honoured; `origin.place` is `Kind/namespace/name`, for a ConfigMap with `/key`.
    pub problems: Arc<[Problem]>,
    /// Which endpoints each cluster of the fragment has.
    pub bindings: Sorted<Arc<Bound>>,
    /// The Secrets that are asked for.
    pub secrets: Arc<WantedSecrets>,
    /// What became of each routes ConfigMap.
    pub config_maps: BTreeMap<Key, Outcome>,
    /// Ingresses that are of our class: their status is ours to write.
    pub ingresses: Sorted<Became>,
    /// Services that expose themselves.
    pub exposed: Sorted<Became>,
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

/// A cluster and where its endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// Where its endpoints come from.
    pub binding: Binding,
}

impl Keyed for Arc<Bound> {
    type Key = str;

    fn key(&self) -> &str {
        &self.cluster
    }

    fn is(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }
}

/// What earlier translations leave to later ones: what each version of an object asks for, what came of it, and last good
/// versions. One memory goes with one set of settings, of which the names of certificates alone may change.
#[derive(Debug, Default)]
pub struct Memory {
    config_maps: config_map::Cache,
    /// The ConfigMaps and their texts as they were seen last.
    maps: Vec<Arc<RoutesConfigMap>>,
    texts: Vec<Rc<Owned>>,
    /// The certificates of the install configuration that texts were read with.
    certificates: BTreeSet<String>,
    classes: Vec<Arc<IngressClass>>,
    ingresses: Seen<Ingress>,
    services: Seen<Service>,
    secured: Secured,
    settlement: Settlement,
    problems: Arc<[Problem]>,
    /// Listeners are not Kubernetes' to ask for.
    no_listeners: Arc<[ListenerSpec]>,
}

/// Translates. What comes of it depends on the objects and on last good versions alone; what it costs, on what is new: only
/// objects that are new are read, only who claims what they claim is judged again, and only clusters whose Service or settings
/// are new are made again.
pub fn translate(objects: &Objects, settings: &Settings, own_namespace: &str, memory: &mut Memory) -> Translation {
    let (news, mut troubles) = memory.refresh(objects, settings, own_namespace);
    let Memory { secured, settlement, .. } = memory;
    let mut services: BTreeSet<String> = news.changed.iter().map(ToString::to_string).collect();
    if let Some(others) = secured.follow(&news, objects, own_namespace) {
        services.extend(others);
        troubles = true;
    }
    let clusters = Clusters { objects, settings, said: &secured.said };
    troubles |= settlement.follow(&news, &services, &clusters);
    if troubles {
        memory.problems = memory.problems();
    }
    memory.translation()
}

impl Memory {
    /// What is different, and whether ConfigMaps are.
    fn refresh(&mut self, objects: &Objects, settings: &Settings, own: &str) -> (News, bool) {
        let (mut news, mut others) = (News::default(), News::default());
        let classes = Classes::of(objects, settings);
        let anew = renewed(&mut self.classes, objects.classes.values());
        let wanted = |ingress: &Ingress| classes.have(ingress);
        let make = |ingress: &Ingress, before: Option<&Owned>| {
            adopted(Owner::Ingress, &ingress.meta, ingress::piece(ingress), before)
        };
        let key: fn(&Ingress) -> &Key = |ingress| &ingress.meta.key;
        let asks = Asks { key, alike: Ingress::asks_as, wanted: &wanted, anew, make: &make };
        self.ingresses.follow(&objects.ingresses, &asks, &mut others);
        let wanted = |service: &Service| service.expose.is_some();
        let make = |service: &Service, before: Option<&Owned>| {
            adopted(Owner::Service, &service.meta, annotation::expose(service, &settings.expose), before)
        };
        let key: fn(&Service) -> &Key = |service| &service.meta.key;
        let asks = Asks { key, alike: Service::eq, wanted: &wanted, anew: false, make: &make };
        self.services.follow(&objects.services, &asks, &mut news);
        news.gone.extend(others.gone);
        news.come.extend(others.come);
        let mut maps = renewed(&mut self.maps, objects.config_maps.values());
        let known = &settings.certificates;
        if self.certificates != *known {
            // A name in a text may mean something else now.
            self.certificates.clone_from(known);
            config_map::forget(&mut self.config_maps);
            maps = true;
        }
        if maps {
            config_map::refresh(&mut self.config_maps, &objects.config_maps, own, known);
            self.texts(&mut news);
        }
        (news, maps)
    }

    /// Which texts of ConfigMaps are others now.
    fn texts(&mut self, news: &mut News) {
        let texts = self.config_maps.values().flat_map(|held| held.texts.values().cloned()).collect();
        let before = std::mem::replace(&mut self.texts, texts);
        let pointers = |all: &[Rc<Owned>]| all.iter().map(Rc::as_ptr).collect::<HashSet<_>>();
        let (old, new) = (pointers(&before), pointers(&self.texts));
        news.gone.extend(before.into_iter().filter(|owned| !new.contains(&Rc::as_ptr(owned))));
        news.come.extend(self.texts.iter().filter(|owned| !old.contains(&Rc::as_ptr(owned))).cloned());
    }

    /// Everything that is wrong.
    fn problems(&self) -> Arc<[Problem]> {
        let Self { secured, settlement, .. } = self;
        let mut all = secured.said.unused(&settlement.known);
        all.extend(secured.problems.iter().cloned());
        all.extend(self.config_maps.values().flat_map(|held| held.problems.iter().cloned()));
        for owned in settlement.troubled.values() {
            all.extend(owned.piece().problems.iter().chain(&owned.state.borrow().problems).cloned());
        }
        all.sort();
        all.dedup();
        all.into()
    }

    fn translation(&self) -> Translation {
        let Self { secured, settlement, .. } = self;
        let outcome = |(key, held): (&Key, &config_map::Held)| (key.clone(), outcome::of_config_map(held));
        Translation {
            fragment: Wanted {
                listeners: Arc::clone(&self.no_listeners),
                routes: settlement.routes.clone(),
                tls: Arc::clone(&secured.tls),
                certificates: secured.certificates.clone(),
                clusters: settlement.known.specs.clone(),
            },
            problems: Arc::clone(&self.problems),
            bindings: settlement.known.bindings.clone(),
            secrets: Arc::clone(&secured.wanted),
            config_maps: self.config_maps.iter().map(outcome).collect(),
            ingresses: settlement.ingresses.clone(),
            exposed: settlement.exposed.clone(),
        }
    }
}

/// Takes in what there is; whether that is anything else than before.
fn renewed<'a, T: 'a>(held: &mut Vec<Arc<T>>, now: impl Iterator<Item = &'a Arc<T>> + Clone) -> bool {
    let changed = !held.iter().map(Arc::as_ptr).eq(now.clone().map(Arc::as_ptr));
    if changed {
        *held = now.cloned().collect();
    }
    changed
}

/// A piece that takes over the routes which its version before had already.
fn adopted(owner: Owner, meta: &Arc<Meta>, mut piece: Piece, before: Option<&Owned>) -> Rc<Owned> {
    before.into_iter().for_each(|before| piece.adopt(before));
    Owned::new(owner, meta, "", piece)
}
