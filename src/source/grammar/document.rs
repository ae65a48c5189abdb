//! How is one document of routes written, and what does it become?

use super::Parsed;
use super::cluster::cluster;
use super::path::{is_line, line_key};
use super::route::{Patience, WrittenRoute, line, route};
use super::{action, path};
use crate::config::decode::{Decoder, Fields, Kind, Rest};
use crate::config::kind::{Apart, List, Mapped, Named, Names, Outcome, Scalar, Section, Shapes};
use crate::config::policy::Policies;
use crate::config::tls::{certificate_names, client_auth};
use crate::config::values;
use crate::config::yaml::Node;
use crate::model::{ClientAuthSpec, ClusterSpec, HostPattern, Origin, TlsBinding, WildcardDepth};
use std::collections::{BTreeSet, HashMap};

/// What a document says for all of its routes.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) hosts: Vec<HostPattern>,
    /// What a `*` of its hosts and lines stands for.
    depth: WildcardDepth,
    pub(super) listeners: Vec<String>,
    pub(super) policies: Policies,
    pub(super) patience: Patience,
    tls: Option<WrittenTls>,
}

struct WrittenTls {
    certificates: Vec<String>,
    client_auth: Option<ClientAuthSpec>,
}

/// One document as written.
pub(super) struct Document {
    origin: Origin,
    settings: Settings,
    routes: Vec<Outcome<WrittenRoute>>,
    lines: Vec<(String, Origin, Outcome<WrittenRoute>)>,
    clusters: Vec<Named<String, Outcome<ClusterSpec>>>,
}

/// One document of a routes file.
pub(super) fn document() -> Section<Document> {
    Section {
        name: "document",
        doc: "One document of a routes file: lines of `host/path: cluster`, or routes of some hosts, or clusters.",
        fields,
    }
}

fn fields(f: &mut Fields<'_, '_>) -> Option<Document> {
    let doc = "Hosts of every route of `routes`: exact, *.example.com or *. Default: any host.";
    let hosts = f.or_default("hosts", doc, List(values::host()));
    let host = f.optional("host", "The one host of every route of `routes`.", values::host());
    if f.has("host") && f.has("hosts") {
        f.error("host", "host and hosts exclude each other", "write them all in hosts");
    }
    let doc = "How many labels the * of a host stands for: many (one or more: *.example.com covers a.b.example.com), or \
               one (as in an Ingress and in certificates). Where both cover a host, one goes before many.";
    let depth = f.or("wildcard", doc, depth(), WildcardDepth::default());
    let doc = "Listeners that serve this document, by name. Default: all.";
    let listeners = f.or_default("listeners", doc, List(values::name("the name of a listener")));
    let doc = "Certificate that serves these hosts: its name, several names, or { certificate, client_auth }.";
    let tls = f.optional("tls", doc, tls());
    let policies = Policies::decode(f);
    let patience = Patience::decode(f);
    let routes = f.or_default("routes", "Routes of these hosts.", List(Apart(route())));
    let names = Names { key: action::cluster_name(), value: Apart(cluster()), each: true };
    let clusters = f.or_default("clusters", "Upstream services by name; in Kubernetes a cluster is a Service.", names);
    let lines = Rest {
        belongs: &is_line,
        hint: &|_| None,
        regex: "[/.=~*]",
        doc: "A route: `host/path: cluster`, a list of weighted clusters, or a route without `path`.",
    };
    let lines = f.rest(lines, Apart(line_value()));
    if !lines.is_empty() && (f.has("host") || f.has("hosts") || f.has("routes")) {
        let hint = "lines have their own hosts: put a line --- between them and the others";
        f.error("", "lines of host/path stand beside hosts or routes", hint);
    }
    let mut hosts: Vec<_> = hosts.into_iter().chain(host).map(|host| host.with_depth(depth)).collect();
    if hosts.contains(&HostPattern::Any) {
        hosts.clear();
    }
    let settings = Settings { hosts, depth, listeners, policies, patience, tls };
    Some(Document { origin: f.origin(), settings, routes, lines, clusters })
}

fn depth() -> Scalar<WildcardDepth> {
    values::choice("what a * stands for", &[("many", WildcardDepth::Many), ("one", WildcardDepth::One)])
}

fn line_value() -> impl Kind<Out = WrittenRoute> {
    let short = || Mapped(action::clusters(), WrittenRoute::to);
    Shapes::new().text(short()).list(short()).map(line())
}

