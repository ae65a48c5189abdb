//! How is written what is done with a request: forward, redirect, respond, and the rewrite before forwarding?

use super::path::canonical;
use crate::config::decode::{Fields, Kind};
use crate::config::kind::{List, Mapped, Scalar, Section, Shapes};
use crate::config::{policy, values};
use crate::model::{
    Action, PathMatch, PathRewrite, RedirectSpec, RespondSpec, RewritePolicy, ValueError, WeightedCluster,
};

/// Status of a redirect: 302, because browsers remember a permanent one for ever.
pub const REDIRECT_STATUS: u16 = 302;
/// Status of a direct response.
pub const RESPOND_STATUS: u16 = 200;
/// Heaviest weight: weights of a route must add up without overflow.
pub const MAX_WEIGHT: u32 = 1_000_000;

/// An action whose path may still depend on how the route matches.
pub(super) enum Written {
    Forward(Vec<WeightedCluster>),
    Redirect { spec: RedirectSpec, path: Option<NewPath> },
    Respond(RespondSpec),
}

/// A rewrite whose path may still depend on how the route matches.
pub(super) struct WrittenRewrite {
    path: Option<NewPath>,
    host: Option<String>,
}

/// Another path: in the short form what it replaces follows from how the route matches.
pub(super) enum NewPath {
    /// The matched prefix of a prefix route, the whole path of others.
    Natural(String),
    Said(PathRewrite),
}

impl NewPath {
    fn resolve(self, path: &PathMatch) -> PathRewrite {
        match (self, path) {
            (Self::Natural(new), PathMatch::Prefix(_)) => PathRewrite::Prefix(new),
            (Self::Natural(new), PathMatch::Exact(_) | PathMatch::Regex(_)) => PathRewrite::Full(new),
            (Self::Said(rewrite), _) => rewrite,
        }
    }
}

impl Written {
    pub(super) fn resolve(self, route: &PathMatch) -> Action {
        match self {
            Self::Forward(clusters) => Action::Forward(clusters),
            Self::Redirect { spec, path } => {
                Action::Redirect(RedirectSpec { path: path.map(|p| p.resolve(route)), ..spec }.into())
            }
            Self::Respond(spec) => Action::Respond(spec.into()),
        }
    }
}

impl WrittenRewrite {
    pub(super) fn resolve(self, route: &PathMatch) -> RewritePolicy {
        RewritePolicy { path: self.path.map(|p| p.resolve(route)), host: self.host }
    }
}

/// Asks for `to`, `redirect` and `respond`, of which there must be exactly one.
pub(super) fn action(f: &mut Fields<'_, '_>) -> Option<Written> {
    let to = "The cluster that requests are forwarded to: a name, or several with weights.";
    let to = f.optional("to", to, clusters()).map(Written::Forward);
    let redirect = f.optional("redirect", "Answer with a redirect.", redirect());
    let respond = f.optional("respond", "Answer directly: a status, or { status, headers, body }.", respond());
    let there: Vec<&str> = ["to", "redirect", "respond"].into_iter().filter(|key| f.has(key)).collect();
    match there.as_slice() {
        [] => f.error("", "nothing is done with a request", "add to: CLUSTER, redirect: {...} or respond: {...}"),
        [_] => {}
        [_, second, ..] => f.error(second, format!("{} exclude each other", there.join(" and ")), "keep one of them"),
    }
    to.or(redirect).or(respond.map(Written::Respond))
}

/// `name`, or a list of `name` and `{ cluster, weight }`.
pub(super) fn clusters() -> impl Kind<Out = Vec<WeightedCluster>> {
    let alone: fn(String) -> WeightedCluster = |cluster| WeightedCluster { cluster: cluster.into(), weight: 1 };
    let weighted = Section {
        name: "weighted_cluster",
        doc: "A cluster and its share of the requests.",
        fields: |f| {
            let cluster = f.required("cluster", "The cluster's name.", cluster_name());
            let weight = values::number("a weight", 0_u32, MAX_WEIGHT);
            let weight = f.or("weight", "Share among the weights of the route; 0 gets nothing.", weight, 1);
            Some(WeightedCluster { cluster: cluster?.into(), weight })
        },
    };
    List(Shapes::new().text(Mapped(cluster_name(), alone)).map(weighted))
}

/// `shop/web`, in Kubernetes `namespace/service[:port]`.
pub(super) fn cluster_name() -> Scalar<String> {
    values::name("the name of a cluster")
}

