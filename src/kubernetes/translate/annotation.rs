//! What do annotations ask for: a Service that exposes itself, and an Ingress that expects another controller?
//!
//! `tidegate.io/expose: shop.example.com/api/` makes a route to the Service. Nothing may be claimed so but what the install
//! configuration allows to the Service's namespace.

use super::super::convert::{EXPOSE, OTHERS};
use super::super::objects::{Ingress, Service};
use super::piece::{Piece, origin, route};
use crate::config::kubernetes::ExposeRule;
use crate::model::{HostPattern, PathMatch, Problem, WildcardDepth};
use crate::source::grammar::parse_line;

/// What a Service asks for by its annotation.
pub(super) fn expose(service: &Service, rules: &[ExposeRule]) -> Piece {
    let mut piece = Piece::default();
    let key = &service.meta.key;
    let origin = origin("Service", &service.meta, format!("metadata.annotations[{EXPOSE}]"));
    let cluster = match &service.expose_port {
        Some(port) => format!("{key}:{}", port.trim()),
        None => key.to_string(),
    };
    let text = service.expose.as_deref().unwrap_or_default();
    let mut claims = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|claim| !claim.is_empty()).peekable();
    if claims.peek().is_none() {
        piece.refuse(origin.clone(), "the annotation is empty", "write host/path, such as shop.example.com/");
    }
    for claim in claims {
        let (host, path) = match parse_line(claim) {
            Ok((_, PathMatch::Regex(_))) => {
                let hint = "write host/path; expressions belong into a routes ConfigMap";
                piece.refuse(origin.clone(), format!("{claim:?} is an expression"), hint);
                continue;
            }
            Ok(parts) => parts,
            Err(error) => {
                piece.refuse(origin.clone(), error.what, error.hint);
                continue;
            }
        };
        let allowed = |rule: &ExposeRule| {
            (rule.namespace == "*" || *rule.namespace == *key.namespace) && rule.hosts.iter().any(|h| covers(h, &host))
        };
        if !rules.iter().any(allowed) {
            let what = format!("namespace {} may not claim {host} by annotation", key.namespace);
            let hint = format!(
                "sources.kubernetes.expose of the install configuration allows it: [{{ namespace: {}, hosts: [{host:?}] }}]",
                key.namespace,
                host = host.to_string()
            );
            piece.refuse(origin.clone(), what, hint);
            continue;
        }
        let of = format!("Service {key}");
        piece.fragment.routes.push(route(&of, host, path, cluster.clone(), origin.clone()).into());
    }
    piece
}

/// Whether a rule's host covers every host that a claim stands for.
fn covers(rule: &HostPattern, claim: &HostPattern) -> bool {
    let below = |suffix: &str, name: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    match (rule, claim) {
        (HostPattern::Any, _) => true,
        (HostPattern::Exact(rule), HostPattern::Exact(claim)) => rule == claim,
        (HostPattern::Wildcard(suffix, depth), HostPattern::Exact(claim)) => {
            let label = claim.strip_suffix(&**suffix).and_then(|rest| rest.strip_suffix('.'));
            label.is_some_and(|label| !label.is_empty() && (*depth == WildcardDepth::Many || !label.contains('.')))
        }
        (HostPattern::Wildcard(rule, WildcardDepth::Many), HostPattern::Wildcard(claim, _)) => {
            rule == claim || below(rule, claim)
        }
        (HostPattern::Wildcard(rule, WildcardDepth::One), HostPattern::Wildcard(claim, depth)) => {
            rule == claim && *depth == WildcardDepth::One
        }
        (HostPattern::Exact(_) | HostPattern::Wildcard(..), _) => false,
    }
}

/// Annotations for ingress-nginx, and what there is instead.
const INSTEAD: &[(&str, &str)] = &[
    ("app-root", "a redirect in a routes ConfigMap"),
    ("auth-tls", "client certificates: tls.client_auth in a routes ConfigMap"),
    ("backend-protocol", "appProtocol of the Service's port"),
    ("configuration-snippet", "nothing: there are no snippets"),
    ("server-snippet", "nothing: there are no snippets"),
    ("proxy-body-size", "max_body in a routes ConfigMap"),
    ("proxy-connect-timeout", "clusters.*.connect_timeout in a routes ConfigMap"),
    ("proxy-read-timeout", "idle_timeout or timeout in a routes ConfigMap"),
    ("proxy-send-timeout", "idle_timeout or timeout in a routes ConfigMap"),
    ("rewrite-target", "rewrite in a routes ConfigMap"),
    ("use-regex", "a path ~expression in a routes ConfigMap"),
    ("ssl-redirect", "https_redirect of the listener"),
    ("force-ssl-redirect", "https_redirect of the listener"),
    ("permanent-redirect", "a redirect in a routes ConfigMap"),
    ("temporal-redirect", "a redirect in a routes ConfigMap"),
    ("canary", "weights in a routes ConfigMap"),
    ("affinity", "clusters.*.balance: { hash: { cookie: NAME } } in a routes ConfigMap"),
    ("upstream-hash-by", "clusters.*.balance: { hash: ... } in a routes ConfigMap"),
    ("load-balance", "clusters.*.balance in a routes ConfigMap"),
    ("whitelist-source-range", "access in a routes ConfigMap"),
    ("denylist-source-range", "access in a routes ConfigMap"),
    ("custom-headers", "response_headers in a routes ConfigMap"),
    ("enable-cors", "response_headers in a routes ConfigMap"),
];

/// One warning that lists the annotations for another controller that change nothing here.
pub(super) fn not_done(ingress: &Ingress) -> Option<Problem> {
    let names: Vec<&str> = ingress.annotations.iter().filter_map(|key| key.strip_prefix(OTHERS)).collect();
    if names.is_empty() {
        return None;
    }
    let instead = |name: &&str| {
        let found = INSTEAD.iter().find(|(known, _)| name.starts_with(known));
        found.map(|(_, instead)| format!("{name}: {instead}"))
    };
    let hints: Vec<String> = names.iter().filter_map(instead).collect();
    let what = format!("annotations for ingress-nginx change nothing here: {}", names.join(", "));
    let origin = origin("Ingress", &ingress.meta, "metadata.annotations");
    Some(Problem::warning(
        origin,
        what,
        if hints.is_empty() { String::new() } else { format!("instead of {}", hints.join("; of ")) },
    ))
}
