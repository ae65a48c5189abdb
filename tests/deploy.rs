//! Does what is deployed hold what it promises: the same objects by kustomize and by Helm, the least rights, a locked-down pod?
//!
//! Rendering alone; a real API server takes the same objects in tests/cluster.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should fail where it stands"
)]

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tidegate::config::{Config, yaml};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is rendered by kustomize, and the values that make the chart say the same.
const PAIRS: [(&str, &[&str]); 5] = [
    ("base", &["createNamespace=true"]),
    ("overlays/dual-stack", &["createNamespace=true", "dualStack=true"]),
    ("overlays/single-namespace", &["createNamespace=true", "namespaces={default}"]),
    ("overlays/cluster-secrets", &["createNamespace=true", "clusterSecrets=true"]),
    ("overlays/without-file-capability", &["createNamespace=true", "fileCapability=false"]),
];

/// Kind, namespace and name to the object, all scalars as text.
type Objects = BTreeMap<String, Value>;

#[test]
fn the_chart_and_the_overlays_agree_object_by_object() {
    for (overlay, values) in PAIRS {
        let (by_kustomize, by_helm) = (normalised(&kustomize(overlay)), normalised(&helm(values)));
        let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&by_kustomize), names(&by_helm), "{overlay}");
        for (name, object) in &by_kustomize {
            assert_eq!(object, &by_helm[name], "{overlay}: {name}");
        }
    }
}

#[test]
fn what_the_gate_may_do_is_listed_here_and_nothing_else() {
    let looks = ["services list watch", "discovery.k8s.io/endpointslices list watch"];
    let writes = ["networking.k8s.io/ingresses/status patch", "events.k8s.io/events create patch"];
    let own = [
        "configmaps list patch watch",
        "coordination.k8s.io/leases create delete get list patch",
        "secrets list watch",
    ];
    let cluster: BTreeSet<&str> = [
        &looks[..],
        &writes,
        &["networking.k8s.io/ingresses list watch", "networking.k8s.io/ingressclasses list watch"],
    ]
    .concat()
    .into_iter()
    .collect();
    let listed: BTreeSet<&str> =
        [&looks[..], &writes, &["networking.k8s.io/ingresses list watch", "secrets list watch"]]
            .concat()
            .into_iter()
            .collect();
    let own: BTreeSet<&str> = own.into_iter().collect();
    let own_alone = own.union(&BTreeSet::from(["events.k8s.io/events create patch"])).copied().collect();
    let secrets = BTreeSet::from(["secrets list watch"]);
    let rights = |everywhere: &BTreeSet<&str>, default: &BTreeSet<&str>| {
        // Where nothing holds everywhere, Events of the own namespace are a right of their own.
        let own = if everywhere.is_empty() { &own_alone } else { &own };
        let scopes = [("*", everywhere), ("default", default), ("tidegate", own)];
        let some = scopes.into_iter().filter(|(_, rights)| !rights.is_empty());
        some.map(|(scope, rights)| (scope.to_owned(), rights.iter().map(|r| (*r).to_owned()).collect())).collect()
    };
    let nothing = BTreeSet::new();
    for (overlay, _) in PAIRS {
        let expected: BTreeMap<String, BTreeSet<String>> = match overlay {
            "overlays/single-namespace" => rights(&nothing, &listed),
            "overlays/cluster-secrets" => rights(&cluster.union(&secrets).copied().collect(), &nothing),
            _ => rights(&cluster, &nothing),
        };
        assert_eq!(granted(&kustomize(overlay)), expected, "{overlay}");
    }
    let single = kustomize("overlays/single-namespace");
    assert!(!single.keys().any(|name| name.starts_with("ClusterRole")), "{:?}", single.keys());
}

