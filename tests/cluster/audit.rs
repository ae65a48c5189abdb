//! Does `tidegate audit` find every node port of a real cluster, and do its own answers close them all?

use crate::beside;
use crate::harness::network::{self, Place};
use crate::harness::process::run;
use crate::harness::suite::Case;
use crate::harness::test::Test;
use crate::harness::{SOON, eventually, holds, http};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::process::Output;
use std::time::Duration;

pub const CASES: &[Case] = &[
    beside!(every_node_port_is_found_and_the_printed_commands_close_all_that_can_be_replaced),
    beside!(a_node_port_and_a_gate_that_answer_the_same_are_told_so),
    beside!(ports_of_http_2_and_of_an_ingress_controller_are_compared_too),
    beside!(who_may_read_services_alone_still_learns_what_is_open),
    beside!(a_guarded_cluster_refuses_new_node_ports_and_leaves_old_ones_alone),
    beside!(the_printed_rules_close_node_ports_and_nothing_else),
];

const SERVICES: &str = "
{ apiVersion: v1, kind: Service, metadata: { name: web }, spec: { type: NodePort, selector: { app: web }, ports: [{ name: http, port: 80, targetPort: web }, { name: https, port: 443 }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: local }, spec: { type: NodePort, externalTrafficPolicy: Local, externalIPs: [192.0.2.7], ports: [{ port: 8080 }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: grpc }, spec: { type: NodePort, ports: [{ name: grpc, port: 9000 }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: edge }, spec: { type: LoadBalancer, ports: [{ name: http, port: 80 }, { name: web, port: 8081 }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: near }, spec: { type: LoadBalancer, externalTrafficPolicy: Local, loadBalancerClass: example.com/none, ports: [{ name: http, port: 80 }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: quiet }, spec: { type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{ name: http, port: 80 }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: inner }, spec: { ports: [{ name: http, port: 80 }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: mixed }, spec: { type: LoadBalancer, ports: [{ name: http, port: 80 }, { name: dns, port: 80, protocol: UDP }, { name: mqtt, port: 1883 }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: db }, spec: { type: NodePort, ports: [{ port: 5432 }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: stream }, spec: { type: NodePort, ports: [{ port: 9999, protocol: SCTP }] } }
";

async fn every_node_port_is_found_and_the_printed_commands_close_all_that_can_be_replaced(test: Test) {
    test.deploy("web", 2).await;
    test.apply(SERVICES).await;
    let found = report(&test).await;
    let verdicts: Vec<(&str, &str)> = services(&found).map(|s| (text(s, "name"), text(s, "replace"))).collect();
    let wanted = [
        ("db", "no"),
        ("edge", "yes"),
        ("grpc", "yes"),
        ("local", "yes"),
        ("mixed", "partly"),
        ("near", "yes"),
        ("stream", "no"),
        ("web", "yes"),
    ];
    assert_eq!(verdicts, wanted);
    let near = services(&found).find(|s| s["name"] == "near").unwrap();
    assert!(near["health_check_node_port"].as_u64().is_some(), "{near}");
    let web = services(&found).find(|s| s["name"] == "web").unwrap();
    assert_eq!(web["ports"][0]["endpoints"]["ready"], 2, "{web}");
    assert_eq!(found["nodes"].as_array().unwrap().len(), 3);

    let routes = audit(&test, &["--format", "routes", "--domain", "shop.test"]).await;
    let file = test.cluster.folder.join(format!("{}-routes.yaml", test.namespace));
    std::fs::write(&file, &routes.stdout).unwrap();
    let checked = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("check").arg(&file).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let map = audit(&test, &["--format", "config-map", "--gate-namespace", &test.namespace]).await;
    test.apply(String::from_utf8(map.stdout).unwrap()).await;
    let labelled = test.kubectl(&["get", "configmaps", "-l", "tidegate.io/routes", "-o", "name"]).await;
    assert_eq!(labelled.trim(), "configmap/node-ports");

    // The LoadBalancer with a health check keeps that port until its balancer is given up, which a person decides.
    let script = audit(&test, &["--format", "patches"]).await;
    shell(&test, &String::from_utf8(script.stdout).unwrap());
    let left = report(&test).await;
    let open: Vec<&str> = services(&left).map(|s| text(s, "name")).collect();
    assert_eq!(open, ["db", "mixed", "near", "stream"]);
    let near = services(&left).find(|s| s["name"] == "near").unwrap();
    assert_eq!(near["ports"], serde_json::json!([]), "{near}");
    for name in ["web", "local", "grpc", "edge"] {
        let ports = test.kubectl(&["get", "service", name, "-o", "jsonpath={.spec.ports[*].nodePort}"]).await;
        assert_eq!(ports, "", "{name}");
    }
    assert!(test.kubectl(&["get", "service", "grpc", "-o", "yaml"]).await.contains("appProtocol: kubernetes.io/h2c"));
    assert_eq!(test.kubectl(&["get", "service", "edge", "-o", "jsonpath={.spec.type}"]).await, "LoadBalancer");
    for service in services(&left) {
        for patch in service["patches"].as_array().unwrap() {
            shell(&test, text(patch, "command"));
        }
    }
    test.kubectl(&["delete", "service", "db", "mixed", "stream"]).await;
    let done = audit(&test, &[]).await;
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!((done.status.code(), said.starts_with("Nothing opens node ports")), (Some(0), true), "{said}");
}

async fn a_node_port_and_a_gate_that_answer_the_same_are_told_so(test: Test) {
    let pod = test.deploy("web", 1).await.remove(0);
    test.kubectl(&["patch", "service", "web", "-p", "{\"spec\":{\"type\":\"NodePort\"}}"]).await;
    let node_port: u16 =
        test.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"]).await.parse().unwrap();
    let node = Machine::new(&test);
    node.forward(node_port, pod.address);
    let file = test.cluster.folder.join(format!("{}-same.yaml", test.namespace));
    let write = |to: &str| {
        let routes = format!("shop.test/: {to}\n---\nclusters: {{ web: \"{}:8080\" }}\n", pod.address);
        std::fs::write(&file, routes).unwrap();
    };
    write("web");
    let gate = test.gate("node-a").section("sources", &format!("{{ routes: {} }}", file.display())).start().await;
    let annotation = "external-dns.alpha.kubernetes.io/hostname=shop.test";
    test.kubectl(&["annotate", "service", "web", annotation]).await;

    let at = gate.http().to_string();
    let address = node.place.v4.to_string();
    let flags = ["--probe", "--verify", "--gate", &at, "--node", &address, "--format", "json", "--timeout", "10s"];
    let compared = audit(&test, &flags).await;
    let json: Value = serde_json::from_slice(&compared.stdout).unwrap();
    let one = &json["comparisons"][0];
    assert_eq!(
        (text(one, "verdict"), text(one, "host"), compared.status.code()),
        ("same", "shop.test", Some(0)),
        "{json}"
    );
    assert_eq!((one["node"]["status"].as_u64(), one["gate"]["status"].as_u64()), (Some(200), Some(200)), "{json}");
    // The gate tells the service who asks.
    assert_eq!(one["gate"]["client_address_kept"], true, "{json}");

    write("{ respond: 404 }");
    gate.answers("shop.test", "/", 404).await;
    let compared = audit(&test, &flags).await;
    let json: Value = serde_json::from_slice(&compared.stdout).unwrap();
    assert_eq!((text(&json["comparisons"][0], "verdict"), compared.status.code()), ("differs", Some(1)), "{json}");
    let nobody = audit(&test, &["--verify", "--gate", "127.0.0.1:1", "--node", &address]).await;
    let said = String::from_utf8(nobody.stdout).unwrap();
    assert!(said.contains("unreachable") && nobody.status.code() == Some(1), "{said}");
}

async fn ports_of_http_2_and_of_an_ingress_controller_are_compared_too(test: Test) {
    let pod = test.cluster.node("node-b").pod(48);
    test.apply(
        "{ apiVersion: v1, kind: Service, metadata: { name: quick, annotations: { external-dns.alpha.kubernetes.io/hostname: quick.test } }, spec: { type: NodePort, ports: [{ name: grpc, port: 9000 }] } }
---
{ apiVersion: v1, kind: Service, metadata: { name: edge, labels: { app.kubernetes.io/name: ingress-nginx } }, spec: { type: NodePort, ports: [{ name: http, port: 80 }] } }
---
{ apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: { name: web }, spec: { ingressClassName: nginx, rules: [{ host: ingress.test, http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: web, port: { number: 80 } } } }] } }] } }",
    )
    .await;
    let node = Machine::new(&test);
    for service in ["quick", "edge"] {
        let port = test.kubectl(&["get", "service", service, "-o", "jsonpath={.spec.ports[0].nodePort}"]).await;
        node.forward(port.parse().unwrap(), pod);
    }
    let file = test.cluster.folder.join(format!("{}-both.yaml", test.namespace));
    let write = |quick: &str, ingress: &str| {
        let clusters =
            format!("clusters:\n  web: \"{pod}:8080\"\n  quick: {{ endpoints: [\"{pod}:8080\"], protocol: http2 }}\n");
        std::fs::write(&file, format!("quick.test/: {quick}\ningress.test/: {ingress}\n---\n{clusters}")).unwrap();
    };
    write("quick", "web");
    let gate = test.gate("node-a").section("sources", &format!("{{ routes: {} }}", file.display())).start().await;
    let (at, address) = (gate.http().to_string(), node.place.v4.to_string());
    let flags = ["--verify", "--gate", &at, "--node", &address, "--format", "json", "--timeout", "10s"];
    let compared = async || {
        let output = audit(&test, &flags).await;
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["not_compared"], serde_json::json!([]), "{json}");
        let one = |c: &Value| format!("{} {}", text(c, "host"), text(c, "verdict"));
        let all: Vec<String> = json["comparisons"].as_array().unwrap().iter().map(one).collect();
        (all, output.status.code())
    };
    let said = |all: [&str; 2]| all.map(str::to_owned).to_vec();
    assert_eq!(compared().await, (said(["ingress.test same", "quick.test same"]), Some(0)));
    write("quick", "{ respond: 404 }");
    gate.answers("ingress.test", "/", 404).await;
    assert_eq!(compared().await, (said(["ingress.test differs", "quick.test same"]), Some(1)));
    write("{ respond: 404 }", "web");
    gate.answers("quick.test", "/", 404).await;
    assert_eq!(compared().await, (said(["ingress.test same", "quick.test differs"]), Some(1)));
}

async fn who_may_read_services_alone_still_learns_what_is_open(test: Test) {
    test.apply(
        "{ apiVersion: v1, kind: Service, metadata: { name: web }, spec: { type: NodePort, ports: [{ port: 80 }] } }",
    )
    .await;
    test.kubectl(&["create", "serviceaccount", "guest"]).await;
    let token = test.kubectl(&["create", "token", "guest"]).await;
    let ca = test.cluster.control_plane.ca();
    let user = serde_json::json!({ "token": token.trim() });
    let file = test.cluster.folder.join(format!("{}-guest", test.namespace));
    std::fs::write(&file, crate::harness::control_plane::kubeconfig(&ca, &test.namespace, &user)).unwrap();
    let guest = async || tidegate(&["--kubeconfig", file.to_str().unwrap(), "-n", &test.namespace]).await;
    let refused = guest().await;
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), said.contains("forbidden")), (Some(2), true), "{said}");

    test.kubectl(&["create", "role", "guest", "--verb=get,list", "--resource=services"]).await;
    let bound = format!("--serviceaccount={}:guest", test.namespace);
    test.kubectl(&["create", "rolebinding", "guest", "--role=guest", &bound]).await;
    eventually(SOON, || async {
        let answer = guest().await;
        let said = String::from_utf8(answer.stdout).unwrap();
        let notes = ["EndpointSlices cannot be read", "Ingresses cannot be read", "Nodes cannot be read"];
        let fine = answer.status.code() == Some(1) && notes.iter().all(|note| said.contains(note));
        holds(fine && said.contains("/web"), || format!("{said}{}", String::from_utf8_lossy(&answer.stderr)))
    })
    .await;
}

