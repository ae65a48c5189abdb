//! What would become of a request?
//!
//! Runs the same code as a request does, on one that nobody sent: the listener's filters, the route table, the route's filters.
//! Past a refusal it goes on, so that one answer tells everything.

mod text;

use super::{ListenerSnapshot, Snapshot};
use crate::filter::Verdict;
use crate::message::normalize::{Refused, drop_odd_names, normalize};
use crate::message::{RequestContext, RequestHead, Scheme, forwarded};
use crate::model::{self, FieldName, ListenerProtocol, OddNames, ValueError};
use crate::route::{self, Action, Route, https_location};
use crate::upstream::{ClusterView, EndpointView};
use http::Method;
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::time::Instant;

/// A request that nobody sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainRequest {
    /// Method.
    pub method: Method,
    /// Scheme of the URL: decides between listeners.
    pub scheme: Scheme,
    /// Host and port as in the URL.
    pub authority: String,
    /// Path and query as in the URL.
    pub target: String,
    /// Header fields beside Host.
    pub fields: Vec<(FieldName, String)>,
    /// Address that it comes from.
    pub client: IpAddr,
    /// The listener that it comes in on, by name; `None`: by scheme and port.
    pub listener: Option<String>,
}

impl ExplainRequest {
    /// Reads a URL (`http://` may be left out), header lines (`name: value`) and the client's address (loopback).
    pub fn parse(method: &str, url: &str, headers: &[&str], client: Option<&str>) -> Result<Self, ValueError> {
        let wrong = |what: String, hint: &str| ValueError::new(what, hint);
        let method = method.parse().map_err(|_| wrong(format!("{method:?} is not a method"), "such as GET or POST"))?;
        let (scheme, rest) = match url.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            None => (Scheme::Http, url),
            Some((other, _)) => return Err(wrong(format!("{other:?} is not a scheme"), "use http or https")),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let slash = if target.starts_with('/') { "" } else { "/" };
        let target = format!("{slash}{}", target.split('#').next().unwrap_or_default());
        let mut fields = Vec::new();
        for line in headers {
            let Some((name, value)) = line.split_once(':') else {
                return Err(wrong(format!("{line:?} is not a header"), "write name: value"));
            };
            fields.push((FieldName::parse(name.trim())?, value.trim().to_owned()));
        }
        let client =
            client.map(|c| c.parse().map_err(|_| wrong(format!("{c:?} is not an address"), "such as 192.0.2.1")));
        let client = client.transpose()?.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Ok(Self { method, scheme, authority: authority.into(), target, fields, client, listener: None })
    }

    fn head(&self) -> RequestHead {
        let mut head = RequestHead { method: self.method.clone(), scheme: self.scheme, ..RequestHead::default() };
        head.raw_target.extend_from_slice(self.target.as_bytes());
        // A Host header among the others stands for the URL's.
        if !self.fields.iter().any(|(name, _)| name.as_str() == "host") {
            head.fields.push(b"host", self.authority.as_bytes());
        }
        for (name, value) in &self.fields {
            head.fields.push(name.as_str().as_bytes(), value.as_bytes());
        }
        head
    }

    fn port(&self) -> u16 {
        let port = self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        port.unwrap_or(self.scheme.default_port())
    }
}

/// What would become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The end of it in one line: `forwarded to shop/web`, `403 by header_check of the route`.
    pub outcome: String,
    /// Generation of the snapshot that was asked.
    pub generation: u64,
    /// The listener, where there is one.
    pub listener: Option<String>,
    /// Why it was this one, or why none.
    pub listener_because: String,
    /// What is wrong with the TLS of this host; `None`: nothing, or no TLS.
    pub tls: Option<String>,
    /// The client's address after the walk over trusted proxies.
    pub client: String,
    /// Verdicts of the listener's filters.
    pub listener_filters: Vec<Verdict>,
    /// How the request went through the route table.
    pub routes: Option<route::Explanation>,
    /// Verdicts of the route's filters.
    pub filters: Vec<Verdict>,
    /// What the route does.
    pub action: Option<ActionView>,
}

