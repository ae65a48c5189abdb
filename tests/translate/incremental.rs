//! Does it make a difference what was translated and published before?
//!
//! Of thousands of objects a change looks at few. Whatever the sequence of changes, what comes of it must be what a gate finds that
//! starts now. (Last good versions are what a gate may remember; nothing in here is wrong in a way that has some.)

use crate::cluster::OWN;
use k8s_openapi::api::{core::v1 as core, networking::v1 as networking};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tidegate::config::Config;
use tidegate::config::kubernetes::{ExposeRule, Settings};
use tidegate::kubernetes::objects::{Key, Objects, Secret, SecretState};
use tidegate::kubernetes::translate::{Memory, Translation, translate};
use tidegate::model::{ClusterSpec, Fragment, HostPattern, Origin, Pem};
use tidegate::snapshot::{Publisher, Shared, list};
use tidegate::source::{Feed, Report, slot};
use tidegate::telemetry::Registry;
use tokio::sync::watch;

/// What becomes of one object; `None`: it is gone.
#[derive(Clone, Debug)]
struct Step {
    kind: &'static str,
    name: String,
    object: Option<Value>,
}

const HOSTS: [&str; 4] = ["a.test", "b.test", "*.b.test", ""];

fn ingress() -> impl Strategy<Value = Value> {
    let path = (0..4usize, prop::sample::select(vec!["/", "/x", "/x/"]), any::<bool>());
    let path = path.prop_map(|(service, path, exact)| {
        json!({ "path": path, "pathType": if exact { "Exact" } else { "Prefix" }, "backend": backend(service) })
    });
    let rule = (0..4usize, prop::collection::vec(path, 0..3)).prop_map(|(host, paths)| {
        let mut rule = json!({ "http": { "paths": paths } });
        if !HOSTS[host].is_empty() {
            rule["host"] = json!(HOSTS[host]);
        }
        rule
    });
    let tls = prop::option::of(
        (0..2usize, 0..2usize)
            .prop_map(|(host, secret)| json!([{ "hosts": [HOSTS[host]], "secretName": format!("s{secret}") }])),
    );
    let class = prop::sample::select(vec![Some("tidegate"), Some("other"), None]);
    let all = (prop::collection::vec(rule, 0..3), tls, class, prop::option::of(0..4usize), 0..4usize);
    all.prop_map(|(rules, tls, class, fallback, written)| {
        let default = fallback.map(backend);
        let addresses = json!([{ "ip": format!("192.0.2.{written}") }]);
        json!({
            "metadata": { "resourceVersion": written.to_string() },
            "spec": { "rules": rules, "tls": tls, "ingressClassName": class, "defaultBackend": default },
            "status": { "loadBalancer": { "ingress": addresses } },
        })
    })
}

fn backend(service: usize) -> Value {
    json!({ "service": { "name": format!("w{service}"), "port": { "number": 80 } } })
}

fn service() -> impl Strategy<Value = Value> {
    let ports = prop::sample::subsequence(vec![80, 81], 0..=2);
    (ports, prop::option::of(prop::sample::select(vec!["a.test/x", "c.test/", "b.test/ c.test/x"]))).prop_map(
        |(ports, expose)| {
            let ports: Vec<Value> = ports.iter().map(|p| json!({ "port": p, "name": format!("p{p}") })).collect();
            let annotations = expose.map(|expose| json!({ "tidegate.io/expose": expose }));
            json!({ "metadata": { "annotations": annotations }, "spec": { "ports": ports } })
        },
    )
}

