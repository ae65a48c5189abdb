//! What does the name of a cluster mean: which Service, which port, and how is it spoken to?
//!
//! `namespace/service[:port]`. Without a port it is the only one, else the one named `http`, else 80. A Service or port that does
//! not exist is a problem of the route that names it; the cluster is there all the same, without endpoints, so that requests
//! get 503 until it appears and never the 404 of a host that nobody knows. What the port speaks, its `appProtocol` says; a
//! port that speaks TLS needs authorities in a routes ConfigMap, because nothing is sent to whom nobody verified.

use super::super::objects::{Key, Objects, Service, ServicePort};
use super::external::why_refused;
use super::known::Known;
use super::piece::{Owned, is_label, origin};
use super::secret::Secrets;
use super::{Binding, Bound};
use crate::config::kubernetes::Settings;
use crate::model::{ClusterSpec, Origin, Problem, UpstreamProtocol};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// A name taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    /// `namespace/service`.
    pub(super) whole: &'a str,
    namespace: &'a str,
    service: &'a str,
    port: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// `None` where it is no Service: then it may be a cluster of the install configuration.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let (whole, port) = name.split_once(':').map_or((name, None), |(whole, port)| (whole, Some(port)));
        let (namespace, service) = whole.split_once('/')?;
        let fits = is_label(namespace) && is_label(service) && port.is_none_or(|port| !port.is_empty());
        fits.then_some(Self { whole, namespace, service, port })
    }
}

/// What a cluster's name came to.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) spec: Arc<ClusterSpec>,
    pub(super) bound: Arc<Bound>,
    /// What is wrong, and what would be right: told to each route that names it.
    pub(super) fault: Option<Box<Fault>>,
    /// The name of the settings that it took.
    pub(super) said: Option<Box<str>>,
}

/// What is wrong, and what would be right.
pub(super) type Fault = (String, String);

/// Makes clusters.
pub(super) struct Clusters<'a> {
    pub(super) objects: &'a Objects,
    pub(super) settings: &'a Settings,
    pub(super) said: &'a Settled,
}

/// Settings of Services from routes ConfigMaps, by `namespace/service`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Settled(BTreeMap<String, Vec<Said>>);

/// Settings of a Service from a routes ConfigMap.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    port: Option<String>,
    spec: ClusterSpec,
    /// Its client certificate and authorities are there, or none are asked for.
    complete: bool,
}

impl Settled {
    /// Takes the settings from the pieces, of which the first is the oldest.
    pub(super) fn of(pieces: &[Rc<Owned>], secrets: &mut Secrets<'_>, problems: &mut Vec<Problem>) -> Self {
        let mut settled = Self::default();
        for owned in pieces {
            for spec in &owned.piece().fragment.clusters {
                let Some(reference) = Reference::parse(&spec.name) else { continue };
                let others = settled.0.entry(reference.whole.to_owned()).or_default();
                if let Some(older) = others.iter().find(|other| other.port.as_deref() == reference.port) {
                    let what = format!("the settings of cluster {} are said already", spec.name);
                    let hint = format!("they are at {}; the oldest object keeps them", older.spec.origin);
                    problems.push(Problem::error(spec.origin.clone(), what, hint));
                    continue;
                }
                let client = spec.tls.as_ref().and_then(|tls| tls.client_certificate.as_ref());
                let key = client.and_then(|name| Some((name, owned.piece().secrets.get(name)?)));
                let certified = key.is_none_or(|(name, key)| secrets.certificate(name, key, &spec.origin));
                let mut spec = ClusterSpec::clone(spec);
                let complete = find_authorities(&mut spec, secrets) && certified;
                others.push(Said { port: reference.port.map(str::to_owned), spec, complete });
            }
            settled.close(owned);
        }
        settled
    }

    /// Settings that are wrong are settings all the same: without endpoints until they are right.
    fn close(&mut self, owned: &Owned) {
        let references = owned.piece().closed.iter().filter_map(|name| Some((name, Reference::parse(name)?)));
        for (name, reference) in references {
            let others = self.0.entry(reference.whole.to_owned()).or_default();
            if others.iter().all(|other| other.port.as_deref() != reference.port) {
                let at = origin("ConfigMap", &owned.meta, format!("data[{}].clusters.{name}", owned.text));
                let spec = ClusterSpec::new(name.as_str(), at, Vec::new());
                others.push(Said { port: reference.port.map(str::to_owned), spec, complete: false });
            }
        }
    }

