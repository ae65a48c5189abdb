//! What does one change cost beside thousands of objects that stay as they are?
//!
//! The whole road of a change on the control thread, without the API server: objects are translated, delivered, merged, compiled,
//! swapped and reported. `first` is everything from nothing, `change` is one object of thousands in another version.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench that fails should fail where it stands"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::config::Config;
use tidegate::config::kubernetes::Settings;
use tidegate::kubernetes::objects::{
    Ingress, IngressBackend, IngressClass, IngressPath, IngressPort, IngressRule, IngressTls, Key, Meta, Objects,
    RoutesConfigMap, Secret, SecretState, Service, ServicePort,
};
use tidegate::kubernetes::translate::{Memory, translate};
use tidegate::model::{Fragment, Pem};
use tidegate::snapshot::{Publisher, Shared};
use tidegate::source::{Feed, slot};
use tidegate::telemetry::Registry;

const COUNT: usize = 5_000;
/// Routes in one ConfigMap.
const TEXT: usize = 500;

/// A gate without an API server.
struct Gate {
    settings: Settings,
    objects: Objects,
    memory: Memory,
    feed: Feed,
    publisher: Publisher,
    shared: Shared,
    _install: Feed,
}

/// How long the steps took.
#[derive(Clone, Copy, Default)]
struct Took {
    translate: Duration,
    deliver: Duration,
    publish: Duration,
}

impl Took {
    fn all(self) -> Duration {
        self.translate + self.deliver + self.publish
    }
}

impl Gate {
    fn of(objects: Objects) -> Self {
        let (install, install_slot) = slot("install", true);
        let (feed, kubernetes_slot) = slot("kubernetes", true);
        let listeners =
            "listeners: { http: { address: 127.0.0.1:0 }, https: { address: 127.0.0.1:0, protocol: https } }";
        let listeners = Config::parse("gate.yaml", listeners, Path::new("")).unwrap().listeners;
        install.deliver(Fragment { listeners, ..Fragment::default() }, Vec::new());
        let shared = Shared::default();
        let slots = vec![install_slot, kubernetes_slot];
        let (publisher, _) = Publisher::new(shared.clone(), slots, Registry::new(4, 100_000));
        let (settings, memory) = Default::default();
        Self { settings, objects, memory, feed, publisher, shared, _install: install }
    }

    fn turn(&mut self) -> Took {
        let start = Instant::now();
        let mut translation = translate(&self.objects, &self.settings, "tidegate", &mut self.memory);
        let translated = Instant::now();
        let (fragment, problems) = (std::mem::take(&mut translation.fragment), translation.problems.clone());
        self.feed.deliver(fragment, problems);
        let delivered = Instant::now();
        assert!(self.publisher.publish());
        let published = Instant::now();
        Took { translate: translated - start, deliver: delivered - translated, publish: published - delivered }
    }

    fn check(&self) {
        let routes = self.shared.load().routes.len();
        assert!((COUNT..=COUNT + 1).contains(&routes), "{routes} routes");
    }
}

fn meta(namespace: &str, name: String, number: usize) -> Meta {
    // Objects are of many ages, in no order of their names.
    let created = 1_700_000_000 + (number as u64 * 7_919) % 100_003;
    Meta { key: Key::new(namespace, name), uid: format!("uid-{number}").into(), version: "1".into(), created }
}

fn services() -> Objects {
    let mut objects = Objects::default();
    for number in 0..COUNT {
        let ports = vec![ServicePort { port: 80, ..ServicePort::default() }];
        let meta = meta("shop", format!("web-{number}"), number);
        let service = Service { meta: meta.into(), ports, ..Service::default() };
        objects.services.insert(service.meta.key.clone(), Arc::new(service));
    }
    objects
}

fn ingress(number: usize, path: &str) -> Arc<Ingress> {
    let backend = IngressBackend::Service(format!("web-{number}"), IngressPort::Number(80));
    let path = IngressPath { path: Some(path.into()), path_type: "Prefix".into(), backend };
    let rule = IngressRule { host: Some(format!("h{number}.example.com")), paths: vec![path] };
    let meta = meta("shop", format!("web-{number}"), number);
    Arc::new(Ingress { meta: meta.into(), class: Some("tidegate".into()), rules: vec![rule], ..Ingress::default() })
}

fn ingresses() -> Objects {
    let mut objects = services();
    let class = IngressClass { controller: "tidegate.io/ingress".into(), ..IngressClass::default() };
    objects.classes.insert(Key::new("", "tidegate"), Arc::new(class));
    for number in 0..COUNT {
        let ingress = ingress(number, "/");
        objects.ingresses.insert(ingress.meta.key.clone(), ingress);
    }
    objects
}

/// A certificate for `*.example.com` and its key.
fn certificate() -> (Pem, Pem) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["*.example.com".to_owned()]).unwrap().self_signed(&key).unwrap();
    let pem = |text: String| Pem(text.as_bytes().into());
    (pem(certificate.pem()), pem(key.serialize_pem()))
}