#[test]
fn the_pod_is_locked_down_as_far_as_the_network_of_the_host_allows() {
    for (overlay, _) in PAIRS {
        let objects = kustomize(overlay);
        let pod = &daemon_set(&objects)["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let expected = json!({
            "allowPrivilegeEscalation": "false",
            "readOnlyRootFilesystem": "true",
            "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
        });
        assert_eq!(container["securityContext"], expected, "{overlay}");
        let user = if overlay.ends_with("without-file-capability") { ("false", "0") } else { ("true", "65532") };
        let context = &pod["securityContext"];
        assert_eq!((&context["runAsNonRoot"], &context["runAsUser"]), (&json!(user.0), &json!(user.1)), "{overlay}");
        assert_eq!(context["seccompProfile"], json!({ "type": "RuntimeDefault" }));
        assert_eq!(pod["automountServiceAccountToken"], "false");
        for open in ["hostPID", "hostIPC", "shareProcessNamespace"] {
            assert_eq!(pod[open], Value::Null, "{open}");
        }
        let volumes = pod["volumes"].as_array().unwrap();
        assert!(volumes.iter().all(|volume| volume["hostPath"].is_null()), "{volumes:?}");
        let labels = &objects["Namespace//tidegate"]["metadata"]["labels"];
        let level = |mode: &str| labels[format!("pod-security.kubernetes.io/{mode}")].clone();
        assert_eq!([level("enforce"), level("warn"), level("audit")], ["privileged", "restricted", "restricted"]);
    }
}

#[test]
fn a_rollout_starts_the_new_gate_beside_the_old_one_and_asks_each_for_itself() {
    for (overlay, _) in PAIRS {
        let objects = kustomize(overlay);
        let set = daemon_set(&objects);
        assert_eq!(set["spec"]["updateStrategy"]["rollingUpdate"], json!({ "maxSurge": "1", "maxUnavailable": "0" }));
        let pod = &set["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        assert_eq!((&pod["hostNetwork"], &pod["dnsPolicy"]), (&json!("true"), &json!("ClusterFirstWithHostNet")));
        assert_eq!(container["ports"], Value::Null, "a host port that the scheduler gives to one pod of a node");
        let config = gate(&objects);
        assert!(config.share_ports, "{overlay}");
        let socket = config.admin.socket.clone().unwrap();
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().any(|mount| socket.parent() == mount["mountPath"].as_str().map(Path::new)), "{mounts:?}");
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let command = texts(&container[probe]["exec"]["command"]);
            assert!(command.contains(&format!("unix:{}", socket.display())), "{probe}: {command:?}");
            assert_eq!(command.iter().any(|word| word == "--alive"), probe != "readinessProbe", "{command:?}");
            understood(&command);
        }
        understood(&[vec!["tidegate".to_owned()], texts(&container["args"])].concat());
        let flush = Duration::from_secs(5);
        let grace: u64 = pod["terminationGracePeriodSeconds"].as_str().unwrap().parse().unwrap();
        assert!(config.drain.delay + config.drain.deadline + flush < Duration::from_secs(grace), "{overlay}");
    }
}

#[test]
fn both_families_are_listened_on_exactly_where_both_are_published() {
    for (overlay, _) in PAIRS {
        let objects = kustomize(overlay);
        let both = gate(&objects).listeners.iter().any(|listener| listener.address.is_ipv6());
        let env = &daemon_set(&objects)["spec"]["template"]["spec"]["containers"][0]["env"];
        let addresses = env.as_array().unwrap().iter().find(|one| one["name"] == "TIDEGATE_ADDRESSES").unwrap();
        let field = if both { "status.hostIPs" } else { "status.hostIP" };
        assert_eq!(addresses["valueFrom"]["fieldRef"]["fieldPath"], field, "{overlay}");
        assert_eq!(both, overlay == "overlays/dual-stack");
    }
}