fn config_map() -> impl Strategy<Value = Value> {
    let line =
        (0..4usize, prop::sample::select(vec!["/", "/x", "=/y"]), 0..4usize).prop_map(|(host, path, service)| {
            let host = if HOSTS[host].is_empty() { "\"*\"" } else { HOSTS[host] };
            (format!("{}{path}", host.trim_matches('"')), format!("shop/w{service}"))
        });
    let cluster = prop::option::of((0..4usize, 0..2usize, any::<bool>()));
    let text = (prop::collection::btree_map("[a-z]", line, 0..4), cluster).prop_map(|(lines, cluster)| {
        let keys: BTreeSet<_> = lines.values().cloned().collect();
        let mut seen = BTreeSet::new();
        let lines = keys.into_iter().filter(|(key, _)| seen.insert(key.clone()));
        let mut text: String = lines.map(|(key, to)| format!("\"{key}\": {to}\n")).collect();
        if let Some((service, secret, tls)) = cluster {
            let tls = if tls { format!(", tls: {{ ca: s{secret}, server_name: x.test }}") } else { String::new() };
            text.push_str(&format!("clusters: {{ \"shop/w{service}\": {{ max_idle: {} {tls} }} }}\n", service + 1));
        }
        text
    });
    prop::collection::btree_map("[a-b]", text, 0..3).prop_map(|texts| {
        let data: serde_json::Map<String, Value> =
            texts.into_iter().map(|(k, v)| (format!("{k}.yaml"), json!(v))).collect();
        json!({ "data": data })
    })
}

fn step() -> impl Strategy<Value = Step> {
    let named = |kind: &'static str, letter: char, names: usize, object: BoxedStrategy<Value>| {
        (0..names, prop::option::weighted(0.8, object), 0..4u64).prop_map(move |(name, object, age)| {
            let name = format!("{letter}{name}");
            let object = object.map(|mut object| {
                let created = format!("2026-01-0{}T00:00:00Z", age + 1);
                object["metadata"]["name"] = json!(name);
                object["metadata"]["creationTimestamp"] = json!(created);
                object["metadata"]["uid"] = json!(format!("{kind}-{name}-{age}"));
                object
            });
            Step { kind, name, object }
        })
    };
    prop_oneof![
        5 => named("Ingress", 'i', 5, ingress().boxed()),
        3 => named("Service", 'w', 4, service().boxed()),
        3 => named("ConfigMap", 'm', 2, config_map().boxed()),
        1 => (0..3usize).prop_map(|n| Step { kind: "Secret", name: n.to_string(), object: None }),
        1 => named("IngressClass", 'c', 1, Just(json!({ "spec": { "controller": "tidegate.io/ingress" } })).boxed()),
    ]
}

fn apply(objects: &mut Objects, step: &Step) {
    let Step { kind, name, object } = step;
    match *kind {
        "Ingress" => put::<networking::Ingress, _>(&mut objects.ingresses, Key::new("shop", name.as_str()), object),
        "Service" => put::<core::Service, _>(&mut objects.services, Key::new("shop", name.as_str()), object),
        // How it is now is told with the answer.
        "Secret" => {}
        "ConfigMap" => put::<core::ConfigMap, _>(&mut objects.config_maps, Key::new(OWN, name.as_str()), object),
        _ => put::<networking::IngressClass, _>(&mut objects.classes, Key::new("", "tidegate"), object),
    }
}

fn put<K: DeserializeOwned + Into<O>, O>(all: &mut BTreeMap<Key, Arc<O>>, key: Key, object: &Option<Value>) {
    let Some(mut object) = object.clone() else { return drop(all.remove(&key)) };
    object["metadata"]["name"] = json!(&*key.name);
    object["metadata"]["namespace"] = json!(&*key.namespace);
    all.insert(key, Arc::new(serde_json::from_value::<K>(object).unwrap().into()));
}

fn settings() -> Settings {
    let hosts = vec![HostPattern::Any];
    Settings { expose: vec![ExposeRule { namespace: "shop".into(), hosts }], ..Settings::default() }
}

