//! What does the name of a cluster mean: which Service, which port, and how is it spoken to?
//!
//! `namespace/service[:port]`. Without a port it is the only one, else the one named `http`, else 80. A Service or port that does
//! not exist is a problem of the route that names it; the cluster is there all the same, without endpoints, so that requests
//! get 503 until it appears and never the 404 of a host that nobody knows. What the port speaks, its `appProtocol` says; a
//! port that speaks TLS needs authorities in a routes ConfigMap, because nothing is sent to whom nobody verified.

use super::super::objects::{Key, Objects, Service, ServicePort};
use super::Binding;
use super::external::why_refused;
use super::known::Known;
use super::piece::{Owned, is_label, origin};
use super::secret::Secrets;
use crate::config::kubernetes::Settings;
use crate::model::{Authorities, ClusterSpec, Origin, Problem, UpstreamProtocol};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
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
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) spec: Arc<ClusterSpec>,
    pub(super) binding: Binding,
    /// What is wrong, and what would be right: told to each route that names it.
    pub(super) fault: Option<Fault>,
    /// The Service that the name means, whether it is there or not.
    pub(super) service: Key,
    /// The name of the settings that it took.
    said: Option<String>,
}

/// What is wrong, and what would be right.
pub(super) type Fault = (String, String);

/// Every cluster that some route names.
pub(super) struct Clusters<'a> {
    objects: &'a Objects,
    settings: &'a Settings,
    said: BTreeMap<&'a str, Vec<Said<'a>>>,
    pub(super) known: Known,
}

/// Settings of a Service from a routes ConfigMap.
struct Said<'a> {
    port: Option<&'a str>,
    spec: Cow<'a, ClusterSpec>,
    /// Its client certificate and authorities are there, or none are asked for.
    complete: bool,
}

impl<'a> Clusters<'a> {
    /// Begins with what is known from earlier translations.
    pub(super) fn new(objects: &'a Objects, settings: &'a Settings, known: Known) -> Self {
        Self { objects, settings, said: BTreeMap::new(), known }
    }

    /// Takes the settings from the pieces, of which the first is the oldest.
    pub(super) fn settings(&mut self, pieces: &[Owned<'a>], secrets: &mut Secrets<'_>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for owned in pieces {
            for spec in &owned.piece.fragment.clusters {
                let Some(reference) = Reference::parse(&spec.name) else { continue };
                let others = self.said.entry(reference.whole).or_default();
                if let Some(older) = others.iter().find(|other| other.port == reference.port) {
                    let what = format!("the settings of cluster {} are said already", spec.name);
                    let hint = format!("they are at {}; the oldest object keeps them", older.spec.origin);
                    problems.push(Problem::error(spec.origin.clone(), what, hint));
                    continue;
                }
                let client = spec.tls.as_ref().and_then(|tls| tls.client_certificate.as_ref());
                let key = client.and_then(|name| Some((name, owned.piece.secrets.get(name)?)));
                let certified = key.is_none_or(|(name, key)| secrets.certificate(name, key, &spec.origin));
                let mut spec = Cow::Borrowed(&**spec);
                let complete = find_authorities(&mut spec, secrets) && certified;
                others.push(Said { port: reference.port, spec, complete });
            }
            self.close(owned);
        }
        let said = self.said.values().flatten().map(|said| (ClusterSpec::clone(&said.spec), said.complete)).collect();
        self.known.begin(&self.objects.services, said);
        problems
    }

    /// Settings that are wrong are settings all the same: without endpoints until they are right.
    fn close(&mut self, owned: &Owned<'a>) {
        let references = owned.piece.closed.iter().filter_map(|name| Some((name, Reference::parse(name)?)));
        for (name, reference) in references {
            let others = self.said.entry(reference.whole).or_default();
            if others.iter().all(|other| other.port != reference.port) {
                let at = origin("ConfigMap", owned.meta, format!("data[{}].clusters.{name}", owned.text));
                let spec = Cow::Owned(ClusterSpec::new(name.as_str(), at, Vec::new()));
                others.push(Said { port: reference.port, spec, complete: false });
            }
        }
    }

    /// What is wrong with the cluster of this name, if anything. A name that is no Service is left to other sources.
    pub(super) fn take(&mut self, name: &str) -> Option<Fault> {
        if let Some(made) = self.known.get(name) {
            return made.fault.clone();
        }
        let made = self.make(name, &Reference::parse(name)?);
        let fault = made.fault.clone();
        self.known.insert(name, made);
        fault
    }

    /// Settings that no route has a use for: probably the name is wrong.
    pub(super) fn unused(&mut self) -> Vec<Problem> {
        if self.said.is_empty() {
            return Vec::new();
        }
        let used: BTreeSet<&str> = self.known.finish().filter_map(|(_, made)| made.said.as_deref()).collect();
        let unused = self.said.values().flatten().filter(|said| !used.contains(said.spec.name.as_str()));
        let tell = |said: &Said<'_>| {
            let what = format!("no route forwards to cluster {}", said.spec.name);
            let hint = "the settings of a Service are named namespace/service[:port]";
            Problem::warning(said.spec.origin.clone(), what, hint)
        };
        unused.map(tell).collect()
    }

