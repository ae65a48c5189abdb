//! With which commands are the node ports of a Service closed?
//!
//! What the API server accepts was tried on version 1.37: a change of type to ClusterIP clears every node port and that of health
//! checks. `allocateLoadBalancerNodePorts: false` alone keeps the ports that are there, and clearing them alone has them
//! restored from the old object: only both in one patch close them. A strategic merge cannot tell two ports of one number
//! apart (`80/TCP` and `80/UDP`), so these are JSON patches, each guarded by a `test` against ports that were reordered meanwhile.
//! `healthCheckNodePort` stays as long as the Service is a LoadBalancer with the policy Local.

use super::inventory::Service;
use serde::Serialize;
use serde_json::{Value, json};

/// One command.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Patch {
    /// What it does, in a sentence.
    pub does: String,
    /// When: at once, after the routes serve, or once nobody needs the load balancer.
    pub when: When,
    /// `merge` or `json`, as kubectl has it.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The patch itself.
    pub patch: Value,
    /// The command to type.
    pub command: String,
}

/// When a patch is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At once: nothing serves differently without Tidegate.
    Now,
    /// Once the routes of Tidegate answer.
    Served,
    /// Once nobody comes to the addresses of the load balancer any more.
    Unbalanced,
}

/// Writes commands for a Service.
pub(super) struct Patches<'a> {
    pub(super) service: &'a Service,
    /// `kubectl`, with the flags that choose the cluster.
    pub(super) kubectl: &'a str,
}

impl Patches<'_> {
    /// Closes all of it.
    pub(super) fn close_all(&self) -> Vec<Patch> {
        if self.service.kind == "NodePort" {
            return vec![self.cluster_ip("it keeps its ClusterIP and opens no node port", When::Served)];
        }
        let every: Vec<usize> = (0..self.service.ports.len()).collect();
        let mut patches = self.close(&every);
        if let Some(port) = self.service.health_check_node_port {
            let does = format!("gives up the load balancer's addresses, and with them the health check port {port}");
            patches.push(self.cluster_ip(&does, When::Unbalanced));
        }
        patches
    }

    /// Closes some ports, by their places. A Service of type NodePort has all of them or none.
    pub(super) fn close(&self, places: &[usize]) -> Vec<Patch> {
        let open = |place: &usize| Some((*place, self.service.ports.get(*place)?.node_port?));
        let open: Vec<(usize, u16)> = places.iter().filter_map(open).collect();
        if open.is_empty() || self.service.kind != "LoadBalancer" {
            return Vec::new();
        }
        let mut steps = vec![json!({ "op": "add", "path": "/spec/allocateLoadBalancerNodePorts", "value": false })];
        for (place, node_port) in open {
            let path = format!("/spec/ports/{place}/nodePort");
            steps.push(json!({ "op": "test", "path": path, "value": node_port }));
            steps.push(json!({ "op": "remove", "path": path }));
        }
        let does = "it keeps the load balancer's addresses and opens no node port for them";
        vec![self.patch(does, When::Served, "json", steps.into())]
    }

    /// Tells Tidegate that a port speaks HTTP/2 without TLS.
    pub(super) fn speak_http2(&self, place: usize) -> Option<Patch> {
        const KNOWN: &[&str] = &["kubernetes.io/h2c", "h2c", "http2", "grpc"];
        let port = self.service.ports.get(place)?;
        let said = port.app_protocol.as_deref().unwrap_or_default().to_ascii_lowercase();
        if KNOWN.contains(&said.as_str()) {
            return None;
        }
        let steps = json!([
            { "op": "test", "path": format!("/spec/ports/{place}/port"), "value": port.port },
            { "op": "add", "path": format!("/spec/ports/{place}/appProtocol"), "value": "kubernetes.io/h2c" },
        ]);
        let does =
            format!("says that port {} speaks HTTP/2 in cleartext; without it Tidegate speaks HTTP/1 to it", port.port);
        Some(self.patch(&does, When::Now, "json", steps))
    }

    fn cluster_ip(&self, does: &str, when: When) -> Patch {
        self.patch(does, when, "merge", json!({ "spec": { "type": "ClusterIP" } }))
    }

    fn patch(&self, does: &str, when: When, kind: &'static str, patch: Value) -> Patch {
        let Service { namespace, name, .. } = self.service;
        let command = format!("{} patch service {name} -n {namespace} --type {kind} -p '{patch}'", self.kubectl);
        Patch { does: does.into(), when, kind, patch, command }
    }
}

#[cfg(test)]
mod tests {
    use super::super::inventory::Port;
    use super::*;

    fn service(kind: &str, node_ports: &[Option<u16>]) -> Service {
        let port =
            |(at, node_port): (u16, &Option<u16>)| Port { port: 80 + at, node_port: *node_port, ..Port::default() };
        let ports = (0..).zip(node_ports).map(port).collect();
        Service { namespace: "shop".into(), name: "web".into(), kind: kind.into(), ports, ..Service::default() }
    }

    fn commands(service: &Service) -> Vec<String> {
        Patches { service, kubectl: "kubectl" }.close_all().into_iter().map(|patch| patch.command).collect()
    }

    #[test]
    fn a_node_port_service_becomes_a_cluster_ip() {
        let all = commands(&service("NodePort", &[Some(30080)]));
        assert_eq!(all, [r#"kubectl patch service web -n shop --type merge -p '{"spec":{"type":"ClusterIP"}}'"#]);
    }

    #[test]
    fn a_load_balancer_stops_allocating_and_drops_what_is_allocated_in_one_patch() {
        let all = commands(&service("LoadBalancer", &[Some(30080), None, Some(30081)]));
        let steps = r#"[{"op":"add","path":"/spec/allocateLoadBalancerNodePorts","value":false},{"op":"test","path":"/spec/ports/0/nodePort","value":30080},{"op":"remove","path":"/spec/ports/0/nodePort"},{"op":"test","path":"/spec/ports/2/nodePort","value":30081},{"op":"remove","path":"/spec/ports/2/nodePort"}]"#;
        assert_eq!(all, [format!("kubectl patch service web -n shop --type json -p '{steps}'")]);
    }

    #[test]
    fn a_health_check_port_goes_with_the_load_balancer() {
        let service =
            Service { local: true, health_check_node_port: Some(31270), ..service("LoadBalancer", &[Some(30080)]) };
        let all = Patches { service: &service, kubectl: "kubectl" }.close_all();
        assert_eq!(all.iter().map(|p| p.when).collect::<Vec<_>>(), [When::Served, When::Unbalanced]);
        let only_health = Service { health_check_node_port: Some(1), ..self::service("LoadBalancer", &[None]) };
        assert_eq!(commands(&only_health).len(), 1);
    }

    #[test]
    fn some_ports_of_a_node_port_service_cannot_be_closed_alone() {
        let service = service("NodePort", &[Some(1), Some(2)]);
        assert_eq!(Patches { service: &service, kubectl: "kubectl" }.close(&[0]), []);
    }
}
