//! Is a compile so short that the control thread does it itself?
//!
//! Signals and health checks wait for what that thread does, and 6 000 expressions took 2 s. But a compile on another thread is
//! handed over twice, and each time a thread waits for a CPU: on a busy machine that took longer than the compile of one route by far.
//! So what is compiled is weighed first: by what is different, never by what there is.

use super::Snapshot;
use super::compile::same_but_endpoints;
use crate::model::{Action, Check, ClusterSpec, Model, PathMatch, PathRewrite, Policy, RouteSpec, StringMatch, Wanted};
use std::sync::Arc;

/// What is compiled by the control thread at the most. With four fifths of it, which is twenty new routes with clusters of their own
/// beside 5 000 others, a compile without any optimization took half a millisecond.
const MOST: usize = 100;
/// Bytes of a text that are one such thing.
const TEXT: usize = 1024;

/// Whether compiling this model takes a fraction of a millisecond.
pub(super) fn is_small(model: &Model, previous: &Snapshot) -> bool {
    let (old, new) = (&previous.wanted, &model.wanted);
    // Each of these may touch everything, and is rare.
    old.listeners == new.listeners
        && old.tls == new.tls
        && old.certificates == new.certificates
        && weight(new, previous).is_some_and(|weight| weight <= MOST)
}

/// Of everything that is different; `None`: there is no telling.
fn weight(new: &Wanted, previous: &Snapshot) -> Option<usize> {
    let old = &previous.wanted;
    let (clusters, routes) = (old.clusters.diff(&new.clusters), old.routes.diff(&new.routes));
    let troubles = &previous.troubles;
    let troubled = troubles.routes.keys().filter_map(|name| new.routes.get(&**name));
    let told = previous.listeners.iter().map(|l| l.table.shadowed().len() + l.tls_problems.len()).sum::<usize>();
    let weights = std::iter::once(Some(clusters.len() + routes.len() + troubles.clusters.len() + told))
        .chain(clusters.iter().map(|(old, new)| of_cluster(*old, *new)))
        .chain(routes.iter().filter_map(|(_, new)| *new).chain(troubled).map(|spec| of_route(spec)))
        .chain(routes.iter().flat_map(|(old, new)| [*old, *new]).flatten().map(|spec| beside(spec, previous)));
    bounded(weights)
}

/// The sum; it is not summed up beyond what is too much.
fn bounded(weights: impl Iterator<Item = Option<usize>>) -> Option<usize> {
    let mut sum = 0;
    for weight in weights {
        sum += weight?;
        if sum > MOST {
            return None;
        }
    }
    Some(sum)
}

/// All routes to a cluster that is another now, or gone, are compiled anew; TLS reads certificates of authorities.
fn of_cluster(old: Option<&Arc<ClusterSpec>>, new: Option<&Arc<ClusterSpec>>) -> Option<usize> {
    match (old, new) {
        (None, Some(new)) => new.tls.is_none().then_some(new.endpoints.len()),
        (Some(old), Some(new)) if same_but_endpoints(old, new) => Some(new.endpoints.len()),
        _ => None,
    }
}

/// A route itself. One with an expression has no bound: `\w{900}` takes long.
fn of_route(spec: &RouteSpec) -> Option<usize> {
    let conditions = spec.matches.headers.iter().map(|(_, value)| value);
    let conditions = conditions.chain(spec.matches.query.iter().map(|(_, value)| value));
    if matches!(spec.matches.path, PathMatch::Regex(_))
        || conditions.clone().any(|v| matches!(v, StringMatch::Regex(_)))
    {
        return None;
    }
    let own = spec.hosts.len() + conditions.count() + spec.matches.sources.len() + spec.matches.methods.len();
    bounded(std::iter::once(Some(own)).chain([of_action(&spec.action)]).chain(spec.policies.iter().map(of_policy)))
}

fn of_action(action: &Action) -> Option<usize> {
    match action {
        Action::Forward(clusters) => Some(clusters.len()),
        Action::Redirect(redirect) => redirect.path.as_ref().map_or(Some(1), of_rewrite),
        Action::Respond(respond) => Some(respond.headers.len() + respond.body.len() / TEXT),
    }
}

fn of_rewrite(path: &PathRewrite) -> Option<usize> {
    match path {
        PathRewrite::Full(_) | PathRewrite::Prefix(_) => Some(1),
        PathRewrite::Regex { .. } => None,
    }
}

fn of_policy(policy: &Policy) -> Option<usize> {
    match policy {
        Policy::Access(access) => Some(access.allow.len() + access.deny.len()),
        Policy::BodyLimit(_) => Some(1),
        Policy::HeaderCheck(checks) => bounded(checks.checks.iter().map(|check| match &check.check {
            Check::RequiredPattern(_) | Check::Pattern(_) => None,
            Check::OneOf(values) => Some(values.len()),
            Check::Required | Check::Forbidden | Check::MaxLength(_) => Some(1),
        })),
        Policy::RequestHeaders(edit) | Policy::ResponseHeaders(edit) => {
            Some(edit.set.len() + edit.add.len() + edit.remove.len())
        }
        Policy::Rewrite(rewrite) => rewrite.path.as_ref().map_or(Some(1), of_rewrite),
    }
}