fn tls() -> impl Kind<Out = WrittenTls> {
    let names = || Mapped(certificate_names(), |certificates| WrittenTls { certificates, client_auth: None });
    let long = Section {
        name: "host_tls",
        doc: "TLS of these hosts.",
        fields: |f| {
            let doc = "Certificate, one or several (ECDSA beside RSA), by the name in the install configuration; in a ConfigMap also of a Secret.";
            let certificates = f.required("certificate", doc, certificate_names());
            let doc = "Client certificates. Default: as the listener says.";
            let client_auth = f.optional("client_auth", doc, client_auth());
            Some(WrittenTls { certificates: certificates?, client_auth })
        },
    };
    Shapes::new().text(names()).list(names()).map(long)
}

/// Reads one document; what is right goes to the fragment, the names of what is not to the refused.
pub(super) fn read(node: &Node, decoder: &mut Decoder<'_>, seen: &mut Seen, parsed: &mut Parsed) {
    let (document, good) = decoder.apart(|d| document().decode(node, d));
    let Some(document) = document else { return };
    let Document { origin, settings, routes, lines, clusters } = document;
    let mut line_hosts = BTreeSet::new();
    let mut routes: Vec<_> = routes.into_iter().map(|r| (settings.hosts.clone(), r)).collect();
    for (key, at, mut outcome) in lines {
        let position = at.position.unwrap_or(node.at);
        let (target, fine) = decoder.apart(|d| d.under(&key, |d| line_key(&key, position, d)));
        let Some((host, path)) = target else { continue };
        let hosts = if host == HostPattern::Any { Vec::new() } else { vec![host.with_depth(settings.depth)] };
        line_hosts.extend(hosts.iter().cloned());
        outcome.value = outcome.value.map(|route| route.with_path(path));
        outcome.good &= fine;
        outcome.origin = at;
        routes.push((hosts, outcome));
    }
    for (hosts, mut outcome) in routes {
        // A setting of the document may be the filter that keeps people out: without it no route of it is changed.
        outcome.good &= good;
        add_route(hosts, outcome, &settings, decoder, seen, parsed);
    }
    for Named { name, origin, value } in clusters {
        add_cluster(name, origin, value, decoder, seen, parsed);
    }
    let hosts = if line_hosts.is_empty() { settings.hosts } else { line_hosts.into_iter().collect() };
    match settings.tls {
        Some(WrittenTls { certificates, client_auth }) if good => {
            let (origin, listeners) = (origin.at("tls", origin.position), settings.listeners);
            parsed.fragment.tls.push(TlsBinding { origin, listeners, hosts, certificates, client_auth });
        }
        _ if !good => parsed.refused.bindings.push(hosts),
        _ => {}
    }
}

/// Names used so far in a text, and where.
#[derive(Default)]
pub(super) struct Seen {
    routes: HashMap<String, Origin>,
    clusters: HashMap<String, Origin>,
}

fn add_route(
    hosts: Vec<HostPattern>,
    outcome: Outcome<WrittenRoute>,
    settings: &Settings,
    decoder: &mut Decoder<'_>,
    seen: &mut Seen,
    parsed: &mut Parsed,
) {
    let Some(written) = outcome.value else { return };
    let Some(name) = written.name(&hosts, settings) else { return };
    let at = outcome.origin;
    if let Some(before) = seen.routes.get(&name) {
        let what = format!("the route {name} is there already");
        let line = before.position.map_or(0, |p| p.line);
        decoder.error_at(&at, what, format!("it stands in line {line}; the first one counts"));
        return;
    }
    seen.routes.insert(name.clone(), at.clone());
    match written.resolve(at, hosts, settings).filter(|_| outcome.good) {
        Some(route) => parsed.fragment.routes.push(route.into()),
        None => parsed.refused.routes.push(name),
    }
}

fn add_cluster(
    name: String,
    at: Origin,
    outcome: Outcome<ClusterSpec>,
    decoder: &mut Decoder<'_>,
    seen: &mut Seen,
    parsed: &mut Parsed,
) {
    if let Some(before) = seen.clusters.get(&name) {
        let line = before.position.map_or(0, |p| p.line);
        decoder.error_at(&at, format!("the cluster {name} is there already"), format!("it stands in line {line}"));
        return;
    }
    seen.clusters.insert(name.clone(), at.clone());
    match outcome.value.filter(|_| outcome.good) {
        Some(cluster) => parsed.fragment.clusters.push(ClusterSpec { name: name.into(), origin: at, ..cluster }.into()),
        None => parsed.refused.clusters.push(name),
    }
}

/// Whether a text looks like one document of routes: for `check`, which is given any file.
pub fn looks_like_routes(key: &str) -> bool {
    path::is_line(key) || ["hosts", "host", "wildcard", "routes", "clusters", "tls"].contains(&key)
}