    /// Services of which these say something else.
    pub(super) fn differences(&self, other: &Self) -> BTreeSet<String> {
        let all: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        all.into_iter().filter(|service| self.0.get(*service) != other.0.get(*service)).cloned().collect()
    }

    /// Settings that no route has a use for: probably the name is wrong.
    pub(super) fn unused(&self, known: &Known) -> Vec<Problem> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let used = known.said();
        let unused = self.0.values().flatten().filter(|said| !used.contains(&*said.spec.name));
        let tell = |said: &Said| {
            let what = format!("no route forwards to cluster {}", said.spec.name);
            let hint = "the settings of a Service are named namespace/service[:port]";
            Problem::warning(said.spec.origin.clone(), what, hint)
        };
        unused.map(tell).collect()
    }

    /// The settings of a port: by the very words of the route, by its name, by its number, of the whole Service.
    fn find(&self, reference: &Reference<'_>, port: Option<&ServicePort>) -> Option<&Said> {
        let all = self.0.get(reference.whole)?;
        let number = port.map(|port| port.port.to_string());
        let name = port.map(|port| &*port.name).filter(|name| !name.is_empty());
        let wanted = [reference.port, name, number.as_deref(), None];
        let at = wanted.into_iter().find_map(|port| all.iter().position(|said| said.port.as_deref() == port))?;
        all.get(at)
    }
}

impl<'a> Clusters<'a> {
    /// The cluster of a name. A name that is no Service is left to other sources.
    pub(super) fn make(&self, name: &Arc<str>) -> Option<Made> {
        let reference = Reference::parse(name)?;
        let key = Key::new(reference.namespace, reference.service);
        let service = self.objects.services.get(&key);
        // Files are older than every object, so that a cluster of theirs of the same name is never displaced.
        let created = service.map_or(u64::MAX, |service| service.meta.created.max(1));
        let found = match service {
            None => Err(self.absent(&key)),
            Some(service) => self.bind(service, &reference),
        };
        let port = found.as_ref().ok().and_then(|(_, port)| *port);
        let place = Origin { created, ..Origin::of(format!("Service/{key}")) };
        let (mut said, mut complete) = (None, true);
        let mut spec = match self.said.find(&reference, port) {
            Some(found) => {
                (said, complete) = (Some((*found.spec.name).into()), found.complete);
                ClusterSpec { name: Arc::clone(name), ..found.spec.clone() }
            }
            None => ClusterSpec::new(Arc::clone(name), place, Vec::new()),
        };
        spec.followed = true;
        let (binding, fault) = match found.and_then(|(binding, port)| speak(&mut spec, port).map(|()| binding)) {
            Ok(binding) if complete => (binding, None),
            Ok(_) => (Binding::Nothing, None),
            Err(fault) => (Binding::Nothing, Some(Box::new(fault))),
        };
        if !complete {
            drop_client_certificate(&mut spec);
        }
        let bound = Arc::new(Bound { cluster: Arc::clone(name), binding });
        Some(Made { spec: Arc::new(spec), bound, fault, said })
    }

    fn absent(&self, key: &Key) -> Fault {
        let namespaces = &self.settings.namespaces;
        let hint = if namespaces.is_empty() || namespaces.iter().any(|name| **name == *key.namespace) {
            "requests get 503 until it is there".to_owned()
        } else {
            format!("sources.kubernetes.namespaces of the install configuration leaves {} out", key.namespace)
        };
        (format!("there is no Service {key}"), hint)
    }