/// Of the Secrets that are asked for, one is there, in this version.
fn answer(objects: &mut Objects, translation: &Translation, secret: &str) -> bool {
    let pem =
        |kind: &str| Some(Pem(format!("-----BEGIN {kind}-----\n{secret}\n-----END {kind}-----\n").into_bytes().into()));
    let state = |key: &Key| {
        let kind = "kubernetes.io/tls".to_owned();
        let secret = Secret { kind, certificate: pem("CERTIFICATE"), key: pem("PRIVATE KEY"), ..Secret::default() };
        if &*key.name == "s0" { SecretState::Present(Arc::new(secret)) } else { SecretState::Absent }
    };
    let states = translation.secrets.iter().map(|key| (key.clone(), state(key))).collect();
    std::mem::replace(&mut objects.secrets, states) != objects.secrets
}

fn translated(objects: &mut Objects, memory: &mut Memory, secret: &str) -> Translation {
    loop {
        let translation = translate(objects, &settings(), OWN, memory);
        if !answer(objects, &translation, secret) {
            return translation;
        }
    }
}

/// A publisher and what it says.
struct Gate {
    feed: Feed,
    publisher: Publisher,
    report: watch::Receiver<Report>,
    shared: Shared,
    _install: Feed,
}

impl Gate {
    fn new() -> Self {
        let ((install, first), (feed, second)) = (slot("install", true), slot("kubernetes", true));
        let text = "listeners: { http: { address: 127.0.0.1:0 }, other: { address: 127.0.0.1:0 } }";
        let listeners = Config::parse("gate.yaml", text, Path::new("")).unwrap().listeners;
        install.deliver(Fragment { listeners, ..Fragment::default() }, Vec::new());
        let shared = Shared::default();
        let (publisher, report) = Publisher::new(shared.clone(), vec![first, second], Registry::new(1, 1_000));
        Self { feed, publisher, report, shared, _install: install }
    }

    fn publish(&mut self, translation: &Translation) -> (Vec<String>, Vec<String>, Vec<String>) {
        self.feed.deliver(translation.fragment.clone(), translation.problems.clone());
        assert!(self.publisher.publish());
        let snapshot = self.shared.load();
        let routes = list(&snapshot).iter().map(ToString::to_string).collect();
        // A cluster that was only said elsewhere goes on as it is.
        let bare = |spec: &ClusterSpec| ClusterSpec { origin: Origin::default(), ..spec.clone() };
        let clusters = snapshot.clusters.iter().map(|held| format!("{:?}", bare(held.cluster.spec()))).collect();
        (routes, clusters, self.report.borrow().problems.iter().map(ToString::to_string).collect())
    }
}

#[test]
fn a_name_that_the_install_configuration_takes_is_a_secret_no_more_until_it_gives_it_up() {
    let (mut objects, mut memory) = (Objects::default(), Memory::default());
    let text = "hosts: [a.test]\ntls: { certificate: shop }\nroutes: [{ path: /, to: shop/w0 }]\n";
    let object = Some(json!({ "metadata": { "uid": "m0" }, "data": { "a.yaml": text } }));
    apply(&mut objects, &Step { kind: "ConfigMap", name: "m0".into(), object });
    for known in [&[][..], &["shop"], &[]] {
        let certificates = known.iter().map(ToString::to_string).collect();
        let settings = Settings { certificates, ..settings() };
        let translation = translate(&objects, &settings, OWN, &mut memory);
        assert_eq!(translation, translate(&objects, &settings, OWN, &mut Memory::default()));
        let wanted = translation.secrets.iter().any(|key| *key == Key::new(OWN, "shop"));
        assert_eq!(wanted, known.is_empty(), "{known:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn after_any_sequence_of_changes_it_is_as_if_there_had_been_none(steps in prop::collection::vec(step(), 1..25)) {
        let (mut objects, mut memory, mut gate) = (Objects::default(), Memory::default(), Gate::new());
        let mut secret = String::new();
        for step in steps {
            apply(&mut objects, &step);
            if step.kind == "Secret" {
                secret = step.name;
            }
            let translation = translated(&mut objects, &mut memory, &secret);
            let fresh = translated(&mut objects, &mut Memory::default(), &secret);
            prop_assert_eq!(&translation, &fresh);
            prop_assert_eq!(gate.publish(&translation), Gate::new().publish(&fresh));
        }
    }
}