fn redirect() -> Section<Written> {
    Section {
        name: "redirect",
        doc: "A redirect; what is left out is taken from the request.",
        fields: |f| {
            let schemes = values::choice("a scheme", &[("http", "http"), ("https", "https")]);
            let scheme = f.optional("scheme", "Scheme of the target.", schemes).map(str::to_owned);
            let host = f.optional("host", "Host of the target, without a port.", values::plain_host(false));
            let port = f.optional("port", "Port of the target.", values::number("a port", 1_u16, u16::MAX));
            let path = f.optional("path", NEW_PATH, new_path());
            let status = values::one_of("a redirect status", &[301, 302, 303, 307, 308]);
            let status = f.or("status", "Status of the redirect.", status, REDIRECT_STATUS);
            if !["scheme", "host", "port", "path"].into_iter().any(|key| f.has(key)) {
                f.error("", "the redirect leads to where the request came from", "add scheme, host, port or path");
            }
            Some(Written::Redirect { spec: RedirectSpec { scheme, host, port, path: None, status }, path })
        },
    }
}

const NEW_PATH: &str = "New path; the query is kept. In place of the matched prefix where the route matches a prefix, of the \
                        whole path otherwise; or { full }, { prefix } or { regex, replace }.";

pub(super) fn rewrite() -> Section<WrittenRewrite> {
    Section {
        name: "rewrite",
        doc: "Another path or host for the upstream.",
        fields: |f| {
            let path = f.optional("path", NEW_PATH, new_path());
            let host = f.optional("host", "Another Host for the upstream.", values::plain_host(true));
            if !f.has("path") && !f.has("host") {
                f.error("", "this rewrites nothing", "add path or host, or leave rewrite out");
            }
            Some(WrittenRewrite { path, host })
        },
    }
}

fn new_path() -> impl Kind<Out = NewPath> {
    let long = Section {
        name: "new_path",
        doc: "Another path.",
        fields: |f| {
            let full = f.optional("full", "In place of the whole path.", target_path()).map(PathRewrite::Full);
            let doc = "In place of the prefix that the route matched.";
            let prefix = f.optional("prefix", doc, target_path()).map(PathRewrite::Prefix);
            let pattern =
                f.optional("regex", "An expression; its first match in the path is replaced.", values::regex());
            let doc = "What is put there, with $1 or $name for captures.";
            let replace = f.optional("replace", doc, values::field_value());
            if f.has("regex") != f.has("replace") {
                f.error("", "regex and replace belong together", "write { regex: \"^/v1/(.*)\", replace: /v2/$1 }");
            }
            let regex = pattern.zip(replace).map(|(pattern, replace)| PathRewrite::Regex { pattern, replace });
            let said = ["full", "prefix", "regex"].into_iter().filter(|key| f.has(key)).count();
            if said != 1 {
                f.error("", "there must be exactly one of full, prefix and regex", "");
            }
            full.or(prefix).or(regex).map(NewPath::Said)
        },
    };
    Shapes::new().text(Mapped(target_path(), NewPath::Natural)).map(long)
}

fn target_path() -> Scalar<String> {
    let parse = |text: &str| match canonical(text) {
        Ok(path) => Ok(path),
        Err(error) => Err(ValueError { hint: "write a path, such as /new/".into(), ..error }),
    };
    Scalar { expects: "a path such as /new/".into(), parse: Box::new(parse), ..values::text("") }
}

fn respond() -> impl Kind<Out = RespondSpec> {
    let status = || values::number("a status", 200_u16, 599);
    let alone = |status| RespondSpec { status, headers: Vec::new(), body: String::new() };
    let long = Section {
        name: "respond",
        doc: "A direct response.",
        fields: |f| {
            let status = values::number("a status", 200_u16, 599);
            let status = f.or("status", "Status of the response.", status, RESPOND_STATUS);
            let headers = f.or_default("headers", "Headers of the response.", policy::header_values());
            let doc = "Body of the response; text/plain unless a content-type header says otherwise.";
            let body = f.or_default("body", doc, values::text("a text"));
            policy::refuse_framing(f, headers.iter().map(|(name, _)| name));
            if matches!(status, 204 | 205 | 304) && !body.is_empty() {
                f.error("body", format!("a response of status {status} has no body"), "leave it out");
            }
            Some(RespondSpec { status, headers, body })
        },
    };
    Shapes::new().text(Mapped(status(), alone)).map(long)
}