fn secret(objects: &mut Objects, number: usize, version: &str, (certificate, key): (Pem, Pem)) {
    let meta = Meta { version: version.into(), ..meta("shop", format!("web-{number}"), number) };
    let name = meta.key.clone();
    let kind = "kubernetes.io/tls".into();
    let secret = Secret { meta, kind, certificate: Some(certificate), key: Some(key), ca: None };
    objects.secrets.insert(name, SecretState::Present(Arc::new(secret)));
}

/// Every Ingress has a Secret of its own.
fn secured() -> Objects {
    let mut objects = ingresses();
    for ingress in objects.ingresses.values_mut() {
        let host = ingress.rules.iter().filter_map(|rule| rule.host.clone()).collect();
        let tls = vec![IngressTls { hosts: host, secret: Some(ingress.meta.key.name.to_string()) }];
        *ingress = Arc::new(Ingress { tls, ..Ingress::clone(ingress) });
    }
    let pair = certificate();
    (0..COUNT).for_each(|number| secret(&mut objects, number, "1", pair.clone()));
    objects
}

fn change_secret(objects: &mut Objects, version: &str) {
    secret(objects, COUNT / 3, version, certificate());
}

fn change_secured(objects: &mut Objects, path: &str) {
    let before = &objects.ingresses[&Key::new("shop", format!("web-{}", COUNT / 3))];
    let ingress = Ingress { tls: before.tls.clone(), ..Ingress::clone(&ingress(COUNT / 3, path)) };
    objects.ingresses.insert(ingress.meta.key.clone(), Arc::new(ingress));
}

/// A ConfigMap with `TEXT` routes, of which the last has this path.
fn map(number: usize, path: &str) -> Arc<RoutesConfigMap> {
    let line = |n: usize| {
        let path = if n + 1 == TEXT { path } else { "/" };
        format!("h{}.example.com{path}: shop/web-{}\n", number * TEXT + n, number * TEXT + n)
    };
    let data = [("routes.yaml".to_owned(), (0..TEXT).map(line).collect())].into();
    let meta = meta("tidegate", format!("routes-{number}"), number);
    Arc::new(RoutesConfigMap { meta: meta.into(), data, ..RoutesConfigMap::default() })
}

fn maps() -> Objects {
    let mut objects = services();
    for number in 0..COUNT / TEXT {
        let map = map(number, "/");
        objects.config_maps.insert(map.meta.key.clone(), map);
    }
    objects
}

fn change_ingress(objects: &mut Objects, path: &str) {
    let ingress = ingress(COUNT / 3, path);
    objects.ingresses.insert(ingress.meta.key.clone(), ingress);
}

fn change_map(objects: &mut Objects, path: &str) {
    let map = map(COUNT / TEXT / 3, path);
    objects.config_maps.insert(map.meta.key.clone(), map);
}

/// A ConfigMap of one route beside those of hundreds.
fn change_probe(objects: &mut Objects, path: &str) {
    let data = [("routes.yaml".to_owned(), format!("probe.example.com{path}: shop/web-0\n"))].into();
    let map = RoutesConfigMap { meta: meta("tidegate", "probe".into(), 7).into(), data, ..RoutesConfigMap::default() };
    objects.config_maps.insert(map.meta.key.clone(), Arc::new(map));
}

/// The status of every Ingress was written, and one of them has another path.
fn change_after_status(objects: &mut Objects, path: &str) {
    for ingress in objects.ingresses.values_mut() {
        let addresses = Arc::new([format!("192.0.2.{}", path.len() + usize::from(path == "/a")).into()]);
        *ingress = Arc::new(Ingress { addresses, ..Ingress::clone(ingress) });
    }
    change_ingress(objects, path);
}

/// Names of steps, and which time is theirs.
type Steps = [(&'static str, fn(Took) -> Duration); 4];

const STEPS: Steps = [
    ("all", Took::all),
    ("translate", |took| took.translate),
    ("deliver", |took| took.deliver),
    ("publish", |took| took.publish),
];

fn measure(c: &mut Criterion, what: &str, objects: fn() -> Objects, change: fn(&mut Objects, &str)) {
    let mut group = c.benchmark_group(what);
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    let first = |times| (0..times).map(|_| Gate::of(objects()).turn().all()).sum();
    group.bench_function("first", |b| b.iter_custom(first));
    let mut gate = Gate::of(objects());
    gate.turn();
    gate.check();
    let mut round = 0_usize;
    for (step, of) in STEPS {
        let mut turn = || {
            round += 1;
            change(&mut gate.objects, ["/a", "/b"][round % 2]);
            of(gate.turn())
        };
        group.bench_function(format!("change/{step}"), |b| b.iter_custom(|times| (0..times).map(|_| turn()).sum()));
    }
    gate.check();
}

fn publish(c: &mut Criterion) {
    measure(c, "5000 Ingresses", ingresses, change_ingress);
    measure(c, "5000 Ingresses with TLS, a certificate", secured, change_secret);
    measure(c, "5000 Ingresses with TLS, a path", secured, change_secured);
    measure(c, "5000 Ingresses whose status was written, a path", ingresses, change_after_status);
    measure(c, "5000 routes in 10 ConfigMaps", maps, change_probe);
    measure(c, "one of 500 routes of a ConfigMap, beside 4500", maps, change_map);
}

criterion_group!(benches, publish);
criterion_main!(benches);