async fn a_guarded_cluster_refuses_new_node_ports_and_leaves_old_ones_alone(test: Test) {
    let service = |name: &str, spec: &str| {
        format!(
            "{{ apiVersion: v1, kind: Service, metadata: {{ name: {name} }}, spec: {{ {spec}, ports: [{{ port: 80 }}] }} }}"
        )
    };
    test.apply(service("old", "type: NodePort")).await;
    test.apply(service("inner", "type: ClusterIP")).await;
    let printed = String::from_utf8(tidegate(&["--guard"]).await.stdout).unwrap();
    // Under another name and for this namespace alone, because others test beside.
    let name = format!("guard-{}", test.namespace);
    let own = format!("{{ key: kubernetes.io/metadata.name, operator: In, values: [{}] }}", test.namespace);
    let guard = printed
        .replace("no-node-ports.tidegate.io", &name)
        .replace("      matchExpressions:\n", &format!("      matchExpressions:\n        - {own}\n"));
    test.remove_at_end(format!("validatingadmissionpolicy/{name}"));
    test.remove_at_end(format!("validatingadmissionpolicybinding/{name}"));
    test.apply(guard).await;
    let dry = async |yaml: String| test.try_kubectl(&["apply", "--dry-run=server", "-f", "-"], &yaml).await;
    eventually(SOON, || async {
        let refused = dry(service("new", "type: NodePort")).await;
        holds(refused.is_err_and(|why| why.contains("open ports on every address")), || "a NodePort was taken".into())
    })
    .await;
    for (name, spec) in [("new", "type: LoadBalancer"), ("inner", "type: NodePort")] {
        assert!(dry(service(name, spec)).await.is_err(), "{name} {spec}");
    }
    for (name, spec) in [
        ("new", "type: ClusterIP"),
        ("new", "type: LoadBalancer, allocateLoadBalancerNodePorts: false"),
        ("old", "type: NodePort, sessionAffinity: ClientIP"),
        ("old", "type: ClusterIP"),
    ] {
        dry(service(name, spec)).await.unwrap_or_else(|why| panic!("{name} {spec}: {why}"));
    }
    test.kubectl(&["label", "namespace", &test.namespace, "tidegate.io/node-ports=allowed"]).await;
    eventually(SOON, || async { dry(service("new", "type: NodePort")).await.map(drop) }).await;
}

