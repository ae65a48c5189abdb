//! What does an Ingress ask for?
//!
//! `Prefix` and `ImplementationSpecific` are a prefix of whole segments, a trailing slash makes no difference; `Exact` is the
//! whole path. A wildcard host stands for one label. An Ingress reaches Services and Secrets of its own namespace alone.

use super::super::objects::{Ingress, IngressBackend, IngressPath, IngressPort, Key, Objects};
use super::annotation::not_done;
use super::piece::{Piece, is_label, origin, route};
use crate::config::kubernetes::{IngressSettings, Settings, is_subdomain};
use crate::model::{HostPattern, Origin, PathMatch, Problem, TlsBinding, WildcardDepth};
use crate::source::grammar::canonical;
use std::borrow::Cow;

/// The classes whose Ingresses are ours. Those of others are none of our business.
pub(super) struct Classes<'a> {
    settings: &'a IngressSettings,
    ours: Vec<&'a str>,
    default: bool,
    /// Only some namespaces are looked at, and classes, which are in none, are not: the name of our own is all that is known.
    by_name: bool,
}

impl<'a> Classes<'a> {
    pub(super) fn of(objects: &'a Objects, all: &'a Settings) -> Self {
        let settings = &all.ingress;
        let ours = || objects.classes.iter().filter(|(_, class)| class.controller == settings.controller);
        let default = ours().any(|(_, class)| class.is_default);
        Self {
            settings,
            ours: ours().map(|(key, _)| &*key.name).collect(),
            default,
            by_name: !all.namespaces.is_empty(),
        }
    }

    pub(super) fn have(&self, ingress: &Ingress) -> bool {
        let ours = match (&ingress.class, &ingress.class_annotation) {
            (Some(class), _) if self.by_name => **class == *self.settings.class,
            (Some(class), _) => self.ours.contains(&&**class),
            (None, Some(class)) => *class == self.settings.class,
            (None, None) => self.default,
        };
        ours && self.settings.enabled
    }
}

/// What it asks for, whoever else wants the same.
pub(super) fn piece(ingress: &Ingress) -> Piece {
    let mut made = Maker { ingress, of: format!("Ingress {}", ingress.meta.key), piece: Piece::default() };
    made.fallback();
    for (number, rule) in ingress.rules.iter().enumerate() {
        made.rule(number, rule.host.as_deref(), &rule.paths);
    }
    for (number, entry) in ingress.tls.iter().enumerate() {
        if let Some(secret) = &entry.secret {
            made.tls(number, &entry.hosts, secret);
        }
    }
    made.piece.problems.extend(not_done(ingress));
    made.piece
}

struct Maker<'a> {
    ingress: &'a Ingress,
    of: String,
    piece: Piece,
}

