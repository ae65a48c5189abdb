//! What does a translation cost, when there is a lot and one object of it changes?
//!
//! `cargo test --profile quick --test translate -- --ignored --nocapture` prints it.

use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::config::kubernetes::Settings;
use tidegate::kubernetes::objects::{
    Ingress, IngressBackend, IngressClass, IngressPath, IngressPort, IngressRule, Key, Meta, Objects, RoutesConfigMap,
    Service, ServicePort,
};
use tidegate::kubernetes::translate::{Memory, translate};

const COUNT: usize = 5000;

fn meta(namespace: &str, name: String) -> Meta {
    Meta { key: Key::new(namespace, name), uid: "u".into(), version: "1".into(), created: 1 }
}

fn services() -> Objects {
    let mut objects = Objects::default();
    for number in 0..COUNT {
        let ports = vec![ServicePort { port: 80, ..ServicePort::default() }];
        let service = Service { meta: meta("shop", format!("web-{number}")), ports, ..Service::default() };
        objects.services.insert(service.meta.key.clone(), Arc::new(service));
    }
    objects
}

fn ingress(number: usize, path: &str) -> Arc<Ingress> {
    let backend = IngressBackend::Service(format!("web-{number}"), IngressPort::Number(80));
    let path = IngressPath { path: Some(path.into()), path_type: "Prefix".into(), backend };
    let rule = IngressRule { host: Some(format!("h{number}.example.com")), paths: vec![path] };
    let class = Some("tidegate".into());
    Arc::new(Ingress { meta: meta("shop", format!("web-{number}")), class, rules: vec![rule], ..Ingress::default() })
}

fn map(number: usize, path: &str) -> Arc<RoutesConfigMap> {
    let line = |n| format!("h{}.example.com{path}: shop/web-{}\n", number * 100 + n, number * 100 + n);
    let data = [("routes.yaml".to_owned(), (0..100).map(line).collect())].into();
    Arc::new(RoutesConfigMap { meta: meta("tidegate", format!("routes-{number}")), data, ..RoutesConfigMap::default() })
}

fn timed(what: &str, objects: &Objects, memory: &mut Memory) {
    let settings = Settings::default();
    let start = Instant::now();
    let translation = translate(objects, &settings, "tidegate", memory);
    let took: Duration = start.elapsed();
    assert_eq!((translation.fragment.routes.len(), translation.problems.len()), (COUNT, 0));
    let start = Instant::now();
    let (model, _) = tidegate::source::merge(&[Arc::new(translation.fragment)]);
    let merged = start.elapsed();
    eprintln!("{what}: {took:.1?}, merge {merged:.1?} of {} routes", model.wanted.routes.len());
}

#[test]
#[ignore = "a measurement"]
fn five_thousand_ingresses() {
    let mut objects = services();
    let class = IngressClass { controller: "tidegate.io/ingress".into(), ..IngressClass::default() };
    objects.classes.insert(Key::new("", "tidegate"), Arc::new(class));
    for number in 0..COUNT {
        let ingress = ingress(number, "/");
        objects.ingresses.insert(ingress.meta.key.clone(), ingress);
    }
    let mut memory = Memory::default();
    timed("5 000 Ingresses, first", &objects, &mut memory);
    for path in ["/a", "/b", "/c"] {
        let changed = ingress(7, path);
        objects.ingresses.insert(changed.meta.key.clone(), changed);
        timed("5 000 Ingresses, one changed", &objects, &mut memory);
    }
}

#[test]
#[ignore = "a measurement"]
fn five_thousand_routes_in_config_maps() {
    let mut objects = services();
    for number in 0..COUNT / 100 {
        let map = map(number, "/");
        objects.config_maps.insert(map.meta.key.clone(), map);
    }
    let mut memory = Memory::default();
    timed("50 ConfigMaps of 100 routes, first", &objects, &mut memory);
    for path in ["/a", "/b", "/c"] {
        let changed = map(7, path);
        objects.config_maps.insert(changed.meta.key.clone(), changed);
        timed("50 ConfigMaps of 100 routes, one changed", &objects, &mut memory);
    }
}