async fn the_printed_rules_close_node_ports_and_nothing_else(test: Test) {
    let node = Machine::new(&test);
    let pod = test.cluster.node("node-a").pod(21);
    let pod6 = test.cluster.node("node-a").pod6(21);
    for (port, to) in [(80, pod), (30080, pod), (32432, pod), (29999, pod), (32768, pod), (30080, pod6), (80, pod6)] {
        node.forward(port, to);
    }
    let [v4, v6] = node.place.addresses();
    let open = async |address, ports: &[u16]| {
        for port in ports {
            assert!(node.answers(address, *port).await, "{address} {port} is closed");
        }
    };
    let closed = async |address, ports: &[u16]| {
        for port in ports {
            assert!(!node.answers(address, *port).await, "{address} {port} is open");
        }
    };
    open(v4, &[80, 30080, 32432, 29999, 32768]).await;
    open(v6, &[80, 30080]).await;

    node.load(&rules(&test, &["--dry-run"]).await);
    open(v4, &[80, 30080]).await;
    open(v6, &[30080]).await;
    assert!(node.lists("seen_v4").contains(&format!("{} . tcp . 30080", network::HOME)), "{}", node.lists("seen_v4"));
    assert!(node.lists("seen_v6").contains("fd00:240::1 . tcp . 30080"), "{}", node.lists("seen_v6"));
    assert!(!node.lists("seen_v4").contains(". 80 "), "{}", node.lists("seen_v4"));

    node.load(&rules(&test, &[]).await);
    closed(v4, &[30080, 32432]).await;
    closed(v6, &[30080]).await;
    open(v4, &[80, 29999, 32768]).await;
    open(v6, &[80]).await;
    // Answers to what the node itself, or a pod behind it, asked from a port of that very range.
    node.asks_from(30999, SocketAddr::new(pod, 8080));

    // Loaded again, it replaces itself.
    node.load(&rules(&test, &["--keep", "32432"]).await);
    open(v4, &[32432]).await;
    closed(v4, &[30080]).await;
    node.load(&rules(&test, &["--allow", "10.240.0.0/16"]).await);
    open(v4, &[30080, 32432]).await;
    closed(v6, &[30080]).await;
    node.load(&rules(&test, &["--allow", "fd00:240::/64", "--range", "30080-30080"]).await);
    open(v4, &[32432]).await;
    open(v6, &[30080]).await;
    closed(v4, &[30080]).await;
    node.nft("delete table inet tidegate_node_ports");
    open(v4, &[30080]).await;
}