#[test]
fn image_and_chart_have_the_version_of_the_program() {
    let image = |objects: &Objects| daemon_set(objects)["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(image(&kustomize("base")), format!("tidegate:{VERSION}"));
    assert_eq!(image(&helm(&[])), format!("tidegate:{VERSION}"));
    let chart = value(&documents(&read("helm/tidegate/Chart.yaml"))[0]);
    assert_eq!((&chart["version"], &chart["appVersion"]), (&json!(VERSION), &json!(VERSION)));
}

#[test]
fn the_first_routes_document_is_right() {
    let path = deploy().join("kustomize/base/routes.yaml");
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("check").arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn values_that_the_chart_does_not_know_are_refused() {
    for value in ["dualstack=true", "image.name=x", "namespaces={Shop}", "clusterSecrets=yes", "routes.x=1"] {
        let (rendered, error) = output(helm_command(&[value]));
        assert!(rendered.is_none() && error.contains("schema"), "{value}: {error}");
    }
}

#[test]
fn values_lay_over_the_install_configuration_and_add_documents_of_routes() {
    let values = [
        "configuration.listeners.http.https_redirect=true",
        "configuration.drain.deadline=20s",
        "routes.shop\\.yaml=shop.example.com/: shop/web",
        "ingressClass.default=true",
        "ingressClass.name=edge",
    ];
    let objects = helm(&values);
    let config = gate(&objects);
    assert_eq!((config.drain.deadline, config.drain.delay), (Duration::from_secs(20), Duration::from_secs(5)));
    assert!(config.listeners.iter().any(|listener| listener.https_redirect.is_some()));
    assert_eq!(config.kubernetes.unwrap().ingress.class, "edge");
    assert_eq!(objects["ConfigMap/tidegate/routes"]["data"]["shop.yaml"], "shop.example.com/: shop/web");
    let class = &objects["IngressClass//edge"];
    assert_eq!(class["metadata"]["annotations"]["ingressclass.kubernetes.io/is-default-class"], "true");
}

/// Where each right holds (a namespace, or `*`), as `group/resource verbs`; of bindings to the gate's ServiceAccount alone.
fn granted(objects: &Objects) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, binding) in objects.iter().filter(|(name, _)| name.split('/').next().unwrap().ends_with("RoleBinding")) {
        let subject = json!([{ "kind": "ServiceAccount", "name": "tidegate", "namespace": "tidegate" }]);
        assert_eq!(binding["subjects"], subject, "{name}");
        let namespace = binding["metadata"]["namespace"].as_str();
        let role = &binding["roleRef"];
        let (kind, role) = (role["kind"].as_str().unwrap(), role["name"].as_str().unwrap());
        let of = if kind == "ClusterRole" { "" } else { namespace.unwrap() };
        let rules = objects[&format!("{kind}/{of}/{role}")]["rules"].as_array().unwrap();
        let rights = all.entry(namespace.unwrap_or("*").to_owned()).or_default();
        for rule in rules {
            assert_eq!(rule.as_object().unwrap().len(), 3, "{rule}");
            let mut verbs = texts(&rule["verbs"]);
            verbs.sort();
            for (group, resource) in texts(&rule["apiGroups"])
                .iter()
                .flat_map(|g| texts(&rule["resources"]).into_iter().map(move |r| (g, r)))
            {
                let group = if group.is_empty() { String::new() } else { format!("{group}/") };
                assert!(rights.insert(format!("{group}{resource} {}", verbs.join(" "))), "{name}: {resource} twice");
            }
        }
    }
    all
}

/// What may differ is made equal: the hash in a name that rolls the gates, the annotation that does so in the chart, Helm's own
/// labels, the text of the install configuration as against its meaning, the order of lists.
fn normalised(objects: &Objects) -> Objects {
    let plain = |object: &Value| {
        let mut object = object.clone();
        if let Some(text) = object["data"]["gate.yaml"].as_str().map(str::to_owned) {
            object["data"]["gate.yaml"] = value(&documents(&text)[0]);
        }
        let helms = [
            "app.kubernetes.io/instance",
            "app.kubernetes.io/version",
            "app.kubernetes.io/managed-by",
            "helm.sh/chart",
        ];
        if let Some(labels) = object["metadata"]["labels"].as_object_mut() {
            labels.retain(|label, _| !helms.contains(&label.as_str()));
        }
        if object["kind"] == "DaemonSet" {
            let pod = &mut object["spec"]["template"];
            let annotations = pod["metadata"].as_object_mut().unwrap().remove("annotations");
            assert!(annotations.is_none_or(|all| all.as_object().unwrap().keys().all(|key| key == "checksum/config")));
            for volume in pod["spec"]["volumes"].as_array_mut().unwrap() {
                if let Some(name) = volume["configMap"]["name"].as_str() {
                    volume["configMap"]["name"] = json!(without_hash(name));
                }
            }
        }
        if let Some(name) = object["metadata"]["name"].as_str().filter(|_| object["kind"] == "ConfigMap") {
            object["metadata"]["name"] = json!(without_hash(name));
        }
        sorted(object)
    };
    objects.iter().map(|(name, object)| (without_hash(name).to_owned(), plain(object))).collect()
}

