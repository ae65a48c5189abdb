//! Which endpoints does a port of a Service have, as its EndpointSlices say?
//!
//! Kept as small as can be: an IPv4 endpoint is 16 bytes, an IPv6 one 28, whatever the API said about it. Names of zones are
//! held once; of node names only "it is ours" is kept.

mod keep;

pub(super) use keep::SliceKeeper;

use super::objects::Key;
use crate::config::kubernetes::Settings;
use crate::model::{EndpointSpec, Nearness};
use k8s_openapi::api::discovery::v1 as api;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Which Service a slice belongs to.
const SERVICE: &str = "kubernetes.io/service-name";

/// Every EndpointSlice that was seen.
#[derive(Debug)]
pub(super) struct Slices {
    here: Here,
    zones: Zones,
    slices: HashMap<Key, Slice>,
    services: HashMap<Key, Vec<Key>>,
    endpoints: usize,
}

/// Where this gate is.
#[derive(Debug)]
struct Here {
    node: Option<String>,
    zone: u16,
    /// The zone is configured, and not to be learnt.
    zone_given: bool,
    locality: bool,
    /// Which address of an endpoint of both families is taken.
    prefer_v6: bool,
}

/// A slice as it is kept.
#[derive(Debug, PartialEq)]
pub(super) struct Slice {
    service: Key,
    ports: Box<[Port]>,
    members: Members,
}

/// What was read of an object of the API.
#[derive(Debug)]
pub(super) struct Read {
    /// Its name.
    pub(super) key: Key,
    /// `None` where nothing of it is of use: no Service, or names instead of addresses.
    pub(super) slice: Option<Slice>,
}

#[derive(Debug, PartialEq)]
struct Port {
    name: Box<str>,
    number: u16,
}

#[derive(Debug, PartialEq)]
enum Members {
    V4(Box<[Member<Ipv4Addr>]>),
    V6(Box<[Member<Ipv6Addr>]>),
}

#[derive(Debug, PartialEq)]
struct Member<A> {
    address: A,
    /// A hash of the pod, by which its addresses of both families know each other; 0: not said.
    pod: u32,
    zone: u16,
    /// The zones it is hinted to, as one name.
    hint: u16,
    flags: u8,
}

const READY: u8 = 1;
const SERVING: u8 = 2;
const TERMINATING: u8 = 4;
/// On this node, or hinted to it.
const OUR_NODE: u8 = 8;

impl Slices {
    /// None yet.
    pub(super) fn new(settings: &Settings) -> Self {
        let mut zones = Zones::default();
        let zone = settings.zone.as_deref().map_or(0, |zone| zones.id(zone));
        let here = Here {
            node: settings.node.clone(),
            zone,
            zone_given: settings.zone.is_some(),
            locality: settings.locality,
            prefer_v6: !settings.addresses.is_empty() && settings.addresses.iter().all(IpAddr::is_ipv6),
        };
        Self { here, zones, slices: HashMap::new(), services: HashMap::new(), endpoints: 0 }
    }

    /// How many endpoints there are in all slices.
    pub(super) fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// How many slices there are.
    pub(super) fn len(&self) -> usize {
        self.slices.len()
    }