/// A machine with node ports, as kube-proxy opens them: by translation of destinations, and masqueraded.
struct Machine {
    place: Place,
}

impl Machine {
    fn new(test: &Test) -> Self {
        let place = network::settle(&test.cluster.nodes).unwrap();
        let forwarding = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
        run(place.command("sh").args(["-c", forwarding]), "").unwrap();
        let machine = Self { place };
        machine.nft(
            "table inet proxy {
                chain prerouting { type nat hook prerouting priority dstnat; }
                chain postrouting { type nat hook postrouting priority srcnat; masquerade; }
            }",
        );
        machine
    }

    fn forward(&self, port: u16, pod: IpAddr) {
        let (family, to) = match pod {
            IpAddr::V4(pod) => ("ip", format!("{pod}:8080")),
            IpAddr::V6(pod) => ("ip6", format!("[{pod}]:8080")),
        };
        self.nft(&format!(
            "add rule inet proxy prerouting meta nfproto {} fib daddr type local tcp dport {port} dnat {family} to {to}",
            if family == "ip" { "ipv4" } else { "ipv6" }
        ));
    }

    /// Loads a rule set.
    fn nft(&self, rules: &str) {
        let mut command = self.place.command("nft");
        run(command.args(["-f", "-"]).env("PATH", network::search()), rules)
            .unwrap_or_else(|why| panic!("{why}\n{rules}"));
    }

    /// What stands in a set of the rules.
    fn lists(&self, set: &str) -> String {
        let mut command = self.place.command("nft");
        command.args(["list", "set", "inet", "tidegate_node_ports", set]).env("PATH", network::search());
        run(&mut command, "").unwrap()
    }

    /// The same, checked first as its own text advises.
    fn load(&self, rules: &str) {
        let mut command = self.place.command("nft");
        run(command.args(["-c", "-f", "-"]).env("PATH", network::search()), rules).unwrap();
        self.nft(rules);
    }

    /// Whether a pod answers at this port of the machine, asked from outside.
    async fn answers(&self, address: IpAddr, port: u16) -> bool {
        let to = SocketAddr::new(address, port);
        let asked = http::send(to, http::get("a.test", "/"));
        tokio::time::timeout(Duration::from_millis(700), asked).await.is_ok_and(|answer| answer.is_ok())
    }

    /// Asks from inside, from this source port.
    fn asks_from(&self, source: u16, to: SocketAddr) {
        let mut command = self.place.command("curl");
        let url = format!("http://{to}/");
        run(command.args(["-sS", "--max-time", "3", "--local-port", &source.to_string(), &url]), "").unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It goes with the sandbox at the latest.
        let _ = self.place.remove();
    }
}