impl Maker<'_> {
    fn origin(&self, key: impl Into<Cow<'static, str>>) -> Origin {
        origin("Ingress", &self.ingress.meta, key)
    }

    fn fallback(&mut self) {
        let Some(backend) = &self.ingress.default_backend else { return };
        let origin = self.origin("spec.defaultBackend");
        if let Some(cluster) = self.cluster(backend, &origin) {
            let of = format!("{}, default", self.of);
            self.piece.fallback =
                Some(route(&of, HostPattern::Any, PathMatch::Prefix("/".into()), cluster, origin).into());
        }
    }

    fn rule(&mut self, number: usize, host: Option<&str>, paths: &[IngressPath]) {
        let host = match host.map(|host| HostPattern::parse(host, WildcardDepth::One)).transpose() {
            Ok(host) => host.unwrap_or(HostPattern::Any),
            Err(error) => {
                let origin = self.origin(format!("spec.rules[{number}].host"));
                return self.piece.refuse(origin, error.what, error.hint);
            }
        };
        if paths.is_empty() {
            return self.whole_host(number, host);
        }
        for (at, path) in paths.iter().enumerate() {
            let origin = self.origin(path_key(number, at));
            let Some(cluster) = self.cluster(&path.backend, &origin) else { continue };
            match path_match(path) {
                Ok(matched) => {
                    let route = route(&self.of, host.clone(), matched, cluster, origin);
                    self.piece.fragment.routes.push(route.into());
                }
                Err((what, hint)) => self.piece.refuse(origin, what, hint),
            }
        }
    }

    /// A rule without paths sends its whole host to the default backend.
    fn whole_host(&mut self, number: usize, host: HostPattern) {
        let origin = self.origin(format!("spec.rules[{number}]"));
        let Some(backend) = &self.ingress.default_backend else {
            let what = format!("the rule of {host} has no paths, and there is no defaultBackend");
            return self.piece.refuse(origin, what, "add http.paths, or spec.defaultBackend");
        };
        // Without a host either, it is the default backend itself; where that is wrong, it was told there.
        if let (false, IngressBackend::Service(service, port)) = (host == HostPattern::Any, backend)
            && self.piece.fallback.is_some()
        {
            let cluster = cluster_name(&self.ingress.meta.key, service, port);
            let route = route(&self.of, host, PathMatch::Prefix("/".into()), cluster, origin);
            self.piece.fragment.routes.push(route.into());
        }
    }

    fn cluster(&mut self, backend: &IngressBackend, origin: &Origin) -> Option<String> {
        match backend {
            IngressBackend::Service(service, port) if is_label(service) => {
                Some(cluster_name(&self.ingress.meta.key, service, port))
            }
            IngressBackend::Service(service, _) => {
                let what = format!("{service:?} is not the name of a Service");
                self.piece.refuse(origin.clone(), what, "name a Service of this namespace");
                None
            }
            IngressBackend::Resource(kind) => {
                let what = format!("the backend is a resource of kind {kind:?}, which nobody here can serve");
                self.piece.refuse(origin.clone(), what, "name a Service and its port");
                None
            }
        }
    }

    fn tls(&mut self, number: usize, names: &[String], secret: &str) {
        let origin = self.origin(format!("spec.tls[{number}]"));
        if !is_subdomain(secret) {
            let what = format!("{secret:?} is not the name of a Secret");
            let problem = Problem::error(origin, what, "name a Secret of this namespace");
            return self.piece.problems.push(problem);
        }
        let mut hosts = Vec::new();
        for name in names {
            match HostPattern::parse(name, WildcardDepth::One) {
                Ok(host) => hosts.push(host),
                Err(error) => self.piece.problems.push(Problem::error(origin.clone(), error.what, error.hint)),
            }
        }
        // Were the wrong names just left out of a list that has no others, the entry would mean all names of the certificate.
        if hosts.is_empty() && !names.is_empty() {
            return;
        }
        let namespace = &self.ingress.meta.key.namespace;
        let name = format!("{namespace}/{secret}");
        self.piece.secrets.insert(name.clone(), Key::new(namespace.clone(), secret));
        let binding = TlsBinding { origin, listeners: Vec::new(), hosts, certificates: vec![name], client_auth: None };
        self.piece.fragment.tls.push(binding);
    }
}

/// Most Ingresses have one rule with one path: of thousands that is not written anew.
fn path_key(rule: usize, path: usize) -> Cow<'static, str> {
    match (rule, path) {
        (0, 0) => Cow::Borrowed("spec.rules[0].http.paths[0]"),
        _ => Cow::Owned(format!("spec.rules[{rule}].http.paths[{path}]")),
    }
}

fn cluster_name(ingress: &Key, service: &str, port: &IngressPort) -> String {
    match port {
        IngressPort::Name(name) => format!("{}/{service}:{name}", ingress.namespace),
        IngressPort::Number(number) => format!("{}/{service}:{number}", ingress.namespace),
    }
}

/// How the path is matched, or what is wrong with it and what would be right.
fn path_match(path: &IngressPath) -> Result<PathMatch, (String, String)> {
    let text = path.path.as_deref().unwrap_or("/");
    let wrong = |what: String| Err((what, "write a path such as /api".to_owned()));
    if path.path.is_none() && path.path_type == "Exact" {
        return wrong("pathType Exact without a path".into());
    }
    if text.chars().any(char::is_control) {
        return wrong(format!("{text:?} is not a path: it has a control character"));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return wrong(format!("no request has the path {text:?}: dots are resolved before paths are matched"));
    }
    let text = match canonical(text) {
        Ok(text) => text,
        Err(error) => return wrong(error.what),
    };
    match &*path.path_type {
        "Exact" => Ok(PathMatch::Exact(text)),
        "Prefix" | "ImplementationSpecific" => Ok(PathMatch::Prefix(text)),
        other => Err((format!("unknown pathType {other:?}"), "Prefix, Exact or ImplementationSpecific".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_only_some_namespaces_are_looked_at_the_name_of_our_class_is_enough() {
        let named = |class: &str| Ingress { class: Some(class.into()), ..Ingress::default() };
        for namespaces in [vec!["shop".into()], vec![]] {
            let (objects, settings) = (Objects::default(), Settings { namespaces, ..Settings::default() });
            let classes = Classes::of(&objects, &settings);
            assert_eq!(classes.have(&named("tidegate")), !settings.namespaces.is_empty());
            assert!(!classes.have(&named("other")) && !classes.have(&Ingress::default()));
        }
    }
}
