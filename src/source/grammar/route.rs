//! How is a route written in its long form, and what does it become together with its document?

use super::action::{self, Written, WrittenRewrite};
use super::document::Settings;
use super::name::route_name;
use super::path::{conditions, methods, path};
use crate::config::decode::Fields;
use crate::config::kind::{List, Scalar, Section, Shapes};
use crate::config::policy::Policies;
use crate::config::values;
use crate::model::{HostPattern, Match, Origin, PathMatch, Policy, RetryOn, RetrySpec, RouteSpec, ValueError};
use smallvec::SmallVec;
use std::time::Duration;

/// Longest silence in either body: what streams should say something once a minute.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// More attempts than this only help an overload along.
pub const MAX_ATTEMPTS: u32 = 10;

/// A route as written, before host and document are known.
pub(super) struct WrittenRoute {
    name: Option<String>,
    path: Option<PathMatch>,
    matches: Match,
    listeners: Option<Vec<String>>,
    policies: Policies,
    rewrite: Option<WrittenRewrite>,
    action: Option<Written>,
    patience: Patience,
}

/// How long a request may take and how often it is tried; what is `None` is said elsewhere.
#[derive(Clone, Default)]
pub(super) struct Patience {
    request: Option<Option<Duration>>,
    each_try: Option<Option<Duration>>,
    idle: Option<Duration>,
    retry: Option<RetrySpec>,
}

impl Patience {
    pub(super) fn decode(f: &mut Fields<'_, '_>) -> Self {
        let doc = "From the request's head to the last byte of the response. Default off: silence is limited by idle_timeout, and streams may last.";
        let request = f.optional("timeout", doc, limit());
        let doc = "From sending one attempt to the head of its response; `off`: only the request's limit. Default off.";
        let each_try = f.optional("try_timeout", doc, limit());
        let doc = "Longest silence in either body. Default 60s.";
        let idle = f.optional("idle_timeout", doc, values::positive_duration());
        let doc =
            "When and how often an attempt is repeated: { attempts, on, backoff }, a number of attempts, or `off`.";
        let retry = f.optional("retry", doc, Shapes::new().text(attempts()).map(retry()));
        Self { request, each_try, idle, retry }
    }
}

/// A route of a `routes` list, with its path.
pub(super) fn route() -> Section<WrittenRoute> {
    Section {
        name: "route",
        doc: "A route: what is matched, which filters act, and what is done: to, redirect or respond.",
        fields: |f| {
            let doc = "The path: /prefix/ (whole segments), =/exact, or ~regex for the whole path. An exact path goes before \
                       a regular expression, this before the longest prefix.";
            let path = f.required("path", doc, path());
            written(f, path)
        },
    }
}

/// A route whose host and path are the key it stands under.
pub(super) fn line() -> Section<WrittenRoute> {
    Section {
        name: "line",
        doc: "A route whose host and path are the key it stands under.",
        fields: |f| written(f, None),
    }
}

impl WrittenRoute {
    /// The short form: a key and the cluster.
    pub(super) fn to(clusters: Vec<crate::model::WeightedCluster>) -> Self {
        Self {
            name: None,
            path: None,
            matches: Match::default(),
            listeners: None,
            policies: Policies::default(),
            rewrite: None,
            action: Some(Written::Forward(clusters)),
            patience: Patience::default(),
        }
    }

    /// What the route is called; `None` when its path could not be read.
    pub(super) fn name(&self, hosts: &[HostPattern], settings: &Settings) -> Option<String> {
        let matches = Match { path: self.path.clone()?, ..self.matches.clone() };
        let listeners = self.listeners.as_deref().unwrap_or(&settings.listeners);
        Some(self.name.clone().unwrap_or_else(|| route_name(hosts, &matches, listeners)))
    }

    pub(super) fn with_path(self, path: PathMatch) -> Self {
        Self { path: Some(path), ..self }
    }

    /// The route together with what its document says for all of its routes.
    pub(super) fn resolve(self, origin: Origin, hosts: Vec<HostPattern>, settings: &Settings) -> Option<RouteSpec> {
        let name = self.name(&hosts, settings)?;
        let path = self.path?;
        let mut policies = settings.policies.list.clone();
        policies.extend(self.policies.list);
        policies.extend(self.rewrite.map(|r| Policy::Rewrite(r.resolve(&path))));
        policies.extend(self.policies.max_body.or(settings.policies.max_body).map(Policy::BodyLimit));
        let (own, all) = (self.patience, &settings.patience);
        Some(RouteSpec {
            name,
            origin,
            listeners: self.listeners.unwrap_or_else(|| settings.listeners.clone()),
            hosts,
            action: self.action?.resolve(&path),
            matches: Match { path, ..self.matches },
            policies,
            request_timeout: own.request.or(all.request).flatten(),
            try_timeout: own.each_try.or(all.each_try).flatten(),
            idle_timeout: own.idle.or(all.idle).unwrap_or(IDLE_TIMEOUT),
            retry: own.retry.or_else(|| all.retry.clone()).unwrap_or_default(),
        })
    }
}