/// The rules for node ports of the test's own namespace.
async fn rules(test: &Test, flags: &[&str]) -> String {
    let answer = audit(test, &[&["--firewall"], flags].concat()).await;
    assert_eq!(answer.status.code(), Some(0), "{answer:?}");
    String::from_utf8(answer.stdout).unwrap()
}

async fn report(test: &Test) -> Value {
    let answer = audit(test, &["--format", "json"]).await;
    assert_eq!(answer.status.code(), Some(1), "{}", String::from_utf8_lossy(&answer.stderr));
    serde_json::from_slice(&answer.stdout).unwrap()
}

/// The audit of the test's own namespace, as an administrator.
async fn audit(test: &Test, flags: &[&str]) -> Output {
    let kubeconfig = test.cluster.control_plane.admin_kubeconfig();
    let usual = ["--kubeconfig", kubeconfig.to_str().unwrap(), "-n", &test.namespace];
    tidegate(&[&usual, flags].concat()).await
}

async fn tidegate(flags: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("audit").args(flags).kill_on_drop(true).output().await.unwrap()
}

/// Runs commands as printed; `kubectl` is that of the cluster.
fn shell(test: &Test, script: &str) {
    let kubectl = test.cluster.control_plane.program("kubectl");
    let path = format!("{}:{}", kubectl.parent().unwrap().display(), network::search());
    run(std::process::Command::new("sh").args(["-e", "-s"]).env("PATH", path), script).unwrap();
}

fn services(report: &Value) -> impl Iterator<Item = &Value> {
    report["services"].as_array().unwrap().iter()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}