fn without_hash(name: &str) -> &str {
    match name.rsplit_once("/tidegate-").or_else(|| name.rsplit_once("tidegate-")) {
        Some((before, hash)) if hash.len() == 10 && (before.is_empty() || before.starts_with("ConfigMap/")) => {
            &name[..name.len() - 11]
        }
        _ => name,
    }
}

/// Lists in one order, but for words of a command.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.into_iter().map(sorted).collect();
            items.sort_by_key(ToString::to_string);
            Value::Array(items)
        }
        Value::Object(map) => {
            let ordered = |key: &str| key == "command" || key == "args";
            Value::Object(map.into_iter().map(|(k, v)| if ordered(&k) { (k, v) } else { (k, sorted(v)) }).collect())
        }
        other => other,
    }
}

fn daemon_set(objects: &Objects) -> &Value {
    &objects["DaemonSet/tidegate/tidegate"]
}

/// The install configuration as the gate will read it.
fn gate(objects: &Objects) -> Config {
    let texts: Vec<&str> = objects.values().filter_map(|object| object["data"]["gate.yaml"].as_str()).collect();
    assert_eq!(texts.len(), 1);
    Config::parse("gate.yaml", texts[0], Path::new("/etc/tidegate")).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// Whether the program knows these words.
fn understood(words: &[String]) {
    use clap::Parser;
    tidegate::cli::Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn kustomize(folder: &str) -> Objects {
    let mut command = Command::new(tool("kubectl"));
    command.arg("kustomize").arg(deploy().join("kustomize").join(folder));
    rendered(command)
}

fn helm(values: &[&str]) -> Objects {
    rendered(helm_command(values))
}

fn helm_command(values: &[&str]) -> Command {
    let mut command = Command::new(tool("helm"));
    command.args(["template", "tidegate", "--namespace", "tidegate"]).arg(deploy().join("helm/tidegate"));
    values.iter().for_each(|value| {
        command.args(["--set", value]);
    });
    // Helm looks for plugins and settings of whoever calls it.
    command.env("HELM_DATA_HOME", "/nonexistent").env("HELM_CONFIG_HOME", "/nonexistent");
    command
}

fn rendered(command: Command) -> Objects {
    let (text, error) = output(command);
    let text = text.unwrap_or_else(|| panic!("{error}"));
    let objects = documents(&text).into_iter().filter(|document| document.value != yaml::Value::Null);
    objects.map(|document| value(&document)).map(|object| (key(&object), object)).collect()
}

fn output(mut command: Command) -> (Option<String>, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success().then(|| text(output.stdout)), text(output.stderr))
}

fn key(object: &Value) -> String {
    let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!("{}/{}/{}", of(&object["kind"]), of(&metadata["namespace"]), of(&metadata["name"]))
}

fn documents(text: &str) -> Vec<yaml::Node> {
    yaml::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn value(node: &yaml::Node) -> Value {
    match &node.value {
        yaml::Value::Null => Value::Null,
        yaml::Value::Text(text) => json!(text),
        yaml::Value::List(items) => items.iter().map(value).collect(),
        yaml::Value::Map(entries) => {
            let entries = entries.iter().map(|entry| (entry.key.to_string(), value(&entry.node)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy().join(path)).unwrap()
}

/// A program of the control plane of the tests.
fn tool(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let builds = Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("cluster");
    let built =
        std::fs::read_dir(&builds).into_iter().flatten().flatten().map(|build| build.path().join("bin").join(name));
    let found = built.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not below {}; `make control-plane` builds it", builds.display()))
}