    /// Makes an object of the API small.
    pub(super) fn read(&mut self, object: api::EndpointSlice) -> Read {
        let text = |text: &Option<String>| Arc::<str>::from(text.as_deref().unwrap_or_default());
        let key = Key::new(text(&object.metadata.namespace), text(&object.metadata.name));
        let service = object.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE));
        let service = service.filter(|name| !name.is_empty()).map(|name| {
            // Nearly always there already: then its name is not kept once more.
            let key = Key::new(Arc::clone(&key.namespace), name.as_str());
            self.services.get_key_value(&key).map_or(key, |(known, _)| known.clone())
        });
        let slice = service.and_then(|service| {
            let ports = object.ports.unwrap_or_default().into_iter().filter_map(port).collect();
            let endpoints = object.endpoints.unwrap_or_default();
            let members = match object.address_type.as_str() {
                "IPv4" => Members::V4(endpoints.iter().filter_map(|e| self.member(e)).collect()),
                "IPv6" => Members::V6(endpoints.iter().filter_map(|e| self.member(e)).collect()),
                _ => return None,
            };
            Some(Slice { service, ports, members })
        });
        Read { key, slice }
    }

    fn member<A: std::str::FromStr>(&mut self, endpoint: &api::Endpoint) -> Option<Member<A>> {
        // Of more addresses than one Kubernetes itself looks at the first alone.
        let address = endpoint.addresses.first()?.parse().ok()?;
        let conditions = endpoint.conditions.as_ref();
        // What is not said means yes, yes and no.
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
        let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
        let zone = endpoint.zone.as_deref().map_or(0, |zone| self.zones.id(zone));
        let here = self.here.node.as_deref();
        let ours = here.is_some() && endpoint.node_name.as_deref() == here;
        if ours && zone != 0 && !self.here.zone_given {
            self.here.zone = zone;
        }
        let hints = endpoint.hints.as_ref();
        let nodes = hints.and_then(|h| h.for_nodes.as_deref()).unwrap_or_default();
        let hinted = nodes.iter().any(|node| Some(node.name.as_str()) == here);
        let zones = hints.and_then(|h| h.for_zones.as_deref()).unwrap_or_default();
        let hint = match zones {
            [] => 0,
            [one] => self.zones.id(&one.name),
            more => self.zones.id(&more.iter().map(|zone| zone.name.as_str()).collect::<Vec<_>>().join(",")),
        };
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(ready, READY)
            | flag(serving, SERVING)
            | flag(terminating, TERMINATING)
            | flag(ours || hinted, OUR_NODE);
        Some(Member { address, pod: pod(endpoint), zone, hint, flags })
    }

    /// The zone of this gate, as far as it is known.
    pub(super) fn zone(&self) -> Option<&str> {
        self.zones.name(self.here.zone)
    }

    /// A slice is there, or has changed: Services whose endpoints may be others now.
    pub(super) fn put(&mut self, read: Read) -> Vec<Key> {
        let Read { key, slice } = read;
        if slice.as_ref() == self.slices.get(&key) {
            return Vec::new();
        }
        let mut touched = self.remove(&key);
        if let Some(slice) = slice {
            self.endpoints += slice.members.len();
            self.services.entry(slice.service.clone()).or_default().push(key.clone());
            if !touched.contains(&slice.service) {
                touched.push(slice.service.clone());
            }
            self.slices.insert(key, slice);
        }
        touched
    }

    /// A slice is gone: Services whose endpoints may be others now.
    pub(super) fn remove(&mut self, key: &Key) -> Vec<Key> {
        let Some(slice) = self.slices.remove(key) else { return Vec::new() };
        self.endpoints -= slice.members.len();
        if let Some(slices) = self.services.get_mut(&slice.service) {
            slices.retain(|other| other != key);
            if slices.is_empty() {
                self.services.remove(&slice.service);
            }
        }
        vec![slice.service]
    }

    /// These are all slices of a namespace (`None`: of all), but those to keep: Services whose endpoints may be others now.
    pub(super) fn replace(&mut self, namespace: Option<&str>, all: Vec<Read>, keep: &BTreeSet<Key>) -> Vec<Key> {
        let there: HashSet<&Key> = all.iter().map(|read| &read.key).collect();
        let of = |key: &Key| namespace.is_none_or(|namespace| *namespace == *key.namespace);
        let gone = |key: &&Key| of(key) && !there.contains(key) && !keep.contains(*key);
        let gone: Vec<Key> = self.slices.keys().filter(gone).cloned().collect();
        let mut touched: BTreeSet<Key> = gone.iter().flat_map(|key| self.remove(key)).collect();
        touched.extend(all.into_iter().flat_map(|read| self.put(read)));
        touched.into_iter().collect()
    }

    /// The endpoints of the port of this name (empty: the unnamed one), sorted: the ready ones, and only where there is none,
    /// those that serve until they have ended. An endpoint with addresses of both families counts once: by IPv4, or by IPv6
    /// where this node has no other address.
    pub(super) fn members(&self, service: &Key, port: &str) -> Vec<EndpointSpec> {
        let mut found = Vec::new();
        let slices = self.services.get(service).into_iter().flatten().filter_map(|key| self.slices.get(key));
        for slice in slices {
            for port in slice.ports.iter().filter(|p| *p.name == *port) {
                match &slice.members {
                    Members::V4(members) => found.extend(members.iter().map(|m| self.candidate(m, port.number))),
                    Members::V6(members) => found.extend(members.iter().map(|m| self.candidate(m, port.number))),
                }
            }
        }
        let wanted = if found.iter().any(|c| c.flags & READY != 0) { READY } else { SERVING | TERMINATING };
        found.retain(|c| c.flags & wanted == wanted);
        self.count_once(&mut found);
        found.sort_unstable_by_key(|c| (c.spec.address, c.spec.near));
        found.dedup_by_key(|c| c.spec.address);
        found.into_iter().map(|c| c.spec).collect()
    }

    fn candidate<A: Copy + Into<IpAddr>>(&self, member: &Member<A>, port: u16) -> Candidate {
        let address = SocketAddr::new(member.address.into(), port);
        let near = self.near(member.flags, member.zone, member.hint);
        Candidate { spec: EndpointSpec { address, weight: 1, near }, pod: member.pod, flags: member.flags }
    }

    fn near(&self, flags: u8, zone: u16, hint: u16) -> Nearness {
        let here = &self.here;
        if !here.locality {
            return Nearness::Anywhere;
        }
        if flags & OUR_NODE != 0 {
            return Nearness::Node;
        }
        let same_zone = here.zone != 0 && (zone == here.zone || self.zones.within(here.zone, hint));
        if same_zone { Nearness::Zone } else { Nearness::Anywhere }
    }

    /// Leaves out the other address of pods that have one of the preferred family; of endpoints that name no pod, the whole
    /// other family.
    fn count_once(&self, found: &mut Vec<Candidate>) {
        let preferred = |c: &Candidate| c.spec.address.is_ipv6() == self.here.prefer_v6;
        if found.iter().all(preferred) {
            return;
        }
        let pods: HashSet<u32> = found.iter().filter(|c| preferred(c)).map(|c| c.pod).collect();
        found.retain(|c| preferred(c) || !pods.contains(&c.pod));
    }
}

