//! How is a translation shown, so that a person can judge it and a change of it is seen?

use std::fmt::Write;
use std::sync::Arc;
use tidegate::kubernetes::objects::Key;
use tidegate::kubernetes::translate::{Binding, Outcome, Translation};
use tidegate::model::{Action, Authorities, ClusterSpec, HostPattern, Origin, RouteSpec, TlsBinding, WildcardDepth};

/// Everything but the problems.
pub(crate) fn model(translation: &Translation) -> String {
    let fragment = &translation.fragment;
    let mut text = String::new();
    section(&mut text, "routes", fragment.routes.iter().map(|r| route(r)));
    section(
        &mut text,
        "clusters",
        fragment.clusters.iter().map(|c| cluster(c, &translation.bindings.get(&*c.name).unwrap().binding)),
    );
    section(&mut text, "tls", fragment.tls.iter().map(binding));
    section(&mut text, "certificates", fragment.certificates.iter().map(|c| format!("{}\n  at {}", c.name, c.origin)));
    section(&mut text, "secrets", translation.secrets.iter().map(ToString::to_string));
    let kinds = [("Ingress", &translation.ingresses), ("Service", &translation.exposed)];
    let became = kinds.into_iter().flat_map(|(kind, all)| {
        all.iter().map(move |b| counted(kind, &b.object.key, b.accepted as usize, b.refused as usize))
    });
    let outcomes = translation.config_maps.iter().map(|(key, o)| outcome("ConfigMap", key, o)).chain(became);
    section(&mut text, "outcomes", outcomes);
    assert_eq!(translation.bindings.len(), fragment.clusters.len(), "each cluster has one binding");
    text
}

pub(crate) fn problems(translation: &Translation) -> String {
    translation.problems.iter().fold(String::new(), |text, problem| format!("{text}{problem}\n"))
}

fn section(text: &mut String, name: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.collect();
    if !lines.is_empty() {
        writeln!(text, "{name}:").unwrap();
        lines.iter().for_each(|line| writeln!(text, "- {line}").unwrap());
    }
}

fn route(route: &RouteSpec) -> String {
    let action = match &route.action {
        Action::Forward(clusters) if clusters.len() == 1 => clusters[0].cluster.to_string(),
        other => format!("{other:?}"),
    };
    let hosts: Vec<String> = route.hosts.iter().map(host).collect();
    let mut text = format!("{} -> {action}\n  {:?} of {hosts:?}", route.name, route.matches.path);
    if !route.policies.is_empty() {
        write!(text, "\n  {:?}", route.policies).unwrap();
    }
    text + &at(&route.origin)
}

fn host(host: &HostPattern) -> String {
    match host {
        HostPattern::Wildcard(_, WildcardDepth::One) => format!("{host} (one label)"),
        host => host.to_string(),
    }
}

fn cluster(cluster: &ClusterSpec, binding: &Binding) -> String {
    let binding = match binding {
        Binding::Slices { service, port } => format!("endpoints of {service}, port {port:?}"),
        Binding::Name { host, port } => format!("the name {host}, port {port}"),
        Binding::Nothing => "no endpoints".into(),
    };
    let usual = ClusterSpec::new(Arc::clone(&cluster.name), cluster.origin.clone(), vec![]);
    let usual = ClusterSpec { followed: true, ..usual };
    let mut text = format!("{}: {binding}, {:?}", cluster.name, cluster.protocol);
    let plain = ClusterSpec { protocol: usual.protocol, tls: None, ..cluster.clone() };
    if let Some(tls) = &cluster.tls {
        let trusted = authorities(&tls.ca);
        write!(text, "\n  TLS of {} with {:?}, trusts {trusted}", tls.server_name, tls.client_certificate).unwrap();
    }
    if plain != usual {
        write!(text, "\n  {:?}, check {:?}, {:?}", cluster.balance, cluster.health_check, cluster.connect_timeout)
            .unwrap();
    }
    text + &at(&cluster.origin)
}

fn binding(binding: &TlsBinding) -> String {
    let hosts: Vec<String> = binding.hosts.iter().map(host).collect();
    let client = binding.client_auth.as_ref();
    let client = client.map_or_else(String::new, |auth| format!(", client certificates of {}", authorities(&auth.ca)));
    format!("{hosts:?} by {:?}{client}{}", binding.certificates, at(&binding.origin))
}

fn authorities(ca: &Authorities) -> String {
    match ca {
        Authorities::Known(pem) => format!("{} bytes", pem.0.len()),
        Authorities::Named(name) => format!("nobody before {name:?} is there"),
    }
}

fn at(origin: &Origin) -> String {
    let created = if origin.created == u64::MAX { "never".into() } else { origin.created.to_string() };
    format!("\n  at {origin} ({created})")
}

fn outcome(kind: &str, key: &Key, outcome: &Outcome) -> String {
    counted(kind, key, outcome.accepted, outcome.refused)
}

fn counted(kind: &str, key: &Key, accepted: usize, refused: usize) -> String {
    format!("{kind} {key}: {accepted} accepted, {refused} refused")
}
