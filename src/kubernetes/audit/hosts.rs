//! Under which host and path would Tidegate serve a port?

use super::super::convert::{EXPOSE, PORT};
use super::inventory::{IngressPath, Inventory, Port, Service};
use super::report::Route;
use crate::config::kubernetes::CLASS;

/// What external-dns publishes for a Service: hosts divided by commas.
const DNS_NAMES: &[&str] =
    &["external-dns.alpha.kubernetes.io/hostname", "external-dns.alpha.kubernetes.io/internal-hostname"];
/// A domain of nobody (RFC 2606).
const PLACEHOLDER: &str = "example.com";

/// Where hosts are looked for.
pub(super) struct Hosts<'a> {
    pub(super) inventory: &'a Inventory,
    /// The domain that a person gave.
    pub(super) domain: Option<&'a str>,
}

impl Hosts<'_> {
    /// Routes of a port: by the annotation of its Service, else by Ingresses, else by names that are published for it, else made up.
    /// `first`: whether it is the first port of its Service that gets routes.
    pub(super) fn of(&self, service: &Service, port: &Port, first: bool) -> Vec<Route> {
        let cluster = format!("{}/{}:{}", service.namespace, service.name, port.port);
        let exposed = if exposes(service, port) { annotated(service, &cluster) } else { Vec::new() };
        if !exposed.is_empty() {
            return exposed;
        }
        let by_ingress = self.by_ingress(service, port, &cluster);
        if !by_ingress.is_empty() {
            return by_ingress;
        }
        let published = if first { published(service, &cluster) } else { Vec::new() };
        if !published.is_empty() {
            return published;
        }
        vec![self.made_up(service, port, first, cluster)]
    }

    fn by_ingress(&self, service: &Service, port: &Port, cluster: &str) -> Vec<Route> {
        let leads_here = |path: &&IngressPath| {
            let names = (&path.namespace, &path.service) == (&service.namespace, &service.name);
            names && (path.port == port.port.to_string() || (!path.port.is_empty() && path.port == port.name))
        };
        let mut routes = Vec::<Route>::new();
        for path in self.inventory.ingresses.iter().flatten().filter(leads_here) {
            let route = from_ingress(path, cluster);
            match routes.iter_mut().find(|r| (&r.host, &r.path) == (&route.host, &route.path)) {
                // Two Ingresses of different classes with the same path: what Tidegate serves already counts.
                Some(there) if there.served_by.is_none() => *there = route,
                Some(_) => {}
                None => routes.push(route),
            }
        }
        routes
    }

    fn made_up(&self, service: &Service, port: &Port, first: bool, cluster: String) -> Route {
        let mut label = service.name.clone();
        if !first {
            label += &format!("-{}", if port.name.is_empty() { port.port.to_string() } else { port.name.clone() });
        }
        let host = match self.domain {
            Some(domain) if self.alone(service) => format!("{label}.{domain}"),
            domain => format!("{label}.{}.{}", service.namespace, domain.unwrap_or(PLACEHOLDER)),
        };
        let (from, placeholder) = match self.domain {
            Some(_) => ("the given domain", false),
            None => ("nothing", true),
        };
        Route { host, path: "/".into(), cluster, from: from.into(), placeholder, served_by: None }
    }

    /// Whether no other Service that opens node ports has this name.
    fn alone(&self, service: &Service) -> bool {
        let same = |other: &&Service| other.name == service.name && other.node_ports().next().is_some();
        self.inventory.services.iter().filter(same).count() < 2
    }
}

/// Whether it is this port that the annotation means: the one it names, else the only one, `http`, or 80.
fn exposes(service: &Service, port: &Port) -> bool {
    match (service.annotations.get(PORT).map(|written| written.trim()), service.ports.as_slice()) {
        (Some(wanted), _) => wanted == port.name || wanted == port.port.to_string(),
        (None, [_only]) => true,
        (None, all) if all.iter().any(|port| port.name == "http") => port.name == "http",
        (None, _) => port.port == 80,
    }
}

fn annotated(service: &Service, cluster: &str) -> Vec<Route> {
    let written = service.annotations.get(EXPOSE).map(String::as_str).unwrap_or_default();
    let places = written.split([',', ' ', '\t', '\n', '\r']).filter(|place| !place.is_empty());
    places
        .map(|place| {
            let at = place.find(['/', '=', '~']).unwrap_or(place.len());
            let (host, path) = place.split_at(at);
            Route {
                host: host.into(),
                path: if path.is_empty() { "/".into() } else { path.into() },
                cluster: cluster.into(),
                from: format!("the annotation {EXPOSE}"),
                placeholder: false,
                served_by: Some(format!("its annotation {EXPOSE}")),
            }
        })
        .collect()
}

fn published(service: &Service, cluster: &str) -> Vec<Route> {
    let names = DNS_NAMES.iter().filter_map(|key| service.annotations.get(*key)).flat_map(|names| names.split(','));
    names
        .map(|name| name.trim().trim_end_matches('.'))
        .filter(|name| !name.is_empty())
        .map(|name| Route {
            host: name.to_ascii_lowercase(),
            path: "/".into(),
            cluster: cluster.into(),
            from: "external-dns".into(),
            ..Route::default()
        })
        .collect()
}