    fn bind(
        &self,
        service: &'a Service,
        reference: &Reference<'_>,
    ) -> Result<(Binding, Option<&'a ServicePort>), Fault> {
        let Some(host) = &service.external_name else {
            let port = find_port(service, reference.port)?;
            let binding = Binding::Slices { service: service.meta.key.clone(), port: port.name.clone() };
            return Ok((binding, Some(port)));
        };
        let key = &service.meta.key;
        if !self.settings.external_names {
            let hint = "sources.kubernetes.external_names of the install configuration allows it";
            return Err((format!("Service {key} is an ExternalName, which is not followed"), hint.into()));
        }
        if let Some(why) = why_refused(host) {
            let hint = "an external name must not lead to the node itself".to_owned();
            return Err((format!("Service {key} is the ExternalName {host:?}, {why}"), hint));
        }
        // Ports are optional for an ExternalName: a number stands for itself.
        let number = reference.port.and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        match (find_port(service, reference.port), number) {
            (Ok(port), _) => Ok((Binding::Name { host, port: port.port }, Some(port))),
            (Err(_), Some(port)) if service.ports.is_empty() => Ok((Binding::Name { host, port }, None)),
            (Err(fault), _) => Err(fault),
        }
    }
}

/// Puts authorities in the place of the name of their Secret. Without them nothing is sent: the cluster has no endpoints, and
/// keeps the name, because who belongs to a cluster is said before its new settings serve, and nobody is trusted by a name.
fn find_authorities(spec: &mut ClusterSpec, secrets: &mut Secrets<'_>) -> bool {
    let ClusterSpec { tls, origin, .. } = spec;
    tls.as_mut().is_none_or(|tls| secrets.find(&mut tls.ca, origin))
}

/// Without its client certificate nothing is sent: the cluster has no endpoints until the certificate is there.
fn drop_client_certificate(spec: &mut ClusterSpec) {
    if let Some(tls) = &mut spec.tls {
        tls.client_certificate = None;
    }
}

fn find_port<'s>(service: &'s Service, wanted: Option<&str>) -> Result<&'s ServicePort, Fault> {
    let ports = &service.ports;
    let named = |name: &str| ports.iter().find(|port| *port.name == *name);
    let numbered = |number: u16| ports.iter().find(|port| port.port == number);
    let found = match (wanted, ports.as_slice()) {
        (Some(wanted), _) => wanted.parse().map_or_else(|_| named(wanted), numbered),
        (None, [only]) => Some(only),
        (None, _) => named("http").or_else(|| numbered(80)),
    };
    found.ok_or_else(|| {
        let key = &service.meta.key;
        let what = match wanted {
            Some(wanted) => format!("Service {key} has no TCP port {wanted}"),
            None if ports.is_empty() => format!("Service {key} has no TCP port"),
            None => format!("Service {key} has several ports, and none is named http or is 80"),
        };
        (what, ports_hint(service))
    })
}

fn ports_hint(service: &Service) -> String {
    let show = |port: &ServicePort| match &*port.name {
        "" => port.port.to_string(),
        name => format!("{name} ({})", port.port),
    };
    let ports: Vec<String> = service.ports.iter().map(show).collect();
    if ports.is_empty() { "add it to the Service".into() } else { format!("its ports are {}", ports.join(", ")) }
}

/// Lets `appProtocol` decide how the port is spoken to; it is said by who made the Service and knows.
fn speak(spec: &mut ClusterSpec, port: Option<&ServicePort>) -> Result<(), Fault> {
    let said = port.and_then(|port| port.app_protocol.as_deref()).unwrap_or_default();
    match said.to_ascii_lowercase().as_str() {
        "kubernetes.io/h2c" | "h2c" | "http2" | "grpc" => spec.protocol = UpstreamProtocol::Http2,
        "kubernetes.io/ws" | "http" => spec.protocol = UpstreamProtocol::Http1,
        "kubernetes.io/wss" | "https" if spec.tls.is_none() => {
            let what = format!("{} speaks TLS, and nothing says whom to trust", spec.name);
            let name = &spec.name;
            let hint = format!(
                "add to a routes ConfigMap: clusters: {{ \"{name}\": {{ tls: {{ ca: PEM text, server_name: NAME }} }} }}"
            );
            return Err((what, hint));
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_service_only_in_the_form_that_services_have() {
        let parse = |name| Reference::parse(name).map(|r| (r.whole, r.port));
        assert_eq!(parse("shop/web"), Some(("shop/web", None)));
        assert_eq!(parse("shop/web:http"), Some(("shop/web", Some("http"))));
        for other in ["web", "shop/web:", "shop/a/b", "/web", "shop/", "Shop/web", "shop/web.x", "shop/-a"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