/// An endpoint that may be one.
struct Candidate {
    spec: EndpointSpec,
    pod: u32,
    flags: u8,
}

impl Members {
    fn len(&self) -> usize {
        match self {
            Self::V4(members) => members.len(),
            Self::V6(members) => members.len(),
        }
    }
}

fn port(port: api::EndpointPort) -> Option<Port> {
    let tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
    let number = port.port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0 && tcp)?;
    Some(Port { name: port.name.unwrap_or_default().into(), number })
}

/// Two pods of a Service with the same hash, of which one has no address of the preferred family, would be taken for one: once
/// in four thousand million.
fn pod(endpoint: &api::Endpoint) -> u32 {
    let Some(target) = &endpoint.target_ref else { return 0 };
    let mut hasher = DefaultHasher::new();
    (&target.uid, &target.namespace, &target.name).hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
    u32::from_le_bytes([a, b, c, d]).max(1)
}

/// Names of zones, and of sets of zones, each held once; number 0 is no zone.
#[derive(Debug, Default)]
struct Zones {
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u16>,
}

impl Zones {
    /// The number of a name; 0 where there are too many names, so that nothing is near by them.
    fn id(&mut self, name: &str) -> u16 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let Ok(number) = u16::try_from(self.names.len() + 1) else { return 0 };
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        number
    }

    fn name(&self, number: u16) -> Option<&str> {
        self.names.get(usize::from(number).checked_sub(1)?).map(|name| &**name)
    }

    fn within(&self, zone: u16, set: u16) -> bool {
        let (Some(zone), Some(set)) = (self.name(zone), self.name(set)) else { return false };
        set.split(',').any(|one| one == zone)
    }
}

#[cfg(test)]
mod tests;
