//! What can be replaced, by what, and what cannot?

use super::front::{self, front_of, ingress_controller, replaced_controller};
use super::hosts::Hosts;
use super::inventory::{Inventory, Port, Service};
use super::patch::{Patch, Patches};
use super::protocol::{Protocol, Speaks, guess};
use super::report::{Endpoints, OpenNode, OpenPort, OpenService, Reach, Report, Route, Summary, Verdict};
use std::collections::BTreeMap;

/// What a person wishes of the answer.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// The domain of made-up hosts.
    pub domain: Option<String>,
    /// How kubectl is called, with the flags that choose the cluster.
    pub kubectl: String,
}

impl Default for Wishes {
    fn default() -> Self {
        Self { domain: None, kubectl: "kubectl".into() }
    }
}

/// What was answered when ports were asked, by node port (TCP).
pub type Probed = BTreeMap<u16, Speaks>;

/// Judges what was read.
pub fn judge(inventory: &Inventory, wishes: &Wishes, probed: &Probed) -> Report {
    let judge = Judge { inventory, wishes, probed };
    let mut services: Vec<OpenService> =
        inventory.services.iter().filter(|s| s.node_ports().next().is_some()).map(|s| judge.service(s)).collect();
    services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let nodes = inventory.nodes.iter().flatten();
    let nodes = nodes.map(|n| OpenNode { name: n.name.clone(), addresses: n.addresses.clone() }).collect();
    Report { summary: summary(inventory, &services), services, nodes, notes: inventory.notes.clone() }
}

struct Judge<'a> {
    inventory: &'a Inventory,
    wishes: &'a Wishes,
    probed: &'a Probed,
}