/// What a route does with the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "does", rename_all = "snake_case")]
pub enum ActionView {
    /// Sends it to one of these.
    Forward {
        /// Host that the upstream sees.
        host: String,
        /// Path and query that the upstream sees.
        path: String,
        /// By weight.
        clusters: Vec<Share>,
    },
    /// Answers with a redirect.
    Redirect {
        /// Status.
        status: u16,
        /// Where to.
        location: String,
    },
    /// Answers directly.
    Respond {
        /// Status.
        status: u16,
    },
    /// Answers 500.
    Broken {
        /// Because of this.
        reason: String,
    },
}

/// A cluster, its share and its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Name.
    pub cluster: String,
    /// Its weight.
    pub weight: u32,
    /// Sum of the weights.
    pub of: u64,
    /// Its endpoints.
    pub endpoints: Vec<EndpointView>,
}

/// Explains what would become of a request.
pub fn explain(snapshot: &Snapshot, request: &ExplainRequest) -> Explanation {
    let (listener, because) = choose(snapshot, request);
    let mut explanation = Explanation {
        outcome: "refused: no listener".into(),
        generation: snapshot.generation,
        listener: listener.map(|l| l.spec.name.clone()),
        listener_because: because,
        tls: None,
        client: request.client.to_string(),
        listener_filters: Vec::new(),
        routes: None,
        filters: Vec::new(),
        action: None,
    };
    if let Some(listener) = listener {
        explanation.outcome = through(snapshot, listener, request, &mut explanation);
    }
    explanation
}

/// The listener that a request comes in on.
fn choose<'a>(snapshot: &'a Snapshot, request: &ExplainRequest) -> (Option<&'a Arc<ListenerSnapshot>>, String) {
    if let Some(name) = &request.listener {
        let found = snapshot.listener(name);
        return (
            found,
            if found.is_some() { "it was asked for".into() } else { format!("there is no listener {name:?}") },
        );
    }
    let speaks = |listener: &&Arc<ListenerSnapshot>| {
        matches!(listener.spec.protocol, ListenerProtocol::Https(_)) == (request.scheme == Scheme::Https)
    };
    let mut same_scheme = snapshot.listeners.iter().filter(speaks);
    let scheme = request.scheme.as_str();
    let port = request.port();
    if let Some(found) = same_scheme.clone().find(|l| l.spec.address.port() == port) {
        return (Some(found), format!("it speaks {scheme} on port {port}"));
    }
    match same_scheme.next() {
        Some(found) => (Some(found), format!("it is the first that speaks {scheme}; none has port {port}")),
        None => (None, format!("no listener speaks {scheme}")),
    }
}