/// Always something, so that the name of a wrong route is known and its last good version can be kept.
fn written(f: &mut Fields<'_, '_>, path: Option<PathMatch>) -> Option<WrittenRoute> {
    let doc = "A name for logs and metrics. Default: host, path and conditions.";
    let name = f.optional("name", doc, values::name("a name"));
    let methods = f.or_default("method", "Any of these methods. Default: every method.", methods());
    let conditions = f.or_default("match", "What must hold beside host, path and method.", conditions());
    let doc = "Listeners that serve it, by name. Default: all.";
    let listeners = f.optional("listeners", doc, List(values::name("the name of a listener")));
    let policies = Policies::decode(f);
    let rewrite = f.optional("rewrite", "Another path or host for the upstream.", action::rewrite());
    let patience = Patience::decode(f);
    let action = action::action(f);
    let forwards = !f.has("redirect") && !f.has("respond");
    for key in ["rewrite", "timeout", "try_timeout", "idle_timeout", "retry"] {
        if !forwards && f.has(key) {
            f.error(key, format!("{key:?} has no effect on a route that forwards nothing"), "leave it out");
        }
    }
    let matches = Match { methods, ..conditions };
    Some(WrittenRoute { name, path, matches, listeners, policies, rewrite, action, patience })
}

/// A duration, or `off`.
fn limit() -> Scalar<Option<Duration>> {
    let duration = values::positive_duration();
    Scalar {
        expects: "a duration such as 10s, or off".into(),
        parse: Box::new(move |t| if t == "off" { Ok(None) } else { (duration.parse)(t).map(Some) }),
        schema: Box::new(
            || serde_json::json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$|^off$", "examples": ["10s", "off"] }),
        ),
        show: Box::new(|limit| limit.map_or_else(|| "off".into(), |d| values::show_duration(d).into())),
    }
}

/// `off`, or a number of attempts.
fn attempts() -> Scalar<RetrySpec> {
    let number = values::number("a number of attempts", 1, MAX_ATTEMPTS);
    Scalar {
        expects: "a number of attempts, or off".into(),
        parse: Box::new(move |t| {
            let attempts = if t == "off" { 1 } else { (number.parse)(t)? };
            Ok(RetrySpec { attempts, ..RetrySpec::default() })
        }),
        schema: Box::new(
            || serde_json::json!({ "anyOf": [{ "enum": ["off"] }, { "type": "integer", "minimum": 1, "maximum": MAX_ATTEMPTS }] }),
        ),
        show: Box::new(|retry| retry.attempts.into()),
    }
}

fn retry() -> Section<RetrySpec> {
    Section {
        name: "retry",
        doc: "When and how often an attempt is repeated, at another endpoint where there is one.",
        fields: |f| {
            let usual = RetrySpec::default();
            let number = values::number("a number of attempts", 1, MAX_ATTEMPTS);
            let attempts = f.or("attempts", "Attempts in all, the first included.", number, usual.attempts);
            let doc = "Failures that are repeated: connect, reset, timeout, a status (429, 500-599). All but connect only for \
                       idempotent methods. Default: connect and reset.";
            let on = f.optional("on", doc, List(failure())).map_or(usual.on, SmallVec::from_vec);
            let doc = "Pause before the third attempt (the second goes out at once), doubled for each further one up to 5s; up to a \
                       half of it is left out by chance.";
            let backoff = f.or("backoff", doc, values::duration(), usual.backoff);
            Some(RetrySpec { attempts, on, backoff })
        },
    }
}

fn failure() -> Scalar<RetryOn> {
    Scalar {
        expects: "a failure: connect, reset, timeout or a status such as 503".into(),
        parse: Box::new(|text| match (text, text.parse::<u16>()) {
            ("connect", _) => Ok(RetryOn::Connect),
            ("reset", _) => Ok(RetryOn::Reset),
            ("timeout", _) => Ok(RetryOn::Timeout),
            (_, Ok(status @ (429 | 500..=599))) => Ok(RetryOn::Status(status)),
            _ => {
                let hint = "write connect, reset, timeout, 429, or a status from 500 to 599";
                Err(ValueError::new(format!("{text:?} is not a failure that can be repeated"), hint))
            }
        }),
        schema: Box::new(|| {
            let status = serde_json::json!({ "type": "integer", "minimum": 429, "maximum": 599 });
            serde_json::json!({ "anyOf": [{ "enum": ["connect", "reset", "timeout"] }, status] })
        }),
        show: Box::new(|_| serde_json::Value::Null),
    }
}
