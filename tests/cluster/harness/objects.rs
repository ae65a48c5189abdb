//! Which objects do scenarios make again and again?

use super::gate::Gate;
use super::pki::Identity;
use super::test::{Pod, Test};
use super::{AGES, SOON, eventually, holds};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Test {
    /// How routes name a Service of the test's namespace.
    pub fn to(&self, service: &str) -> String {
        format!("{}/{service}", self.namespace)
    }

    /// A ConfigMap of routes whose only text is this, as `shop.yaml`. Said again, it is edited.
    pub async fn routes(&self, name: &str, text: &str) {
        let labels = json!({ "tidegate.io/routes": "" });
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": name, "labels": labels }, "data": { "shop.yaml": text },
        });
        self.put::<ConfigMap>(name, &object).await;
    }

    /// Routes that send all of `shop.test` to this Service.
    pub async fn serve(&self, service: &str) {
        self.routes("shop", &format!("hosts: [shop.test]\nroutes: [{{ path: /, to: {} }}]\n", self.to(service))).await;
    }

    /// A Secret of type `kubernetes.io/tls`, whatever is in it. Said again, it is rotated.
    pub async fn certificate(&self, name: &str, identity: &Identity) {
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": identity.chain, "tls.key": identity.key },
        });
        self.put::<Secret>(name, &object).await;
    }

    /// A Secret with authorities, PEM, as `ca.crt`. Said again, they are renewed.
    pub async fn authorities(&self, name: &str, pem: &str) {
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "type": "Opaque",
            "stringData": { "ca.crt": pem },
        });
        self.put::<Secret>(name, &object).await;
    }

    /// Server-side apply without the second that `kubectl` takes for it.
    async fn put<K>(&self, name: &str, object: &Value)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let parameters = PatchParams::apply("tests").force();
        self.api::<K>().patch(name, &parameters, &Patch::Apply(object)).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    /// A Deployment of so many echo pods and a Service of the same name, its port 80 named `http`. Waits until all are ready
    /// and endpoints of the Service.
    pub async fn deploy(&self, name: &str, replicas: usize) -> Vec<Pod> {
        self.apply(application(name, replicas)).await;
        let pods = self.ready_pods(name, replicas).await;
        eventually(AGES, || async {
            let known = self.endpoints_of(name).await;
            holds(pods.iter().all(|pod| known.contains(&pod.address)), || format!("{known:?} of {pods:?}"))
        })
        .await;
        pods
    }

    /// The addresses in the EndpointSlices of a Service, ready or not.
    async fn endpoints_of(&self, service: &str) -> BTreeSet<IpAddr> {
        let selected = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let list = self.api::<EndpointSlice>().list(&selected).await.unwrap();
        let endpoints = list.items.into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default());
        endpoints.flat_map(|endpoint| endpoint.addresses).filter_map(|address| address.parse().ok()).collect()
    }

    /// A Service without selector, its port 80 named `http`, and one EndpointSlice for each family with these ready addresses,
    /// each on a node and in its zone. Said again, the slices are replaced.
    pub async fn endpoints(&self, service: &str, addresses: &[(IpAddr, &str)]) {
        let port = json!({ "name": "http", "port": 80, "targetPort": 8080 });
        let object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": service }, "spec": { "ports": [port] },
        });
        let mut manifests = object.to_string();
        for (family, v6) in [("IPv4", false), ("IPv6", true)] {
            let endpoint = |(address, node): &(IpAddr, &str)| {
                json!({
                    "addresses": [address], "nodeName": node, "zone": self.cluster.node(node).zone,
                    "conditions": { "ready": true, "serving": true, "terminating": false },
                })
            };
            let endpoints: Vec<_> =
                addresses.iter().filter(|(address, _)| address.is_ipv6() == v6).map(endpoint).collect();
            let name = format!("{service}-{}", family.to_lowercase());
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": { "name": name, "labels": { "kubernetes.io/service-name": service } },
                "addressType": family, "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
                "endpoints": endpoints,
            });
            manifests.push_str(&format!("\n---\n{slice}"));
        }
        self.apply(manifests).await;
    }

    /// A Lease by which a gate on this node said that it was ready, last at this time.
    pub async fn lease_of_a_gate(&self, node: &str, renewed: &str) {
        self.lease_of_a_gate_at(node, [192, 0, 2, 99].into(), renewed).await;
    }

    /// The same, reached at this address.
    pub async fn lease_of_a_gate_at(&self, node: &str, address: IpAddr, renewed: &str) {
        let name = format!("tidegate-gate-{node}");
        let annotations = json!({ "tidegate.io/addresses": address.to_string(), "tidegate.io/ready": "true" });
        let metadata = json!({ "name": name, "labels": { "tidegate.io/gate": "true" }, "annotations": annotations });
        let spec = json!({ "holderIdentity": "tidegate-x", "leaseDurationSeconds": 15, "renewTime": renewed });
        let object = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec,
        });
        self.put::<Lease>(&name, &object).await;
    }

    /// Which pods answer so many requests for `shop.test`.
    pub async fn asked(&self, gate: &Gate, count: usize) -> Result<BTreeSet<IpAddr>, String> {
        let mut said = BTreeSet::new();
        for _ in 0..count {
            said.insert(gate.get("shop.test", "/").await?.expect(200)?.echo()?.address);
        }
        Ok(said)
    }

    /// Waits for a problem that the gate tells of something whose place has this in it; as JSON.
    pub async fn problem_of(&self, gate: &Gate, place: &str) -> String {
        eventually(SOON, || async {
            let page = gate.api("problems").await;
            let items = page["items"].as_array().cloned().unwrap_or_default();
            let found = items.iter().map(Value::to_string).find(|text| text.contains(place));
            found.ok_or_else(|| format!("no problem of {place}: {page}"))
        })
        .await
    }
}

/// A Deployment and its Service.
pub fn application(name: &str, replicas: usize) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{ name: {name} }}
spec:
  selector: {{ app: {name} }}
  ports: [{{ name: http, port: 80, targetPort: web }}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name} }}
spec:
  replicas: {replicas}
  selector: {{ matchLabels: {{ app: {name} }} }}
  strategy: {{ rollingUpdate: {{ maxUnavailable: 0, maxSurge: 1 }} }}
  template:
    metadata:
      labels: {{ app: {name} }}
      annotations: {{ test.tidegate.io/terminate-after: 1s }}
    spec:
      containers: [{{ name: web, image: example.com/web, ports: [{{ name: web, containerPort: 8080 }}] }}]
"
    )
}
