//! Which ports are those of another Ingress controller, and what does it serve at them?

use super::hosts::from_ingress;
use super::inventory::{IngressPath, Inventory, Port, Service};
use super::protocol::{Protocol, Speaks};
use super::report::Route;
use crate::config::kubernetes::CLASS;

/// An Ingress controller.
struct Controller {
    /// The usual label `app.kubernetes.io/name` of its Service.
    label: &'static str,
    /// What people call it.
    called: &'static str,
    /// The class that its Ingresses have unless somebody has chosen another one.
    class: &'static str,
}

const CONTROLLERS: &[Controller] = &[
    Controller { label: "ingress-nginx", called: "ingress-nginx", class: "nginx" },
    Controller { label: "nginx-ingress", called: "NGINX Ingress Controller", class: "nginx" },
    Controller { label: "traefik", called: "Traefik", class: "traefik" },
    Controller { label: "haproxy-ingress", called: "HAProxy Ingress", class: "haproxy" },
    Controller { label: "kubernetes-ingress", called: "HAProxy Kubernetes Ingress", class: "haproxy" },
    Controller { label: "contour", called: "Contour", class: "contour" },
];

/// What people call the Ingress controller that a Service is of.
pub(super) fn ingress_controller(service: &Service) -> Option<&'static str> {
    let label = service.labels.get("app.kubernetes.io/name")?;
    CONTROLLERS.iter().find(|controller| controller.label == label).map(|controller| controller.called)
}

/// The Ingress controller whose Ingresses a port serves, by what such ports are called and numbered. A controller carries other
/// things beside them (tcp-services of ingress-nginx, entry points of Traefik), which are ports like those of any Service; so is
/// one that something else speaks at, whatever its number.
pub(super) fn front_of(service: &Service, port: &Port, speaks: &Speaks) -> Option<&'static str> {
    let app_protocol = port.app_protocol.as_deref().unwrap_or_default().to_ascii_lowercase();
    let app_protocol = app_protocol.rsplit('/').next().unwrap_or_default();
    let usual = ["http", "https", "web", "websecure"].contains(&port.name.to_ascii_lowercase().as_str())
        || ["http", "https", "h2c"].contains(&app_protocol)
        || [80, 443, 8080, 8443].contains(&port.port);
    let http = port.transport == "TCP" && usual && speaks.protocol != Protocol::Other;
    ingress_controller(service).filter(|_| http)
}

/// Why such a port is replaced.
pub(super) fn replaced_controller(called: &str) -> String {
    format!(
        "{called} is an Ingress controller: Tidegate takes its place, give its Ingresses the class tidegate; no route is needed"
    )
}

/// What the controller serves at its port: the Ingresses of its usual class, of none, and of classes that are no other's.
pub(super) fn served(inventory: &Inventory, service: &Service, port: &Port, called: &str) -> Vec<Route> {
    let cluster = format!("{}/{}:{}", service.namespace, service.name, port.port);
    let own: Vec<&str> = CONTROLLERS.iter().filter(|c| c.called == called).map(|c| c.class).collect();
    let another = |class: &str| class == CLASS || CONTROLLERS.iter().any(|c| c.class == class && !own.contains(&class));
    let its = |path: &&IngressPath| path.class.as_deref().is_none_or(|class| !another(class));
    let mut routes = Vec::<Route>::new();
    for path in inventory.ingresses.iter().flatten().filter(its) {
        let mut route = from_ingress(path, &cluster);
        route.path.truncate(literal(&route.path));
        if routes.iter().all(|there| (&there.host, &there.path) != (&route.host, &route.path)) {
            routes.push(route);
        }
    }
    routes
}

/// How long the part of a path is that means itself: ingress-nginx takes expressions such as `/api(/|$)(.*)`, and what stands before
/// them is a path that they take.
fn literal(path: &str) -> usize {
    path.find(['(', '[', '\\']).unwrap_or(path.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_serves_the_ingresses_that_are_no_others_each_path_once() {
        let path = |host: &str, path: &str, class: Option<&str>| IngressPath {
            host: host.into(),
            path: path.into(),
            class: class.map(str::to_owned),
            ..IngressPath::default()
        };
        let all = [
            path("a.test", "/", Some("nginx")),
            path("a.test", "", None),
            path("a.test", "/api(/|$)(.*)", Some("nginx-internal")),
            path("b.test", "/", Some("traefik")),
            path("c.test", "/", Some(CLASS)),
        ];
        let inventory = Inventory { ingresses: Some(all.into()), ..Inventory::default() };
        let of = |called| {
            let routes = served(&inventory, &Service::default(), &Port::default(), called);
            routes.iter().map(|route| format!("{}{}", route.host, route.path)).collect::<Vec<_>>()
        };
        assert_eq!(of("ingress-nginx"), ["a.test/", "a.test/api"]);
        assert_eq!(of("Traefik"), ["a.test/", "a.test/api", "b.test/"]);
        assert!(served(&Inventory::default(), &Service::default(), &Port::default(), "Contour").is_empty());
    }
}