/// Takes the request through a listener; says the outcome.
fn through(
    snapshot: &Snapshot,
    listener: &ListenerSnapshot,
    request: &ExplainRequest,
    explanation: &mut Explanation,
) -> String {
    let mut head = request.head();
    if listener.spec.headers.odd_names == OddNames::Drop {
        drop_odd_names(&mut head.fields);
    }
    if let Err(refused) = normalize(&mut head, listener.spec.encoded_slash) {
        return format!("{}: {refused}", refused.status().as_u16());
    }
    let mut ctx = context(listener, request);
    forwarded::resolve(&mut head, &mut ctx, &listener.spec);
    explanation.client = ctx.client.to_string();
    if let Some(names) = &listener.tls
        && names.find(Some(&head.host)).is_none()
    {
        explanation.tls = Some(format!("no certificate serves {}: the handshake ends with an alert", head.host));
    }
    if let Some(redirect) = &listener.spec.https_redirect {
        return format!("{} to {}: the listener redirects to https", redirect.status, https_location(&head, redirect));
    }
    explanation.listener_filters = listener.chain.explain(&head, &ctx);
    explanation.routes = Some(listener.table.explain(&head, ctx.client));
    let refused = listener.chain.check(&head, &mut ctx).err();
    let outcome = match listener.table.find(&head, ctx.client) {
        Err(miss) => format!("404: {}", miss.as_str()),
        Ok(found) if listener.table.is_ambiguous(found, &head, ctx.client) => {
            let refused = Refused::PathAmbiguous;
            format!("{}: {refused}", refused.status().as_u16())
        }
        Ok(found) => {
            let (route, prefix) = (Arc::clone(found.route), found.prefix);
            explanation.filters = route.chain.explain(&head, &ctx);
            let refused = route.chain.check(&head, &mut ctx).err();
            let listener_edits = listener.chain.edit(&mut head.clone(), 0).err();
            let action = act(snapshot, listener, &route, &mut head, &ctx, prefix);
            let by = refused.or(listener_edits).or_else(|| action.as_ref().err().cloned());
            let done = action.as_ref().map(summary).unwrap_or_default();
            explanation.action = action.ok();
            by.map_or(done, |r| format!("{} by {} of the route: {}", r.status.as_u16(), r.reason, r.detail))
        }
    };
    match refused {
        Some(r) => format!("{} by {} of the listener: {}", r.status.as_u16(), r.reason, r.detail),
        None if explanation.tls.is_some() => format!("TLS alert; without it: {outcome}"),
        None => outcome,
    }
}

fn context(listener: &ListenerSnapshot, request: &ExplainRequest) -> RequestContext {
    let peer = SocketAddr::new(request.client, 0);
    RequestContext::new(Instant::now(), peer, listener.spec.address, request.scheme, None)
}

fn act(
    snapshot: &Snapshot,
    listener: &ListenerSnapshot,
    route: &Route,
    head: &mut RequestHead,
    ctx: &RequestContext,
    prefix: usize,
) -> Result<ActionView, crate::filter::Refusal> {
    Ok(match (&route.action, &route.spec.action) {
        (Action::Broken { reason }, _) => ActionView::Broken { reason: reason.clone() },
        (Action::Respond(respond), _) => ActionView::Respond { status: respond.status.as_u16() },
        (Action::Redirect(redirect), _) => ActionView::Redirect {
            status: redirect.status.as_u16(),
            location: redirect.location(head, ctx.client_scheme, prefix).unwrap_or_default(),
        },
        (Action::Forward(_), said) => {
            listener.chain.edit(head, 0)?;
            route.chain.edit(head, prefix)?;
            let query = head.query().map(|q| format!("?{q}")).unwrap_or_default();
            let port = head.port.map(|p| format!(":{p}")).unwrap_or_default();
            ActionView::Forward {
                host: format!("{}{port}", head.host),
                path: format!("{}{query}", head.path),
                clusters: shares(snapshot, said),
            }
        }
    })
}

fn shares(snapshot: &Snapshot, action: &model::Action) -> Vec<Share> {
    let model::Action::Forward(weighted) = action else { return Vec::new() };
    let of = weighted.iter().map(|w| u64::from(w.weight)).sum();
    let share = |w: &model::WeightedCluster| {
        let view = snapshot.cluster(&w.cluster).map(|cluster| cluster.describe());
        let endpoints = view.map(|ClusterView { endpoints, .. }| endpoints).unwrap_or_default();
        Share { cluster: w.cluster.to_string(), weight: w.weight, of, endpoints }
    };
    weighted.iter().map(share).collect()
}

fn summary(action: &ActionView) -> String {
    match action {
        ActionView::Forward { clusters, .. } => {
            let names: Vec<&str> = clusters.iter().filter(|s| s.weight > 0).map(|s| s.cluster.as_str()).collect();
            format!("forwarded to {}", names.join(" or "))
        }
        ActionView::Redirect { status, location } => format!("{status} to {location}"),
        ActionView::Respond { status } => format!("{status} by the route itself"),
        ActionView::Broken { reason } => format!("500: {reason}"),
    }
}

#[cfg(test)]
mod tests;