/// The route of a path of an Ingress.
pub(super) fn from_ingress(path: &IngressPath, cluster: &str) -> Route {
    let ingress = format!("Ingress {}/{}", path.namespace, path.ingress);
    let written = if path.path.is_empty() { "/" } else { &path.path };
    // A prefix of an Ingress is one of whole segments, as a prefix of a route is.
    let written = if path.exact { format!("={written}") } else { written.to_owned() };
    let served = path.class.as_deref() == Some(CLASS);
    Route {
        host: path.host.clone(),
        path: written,
        cluster: cluster.into(),
        from: format!("{ingress}, or give that the class {CLASS}"),
        placeholder: false,
        served_by: served.then_some(ingress),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        let port = Port { name: "http".into(), port: 80, node_port: Some(30080), ..Port::default() };
        let ports = vec![port];
        Service { namespace: "shop".into(), name: "web".into(), kind: "NodePort".into(), ports, ..Service::default() }
    }

    fn path(host: &str, path: &str, port: &str, class: &str) -> IngressPath {
        IngressPath {
            namespace: "shop".into(),
            ingress: "web".into(),
            class: Some(class.into()),
            service: "web".into(),
            port: port.into(),
            host: host.into(),
            path: path.into(),
            exact: false,
        }
    }

    fn lines(inventory: &Inventory, domain: Option<&str>, first: bool) -> Vec<String> {
        let service = inventory.services[0].clone();
        let routes = Hosts { inventory, domain }.of(&service, &service.ports[0], first);
        routes.iter().map(|r| format!("{}{}: {}", r.host, r.path, r.cluster)).collect()
    }

    #[test]
    fn a_host_is_made_up_only_where_nothing_tells_one() {
        let mut inventory = Inventory { services: vec![service()], ..Inventory::default() };
        assert_eq!(lines(&inventory, None, true), ["web.shop.example.com/: shop/web:80"]);
        assert_eq!(lines(&inventory, None, false), ["web-http.shop.example.com/: shop/web:80"]);
        assert_eq!(lines(&inventory, Some("test"), true), ["web.test/: shop/web:80"]);
        inventory.services.push(Service { namespace: "other".into(), ..service() });
        assert_eq!(lines(&inventory, Some("test"), true), ["web.shop.test/: shop/web:80"], "two of one name");
        inventory.services[0].annotations.insert(DNS_NAMES[0].into(), "Shop.test., www.shop.test".into());
        assert_eq!(lines(&inventory, None, true), ["shop.test/: shop/web:80", "www.shop.test/: shop/web:80"]);
        inventory.ingresses = Some(vec![path("i.test", "/api", "http", "nginx"), path("i.test", "", "80", "nginx")]);
        assert_eq!(lines(&inventory, None, true), ["i.test/api: shop/web:80", "i.test/: shop/web:80"]);
        inventory.services[0].annotations.insert(EXPOSE.into(), "e.test/api/, f.test".into());
        assert_eq!(lines(&inventory, None, true), ["e.test/api/: shop/web:80", "f.test/: shop/web:80"]);
    }

    #[test]
    fn an_ingress_of_our_class_serves_already() {
        let ours = Some(vec![path("i.test", "/", "80", "nginx"), path("i.test", "/", "80", CLASS)]);
        let inventory = Inventory { services: vec![service()], ingresses: ours, ..Inventory::default() };
        let routes = Hosts { inventory: &inventory, domain: None }.of(&service(), &service().ports[0], true);
        assert_eq!(routes.len(), 1);
        assert_eq!(routes[0].served_by.as_deref(), Some("Ingress shop/web"));
    }

    #[test]
    fn the_annotation_speaks_for_one_port() {
        let port = |name: &str, number| Port { name: name.into(), port: number, ..Port::default() };
        let mut service = Service { ports: vec![port("a", 80), port("b", 81)], ..Service::default() };
        let exposed = |service: &Service| {
            service.ports.iter().filter(|p| exposes(service, p)).map(|p| p.port).collect::<Vec<_>>()
        };
        assert_eq!(exposed(&service), [80]);
        service.ports[1].name = "http".into();
        assert_eq!(exposed(&service), [81]);
        service.annotations.insert(PORT.into(), "80".into());
        assert_eq!(exposed(&service), [80]);
        assert_eq!(exposed(&Service { ports: vec![port("", 7)], ..Service::default() }), [7]);
    }

    #[test]
    fn an_ingress_to_another_port_tells_nothing() {
        let other = Some(vec![path("i.test", "/", "8080", "nginx"), path("i.test", "/", "", "nginx")]);
        let inventory = Inventory { services: vec![service()], ingresses: other, ..Inventory::default() };
        assert_eq!(lines(&inventory, None, true), ["web.shop.example.com/: shop/web:80"]);
    }
}