impl Judge<'_> {
    fn service(&self, service: &Service) -> OpenService {
        let spoken: Vec<Speaks> = service.ports.iter().map(|port| self.speaks(port)).collect();
        let mut ports = Vec::new();
        let mut replaced = Vec::new();
        for (place, port) in service.ports.iter().enumerate() {
            let Some(node_port) = port.node_port else { continue };
            let speaks = spoken.get(place).cloned().unwrap_or_default();
            let front = front_of(service, port, &speaks);
            let (replace, why) = match front {
                Some(name) => (true, replaced_controller(name)),
                None => replaceable(&speaks, service, &spoken),
            };
            let routes =
                if replace && front.is_none() { self.routes(service, place, &speaks, &ports) } else { Vec::new() };
            let front = front.map(|called| front::served(self.inventory, service, port, called));
            if replace {
                replaced.push(place);
            }
            ports.push(OpenPort {
                node_port,
                protocol: port.transport.clone(),
                name: port.name.clone(),
                port: port.port,
                target: port.target.clone(),
                app_protocol: port.app_protocol.clone(),
                endpoints: self.endpoints(service, port),
                speaks,
                replace,
                why,
                routes,
                front,
            });
        }
        let replace = verdict(ports.iter().filter(|p| p.replace).count(), ports.len());
        OpenService {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            kind: service.kind.clone(),
            external_traffic_policy: if service.local { "Local" } else { "Cluster" },
            client_address_lost: !service.local,
            health_check_node_port: service.health_check_node_port,
            reach: self.reach(service),
            replace,
            patches: self.patches(service, replace, &replaced, &spoken),
            notes: self.notes(service, replace, &ports),
            ports,
        }
    }

    /// What a port says when it is asked goes before what its name says, unless it says nothing.
    fn speaks(&self, port: &Port) -> Speaks {
        let asked = port.node_port.filter(|_| port.transport == "TCP").and_then(|n| self.probed.get(&n));
        match asked {
            Some(speaks) if speaks.protocol != Protocol::Unknown => speaks.clone(),
            _ => guess(port),
        }
    }

    /// A port of TLS beside one of HTTP needs no route of its own: Tidegate ends TLS itself.
    fn routes(&self, service: &Service, place: usize, speaks: &Speaks, before: &[OpenPort]) -> Vec<Route> {
        let Some(port) = service.ports.get(place).filter(|_| speaks.protocol != Protocol::Tls) else {
            return Vec::new();
        };
        let first = before.iter().all(|port| port.routes.is_empty());
        Hosts { inventory: self.inventory, domain: self.wishes.domain.as_deref() }.of(service, port, first)
    }

    fn endpoints(&self, service: &Service, port: &Port) -> Option<Endpoints> {
        self.inventory.endpoints_known.then(|| {
            let of_port = service.endpoints.iter().filter(|e| e.port_name == port.name);
            let (ready, others): (Vec<_>, Vec<_>) = of_port.partition(|e| e.ready);
            Endpoints { ready: ready.len(), not_ready: others.len() }
        })
    }

    fn reach(&self, service: &Service) -> Reach {
        let ready = || service.ready_nodes().into_iter().map(str::to_owned).collect();
        Reach {
            only_nodes: (service.local && self.inventory.endpoints_known).then(ready),
            load_balancer: service.load_balancer.clone(),
            source_ranges: service.source_ranges.clone(),
            external_ips: service.external_ips.clone(),
        }
    }

    fn patches(&self, service: &Service, replace: Verdict, replaced: &[usize], spoken: &[Speaks]) -> Vec<Patch> {
        let patches = Patches { service, kubectl: &self.wishes.kubectl };
        let http2 = |place: &&usize| spoken.get(**place).is_some_and(|s| s.protocol == Protocol::Http2);
        let mut all: Vec<Patch> =
            replaced.iter().filter(http2).filter_map(|place| patches.speak_http2(*place)).collect();
        match replace {
            Verdict::Yes => all.extend(patches.close_all()),
            Verdict::Partly => all.extend(patches.close(replaced)),
            Verdict::No => {}
        }
        all
    }

    fn notes(&self, service: &Service, replace: Verdict, ports: &[OpenPort]) -> Vec<String> {
        let mut notes = Vec::new();
        if self.inventory.endpoints_known && service.endpoints.is_empty() {
            let note = "nobody answers behind it, it has no endpoints: where nobody misses it, delete it or make it a ClusterIP";
            notes.push(note.into());
        }
        if replace == Verdict::Partly && service.kind == "NodePort" {
            let kept: Vec<String> = ports.iter().filter(|p| !p.replace).map(|p| p.port.to_string()).collect();
            notes.push(format!(
                "a NodePort Service opens all of its ports or none: give port {} a Service of its own first",
                kept.join(", ")
            ));
        }
        if service.kind == "LoadBalancer" && ports.iter().any(|p| p.replace) {
            notes.push("only where the load balancer sends to the Service itself (MetalLB, kube-vip, Cilium); those of clouds need the node ports".into());
        }
        if !service.source_ranges.is_empty() {
            notes.push(format!("loadBalancerSourceRanges guard the load balancer's addresses alone: its node ports are open to everybody, not only to {}", service.source_ranges.join(", ")));
        }
        if !service.external_ips.is_empty() {
            notes.push(format!(
                "externalIPs {} lead to it also when its node ports are closed",
                service.external_ips.join(", ")
            ));
        }
        if service.sticky {
            notes.push("sessionAffinity ClientIP: the same client no longer comes to the same pod, unless balance by hash says so".into());
        }
        let redirects = ports.iter().any(|p| p.replace && p.speaks.protocol == Protocol::Tls);
        if redirects && ingress_controller(service).is_none() {
            notes.push("Tidegate ends TLS: give it a certificate for the hosts (tls: in the routes), and see that the HTTP port of the pods does not only redirect to https".into());
        }
        notes.extend(
            owner(service)
                .map(|owner| format!("it is managed by {owner}: change it there too, or the node ports come back")),
        );
        notes
    }
}

fn verdict(replaced: usize, all: usize) -> Verdict {
    match replaced {
        n if n == all => Verdict::Yes,
        0 => Verdict::No,
        _ => Verdict::Partly,
    }
}

fn replaceable(speaks: &Speaks, service: &Service, spoken: &[Speaks]) -> (bool, String) {
    match speaks.protocol {
        Protocol::Http => (true, format!("HTTP ({})", speaks.because)),
        Protocol::Http2 => (true, format!("HTTP/2 ({})", speaks.because)),
        Protocol::Tls => match beside(service, spoken) {
            Some(port) => {
                (true, format!("the route to port {} answers https too: Tidegate ends TLS itself", port.port))
            }
            None => {
                let cluster = format!("{}/{}", service.namespace, service.name);
                let why = format!(
                    "TLS ({}): Tidegate ends TLS and verifies what is behind it, so let the pods listen for HTTP too, or write \
                     a route by hand with clusters: {{ \"{cluster}:PORT\": {{ tls: {{ ca: PEM, server_name: NAME }} }} }}",
                    speaks.because
                );
                (false, why)
            }
        },
        Protocol::Other => {
            (false, format!("{} is no HTTP ({}): Tidegate does not carry it yet", speaks.word(), speaks.because))
        }
        Protocol::Unknown => (false, format!("{}: ask it by --probe, or write appProtocol: http", speaks.because)),
    }
}