/// Routes of the same hosts, which are put in order anew in each table.
fn beside(spec: &RouteSpec, previous: &Snapshot) -> Option<usize> {
    bounded(previous.listeners.iter().map(|listener| listener.table.beside(spec, MOST)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        AccessPolicy, Authorities, FieldCheck, FieldName, Fragment, HeaderCheckPolicy, HostPattern, RedirectSpec,
        RespondSpec, RewritePolicy, UpstreamTlsSpec,
    };
    use crate::snapshot::compile::tests::{compile, listener, model, to};
    use crate::telemetry::Registry;

    /// Whether it is small to come from one to the other.
    fn small(from: &Fragment, to: &Fragment) -> bool {
        let (serving, _) = compile(from, &Snapshot::default(), &Registry::new(1, 10_000));
        is_small(&to.clone().into(), &serving)
    }

    fn routes(count: usize, host: impl Fn(usize) -> String) -> Fragment {
        let route = |n| {
            let mut route = to(&format!("r{n}"), &format!("/{n}/"), "c");
            route.hosts = vec![HostPattern::Exact(host(n).into())];
            route
        };
        model((0..count).map(route).collect(), &["c"])
    }

    /// Another version of this route, or one that is new.
    fn and(mut fragment: Fragment, route: RouteSpec) -> Fragment {
        fragment.routes.retain(|other| other.name != route.name);
        fragment.routes.push(route.into());
        fragment
    }

    fn with(change: impl FnOnce(&mut RouteSpec)) -> Fragment {
        let mut route = to("r", "/", "c");
        change(&mut route);
        model(vec![route], &["c"])
    }

    #[test]
    fn one_of_thousands_is_small_and_thousands_are_not() {
        let hosts = |n| format!("h{n}.test");
        let all = routes(5_000, hosts);
        assert!(small(&all, &all));
        assert!(small(&all, &and(all.clone(), to("r7", "/other", "c"))));
        let mut fewer = all.clone();
        fewer.routes.truncate(4_990);
        assert!(small(&all, &fewer) && small(&fewer, &all));
        let mut more = all.clone();
        more.clusters.push(ClusterSpec::new("d", more.clusters[0].origin.clone(), vec![]).into());
        assert!(small(&all, &and(more, to("new", "/", "d"))));
        assert!(!small(&Fragment::default(), &all) && !small(&all, &routes(5_000, |n| format!("i{n}.test"))));
        assert!(!small(&all, &model(Vec::new(), &["c"])));
    }

    #[test]
    fn what_has_no_bound_is_not_small() {
        let name = || FieldName::parse("x").unwrap();
        let expression = || String::from(r"\w{900}");
        let rewrite = || PathRewrite::Regex { pattern: expression(), replace: String::new() };
        let checks = vec![FieldCheck { name: name(), check: Check::Pattern(expression()) }];
        let check = HeaderCheckPolicy { checks, status: 403, audit: false };
        let redirect = RedirectSpec { scheme: None, host: None, port: None, path: Some(rewrite()), status: 302 };
        let body = RespondSpec { status: 200, headers: Vec::new(), body: "x".repeat(1 << 20) };
        let many = AccessPolicy { allow: vec!["10.0.0.0/8".parse().unwrap(); 1_000], deny: Vec::new() };
        let before = with(|_| {});
        let other = [
            with(|r| r.matches.path = PathMatch::Regex(expression())),
            with(|r| r.matches.headers = vec![(name(), StringMatch::Regex(expression()))]),
            with(|r| r.matches.query = vec![("q".into(), StringMatch::Regex(expression()))]),
            with(|r| r.policies = vec![Policy::HeaderCheck(check)]),
            with(|r| r.policies = vec![Policy::Rewrite(RewritePolicy { path: Some(rewrite()), host: None })]),
            with(|r| r.action = Action::Redirect(redirect.into())),
            with(|r| r.action = Action::Respond(body.into())),
            with(|r| r.policies = vec![Policy::Access(many)]),
            with(|r| r.hosts = (0..1_000).map(|n| HostPattern::Exact(format!("h{n}").into())).collect()),
        ];
        assert!(small(&before, &with(|r| r.policies = vec![Policy::BodyLimit(1)])));
        other.iter().for_each(|other| assert!(!small(&before, other), "{:?}", other.routes));
    }

    #[test]
    fn what_concerns_everything_is_not_small() {
        let before = with(|_| {});
        let mut others = [before.clone(), before.clone(), before.clone(), before.clone()];
        others[0].listeners.push(listener("https"));
        others[1].clusters.clear();
        Arc::make_mut(&mut others[2].clusters[0]).max_idle = 1;
        let tls =
            UpstreamTlsSpec { ca: Authorities::Named("ca".into()), server_name: "d".into(), client_certificate: None };
        let new = ClusterSpec::new("d", before.clusters[0].origin.clone(), Vec::new());
        others[3].clusters.push(ClusterSpec { tls: Some(tls.into()), ..new }.into());
        others.iter().for_each(|other| assert!(!small(&before, other), "{other:?}"));
    }

    #[test]
    fn a_route_is_not_small_where_many_have_its_host_or_are_wrong_or_hidden() {
        let together = |_| String::from("a.test");
        let few = routes(9, together);
        assert!(small(&few, &and(few.clone(), to("new", "/new", "c"))));
        let many = routes(500, together);
        assert!(!small(&many, &and(many.clone(), to("new", "/new", "c"))));
        let wrong = model((0..500).map(|n| to(&format!("w{n}"), &format!("/{n}"), "none")).collect(), &["c"]);
        assert!(!small(&wrong, &and(wrong.clone(), to("new", "/new", "c"))));
        let hidden = model((0..500).map(|n| to(&format!("r{n}"), "/", "c")).collect(), &["c"]);
        let mut elsewhere = to("new", "/new", "c");
        elsewhere.hosts = vec![HostPattern::Any];
        assert!(!small(&hidden, &and(hidden.clone(), elsewhere)));
    }
}