    fn make(&self, name: &str, reference: &Reference<'_>) -> Made {
        let key = Key::new(reference.namespace, reference.service);
        let objects = self.objects;
        let service = objects.services.get(&key);
        // Files are older than every object, so that a cluster of theirs of the same name is never displaced.
        let created = service.map_or(u64::MAX, |service| service.meta.created.max(1));
        let found = match service {
            None => Err(self.absent(&key)),
            Some(service) => self.bind(service, reference),
        };
        let port = found.as_ref().ok().and_then(|(_, port)| *port);
        let place = Origin { created, ..Origin::of(format!("Service/{key}")) };
        let spec = Arc::new(ClusterSpec::new(name, place, Vec::new()));
        let mut made = Made { spec, binding: Binding::Nothing, fault: None, service: key, said: None };
        let complete = match self.said(reference, port) {
            Some(said) => {
                made.said = Some(said.spec.name.clone());
                made.spec = ClusterSpec { name: name.to_owned(), ..ClusterSpec::clone(&said.spec) }.into();
                said.complete
            }
            None => true,
        };
        Arc::make_mut(&mut made.spec).followed = true;
        match found.and_then(|(binding, port)| speak(Arc::make_mut(&mut made.spec), port).map(|()| binding)) {
            Ok(binding) if complete => made.binding = binding,
            Ok(_) => drop_client_certificate(Arc::make_mut(&mut made.spec)),
            Err(fault) => made.fault = Some(fault),
        }
        if !complete {
            drop_client_certificate(Arc::make_mut(&mut made.spec));
        }
        made
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

    /// The settings of a port: by the very words of the route, by its name, by its number, of the whole Service.
    fn said(&self, reference: &Reference<'_>, port: Option<&ServicePort>) -> Option<&Said<'a>> {
        let all = self.said.get(reference.whole)?;
        let number = port.map(|port| port.port.to_string());
        let name = port.map(|port| &*port.name).filter(|name| !name.is_empty());
        let wanted = [reference.port, name, number.as_deref(), None];
        let at = wanted.into_iter().find_map(|port| all.iter().position(|said| said.port == port))?;
        all.get(at)
    }
}

/// Puts authorities in the place of the name of their Secret. Without them nothing is sent: the cluster has no endpoints, and
/// keeps the name, because who belongs to a cluster is said before its new settings serve, and nobody is trusted by a name.
fn find_authorities(spec: &mut Cow<'_, ClusterSpec>, secrets: &mut Secrets<'_>) -> bool {
    if !spec.tls.as_ref().is_some_and(|tls| matches!(tls.ca, Authorities::Named(_))) {
        return true;
    }
    let ClusterSpec { tls, origin, .. } = spec.to_mut();
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