/// The port of HTTP whose routes answer for one of TLS. An Ingress controller's own has none: its Ingresses answer.
fn beside<'a>(service: &'a Service, spoken: &[Speaks]) -> Option<&'a Port> {
    let http = |(port, speaks): &(&Port, &Speaks)| {
        speaks.protocol == Protocol::Http && front_of(service, port, speaks).is_none()
    };
    service.ports.iter().zip(spoken).find(http).map(|(port, _)| port)
}

/// Who writes the Service, where that is to be seen on it.
fn owner(service: &Service) -> Option<String> {
    let annotation = |key: &str| service.annotations.get(key);
    let label = |key: &str| service.labels.get(key);
    if let Some(release) = annotation("meta.helm.sh/release-name") {
        return Some(format!("the Helm release {release}"));
    }
    if annotation("argocd.argoproj.io/tracking-id").or(label("argocd.argoproj.io/instance")).is_some() {
        return Some("Argo CD".into());
    }
    if let Some(name) = label("kustomize.toolkit.fluxcd.io/name").or(label("helm.toolkit.fluxcd.io/name")) {
        return Some(format!("Flux ({name})"));
    }
    label("app.kubernetes.io/managed-by").cloned()
}

fn summary(inventory: &Inventory, services: &[OpenService]) -> Summary {
    let count = |verdict: Verdict| services.iter().filter(|s| s.replace == verdict).count();
    let unused = |s: &&OpenService| s.ports.iter().all(|p| p.endpoints == Some(Endpoints::default()));
    Summary {
        looked_at: inventory.services.len(),
        services: services.len(),
        node_ports: services.iter().map(|s| s.ports.len() + usize::from(s.health_check_node_port.is_some())).sum(),
        replaceable: count(Verdict::Yes),
        partly: count(Verdict::Partly),
        not_yet: count(Verdict::No),
        unused: services.iter().filter(unused).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port as name, number and appProtocol.
    type Written<'a> = (&'a str, u16, &'a str);

    fn judged(label: &str, kind: &str, ports: &[Written]) -> OpenService {
        let port = |(node_port, (name, port, app)): (u16, &Written)| Port {
            name: (*name).into(),
            transport: "TCP".into(),
            port: *port,
            node_port: Some(node_port),
            app_protocol: Some((*app).to_owned()).filter(|app| !app.is_empty()),
            ..Port::default()
        };
        let ports = (30000..).zip(ports).map(port).collect();
        let labels = BTreeMap::from([("app.kubernetes.io/name".to_owned(), label.to_owned())]);
        let service = Service { name: "edge".into(), kind: kind.into(), labels, ports, ..Service::default() };
        let inventory = Inventory { services: vec![service], ..Inventory::default() };
        judge(&inventory, &Wishes::default(), &Probed::new()).services.remove(0)
    }

    #[test]
    fn a_controller_is_replaced_where_it_serves_ingresses_alone() {
        let ports: &[Written] = &[
            ("web", 8000, ""),
            ("websecure", 4443, ""),
            ("x", 8080, ""),
            ("y", 9999, "kubernetes.io/h2c"),
            ("", 5432, ""),
            ("redis", 443, ""),
            ("http", 80, "postgresql"),
            ("proxied", 7777, ""),
            ("", 6443, ""),
        ];
        let service = judged("traefik", "LoadBalancer", ports);
        let front = |port: &OpenPort| port.replace && port.why.contains("Ingress controller") && port.routes.is_empty();
        assert_eq!(
            service.ports.iter().filter(|p| front(p)).map(|p| p.port).collect::<Vec<_>>(),
            [8000, 4443, 8080, 9999]
        );
        assert_eq!(service.ports.iter().filter(|p| p.replace).count(), 4);
        let why: Vec<&str> = service.ports.iter().skip(4).map(|port| port.why.as_str()).collect();
        assert!(why[0].starts_with("PostgreSQL is no HTTP (it is port 5432)"), "{why:#?}");
        assert!(
            why[1].starts_with("Redis") && why[2].starts_with("PostgreSQL") && why[3].contains("--probe"),
            "{why:#?}"
        );
        assert!(why[4].starts_with("TLS (it is port 6443)"), "no route of ours stands beside it: {why:#?}");
        assert_eq!(service.replace, Verdict::Partly);
    }

    #[test]
    fn what_else_a_controller_shows_gets_a_route_as_that_of_any_service() {
        let service = judged("traefik", "NodePort", &[("web", 80, ""), ("metrics", 9100, "")]);
        let routes: Vec<usize> = service.ports.iter().map(|port| port.routes.len()).collect();
        assert_eq!((routes, service.replace), (vec![0, 1], Verdict::Yes));
        assert_eq!(judged("shop", "NodePort", &[("web", 80, "")]).ports[0].routes.len(), 1);
    }
}
