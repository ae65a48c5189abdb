//! Which policies act on a request and its response, and in which order?
//!
//! The stages are fixed: access, header check, body limit (these three may refuse), rewrite, request header edits; response
//! header edits on the way back. Within a stage policies keep the order in which they were given: the listener's chain runs
//! first, then the host's policies, then the route's. No order of definition can therefore put an edit before a check.

pub mod access;
pub mod body_limit;
pub mod header_check;
pub mod header_edit;
pub mod rewrite;

use crate::message::{RequestContext, RequestHead, ResponseHead};
use crate::model::{Policy, ValueError};
use http::StatusCode;
use std::sync::Arc;

use access::Access;
use body_limit::BodyLimit;
use header_check::HeaderCheck;
use header_edit::HeaderEdits;
use rewrite::Rewrite;

/// One compiled policy. The order of the variants is the order of the stages.
#[derive(Clone, Debug)]
pub enum Filter {
    /// Stage 1: client addresses.
    Access(Access),
    /// Stage 2: what headers must look like.
    HeaderCheck(HeaderCheck),
    /// Stage 3: largest request body.
    BodyLimit(BodyLimit),
    /// Stage 4: another path or host.
    Rewrite(Rewrite),
    /// Stage 5: edits of the request.
    RequestHeaders(HeaderEdits),
    /// Stage 6: edits of the response.
    ResponseHeaders(HeaderEdits),
}

impl Filter {
    fn compile(policy: &Policy) -> Result<Self, Vec<ValueError>> {
        let one = |e: ValueError| vec![e];
        Ok(match policy {
            Policy::Access(spec) => Self::Access(Access::compile(spec)),
            Policy::HeaderCheck(spec) => Self::HeaderCheck(HeaderCheck::compile(spec)?),
            Policy::BodyLimit(bytes) => Self::BodyLimit(BodyLimit::new(*bytes)),
            Policy::Rewrite(spec) => Self::Rewrite(Rewrite::compile(spec).map_err(one)?),
            Policy::RequestHeaders(spec) => Self::RequestHeaders(HeaderEdits::compile(spec)?),
            Policy::ResponseHeaders(spec) => Self::ResponseHeaders(HeaderEdits::compile(spec)?),
        })
    }

    fn stage(&self) -> u8 {
        match self {
            Self::Access(_) => 1,
            Self::HeaderCheck(_) => 2,
            Self::BodyLimit(_) => 3,
            Self::Rewrite(_) => 4,
            Self::RequestHeaders(_) => 5,
            Self::ResponseHeaders(_) => 6,
        }
    }
}

/// Whether a policy keeps requests out: where one of these cannot be compiled, its route fails closed instead of serving its
/// last good version, which may be one without the policy.
pub fn is_guard(policy: &Policy) -> bool {
    match policy {
        Policy::Access(_) | Policy::HeaderCheck(_) | Policy::BodyLimit(_) => true,
        Policy::RequestHeaders(_) | Policy::ResponseHeaders(_) | Policy::Rewrite(_) => false,
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status to answer.
    pub status: StatusCode,
    /// Reason token for logs and metrics: `access`, `header_check`, `body_limit`, `rewrite`, `closed`.
    pub reason: &'static str,
    /// What was wrong, for the operator and never for the client; written when the policy was compiled.
    pub detail: Arc<str>,
}

/// What one filter says about a request, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    /// Which filter: `access`, `header_check`, `body_limit`, `rewrite`, `request_headers`, `response_headers`.
    pub filter: &'static str,
    /// Whether the request goes on.
    pub passed: bool,
    /// What it saw or did.
    pub detail: String,
}

impl Verdict {
    pub(crate) fn pass(filter: &'static str, detail: impl Into<String>) -> Self {
        Self { filter, passed: true, detail: detail.into() }
    }

    pub(crate) fn fail(filter: &'static str, detail: impl Into<String>) -> Self {
        Self { filter, passed: false, detail: detail.into() }
    }
}

/// The compiled policies of a listener or of a route, sorted by stage.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    filters: Box<[Filter]>,
    body_limit: Option<u64>,
    closed: Option<Box<Refusal>>,
}

impl Chain {
    /// Compiles every policy, or says everything that is wrong with them: a chain never leaves a policy out.
    pub fn compile(policies: &[&Policy]) -> Result<Self, Vec<ValueError>> {
        let mut filters = Vec::with_capacity(policies.len());
        let mut wrong = Vec::new();
        for policy in policies {
            match Filter::compile(policy) {
                Ok(filter) => filters.push(filter),
                Err(errors) => wrong.extend(errors),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        filters.sort_by_key(Filter::stage);
        let limit = |filter: &Filter| if let Filter::BodyLimit(limit) = filter { Some(limit.bytes()) } else { None };
        let body_limit = filters.iter().filter_map(limit).min();
        Ok(Self { filters: filters.into(), body_limit, closed: None })
    }

    /// A chain that refuses every request with 500: stands in for policies that could not be compiled.
    pub fn closed(why: &str) -> Self {
        let refusal = Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, reason: "closed", detail: why.into() };
        Self { closed: Some(Box::new(refusal)), ..Self::default() }
    }

    /// Whether it refuses everything because its policies could not be compiled.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Whether nothing would happen.
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty() && self.closed.is_none()
    }

    /// Largest request body in bytes; the smallest limit holds. The bytes that really come are the exchange's to count.
    pub fn body_limit(&self) -> Option<u64> {
        self.body_limit
    }

    /// Runs all request stages: [`Self::check`], then [`Self::edit`]. `prefix` is how many bytes of the path the route's
    /// prefix matched.
    pub fn on_request(&self, head: &mut RequestHead, ctx: &mut RequestContext, prefix: usize) -> Result<(), Refusal> {
        self.check(head, ctx)?;
        self.edit(head, prefix)
    }

    /// Runs the stages that may refuse and change nothing.
    pub fn check(&self, head: &RequestHead, ctx: &mut RequestContext) -> Result<(), Refusal> {
        if let Some(refusal) = &self.closed {
            return Err(Refusal::clone(refusal));
        }
        for filter in &self.filters {
            match filter {
                Filter::Access(access) => access.check(ctx.client)?,
                Filter::HeaderCheck(check) => check.check(head, ctx)?,
                Filter::BodyLimit(limit) => limit.check(head)?,
                Filter::Rewrite(_) | Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) => break,
            }
        }
        Ok(())
    }

    /// Runs the stages that change the request. Only a rewrite by expression can refuse: its result must be a path.
    pub fn edit(&self, head: &mut RequestHead, prefix: usize) -> Result<(), Refusal> {
        for filter in &self.filters {
            match filter {
                Filter::Rewrite(rewrite) => rewrite.apply(head, prefix)?,
                Filter::RequestHeaders(edits) => edits.apply(&mut head.fields),
                Filter::Access(_) | Filter::HeaderCheck(_) | Filter::BodyLimit(_) | Filter::ResponseHeaders(_) => {}
            }
        }
        Ok(())
    }

    /// Edits the response, the last policy first.
    pub fn on_response(&self, head: &mut ResponseHead) {
        for filter in self.filters.iter().rev() {
            let Filter::ResponseHeaders(edits) = filter else { return };
            edits.apply(&mut head.fields);
        }
    }

    /// What every filter says about a request, in the order of the stages and past the first refusal.
    pub fn explain(&self, head: &RequestHead, ctx: &RequestContext) -> Vec<Verdict> {
        if let Some(refusal) = &self.closed {
            return vec![Verdict::fail("closed", refusal.detail.to_string())];
        }
        let verdict = |filter: &Filter| match filter {
            Filter::Access(access) => access.explain(ctx.client),
            Filter::HeaderCheck(check) => check.explain(head),
            Filter::BodyLimit(limit) => limit.explain(head),
            Filter::Rewrite(rewrite) => rewrite.explain(),
            Filter::RequestHeaders(edits) => edits.explain("request_headers"),
            Filter::ResponseHeaders(edits) => edits.explain("response_headers"),
        };
        self.filters.iter().map(verdict).collect()
    }
}

/// An expression that must match a whole text, wherever its author put anchors. It is compiled alone first: `a)|(b` is no
/// expression, but would become one that matches a part when brackets are put around it.
pub(crate) fn whole(pattern: &str) -> Result<regex::bytes::Regex, ValueError> {
    let compile = |text: &str| regex::bytes::Regex::new(text).map_err(|e| bad_expression(pattern, &e));
    compile(pattern)?;
    compile(&format!("^(?:{pattern})$"))
}

/// What to say about an expression that the regex engine refuses.
pub(crate) fn bad_expression(pattern: &str, error: &regex::Error) -> ValueError {
    let hint = match error {
        regex::Error::CompiledTooBig(_) => "make it smaller: repetitions of large classes grow fast".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("{last} (syntax of the Rust regex crate: no look-around and no back-references)")
        }
    };
    ValueError::new(format!("{pattern:?} is not a regular expression that can be used"), hint)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::message::Scheme;
    use crate::model::{AccessPolicy, Check, FieldCheck, FieldName, HeaderCheckPolicy, HeaderEdit};
    use crate::model::{PathRewrite, RewritePolicy};
    use http::Method;

    pub(crate) fn context() -> RequestContext {
        let peer = "192.0.2.1:1000".parse().unwrap();
        let local = "192.0.2.2:80".parse().unwrap();
        RequestContext::new(tokio::time::Instant::now(), peer, local, Scheme::Http, None)
    }

    fn field(name: &str) -> FieldName {
        FieldName::parse(name).unwrap()
    }

    fn required(name: &str, status: u16) -> Policy {
        let checks = vec![FieldCheck { name: field(name), check: Check::Required }];
        Policy::HeaderCheck(HeaderCheckPolicy { checks, status, audit: false })
    }

    fn set(name: &str, value: &str) -> HeaderEdit {
        HeaderEdit { set: vec![(field(name), value.into())], ..HeaderEdit::default() }
    }

    #[test]
    fn stages_run_in_their_order_whatever_the_order_of_definition() {
        let edit = Policy::RequestHeaders(set("x-key", "forged"));
        let deny = Policy::Access(AccessPolicy { deny: vec!["192.0.2.0/24".parse().unwrap()], ..Default::default() });
        let check = required("x-key", 401);
        for policies in [[&edit, &check], [&check, &edit]] {
            let chain = Chain::compile(&policies).unwrap();
            let mut head = RequestHead::sample(Method::GET, "a.test", "/");
            let refusal = chain.on_request(&mut head, &mut context(), 0).unwrap_err();
            assert_eq!(refusal.status.as_u16(), 401, "the edit cannot satisfy the check");
        }
        let chain = Chain::compile(&[&check, &deny]).unwrap();
        let mut head = RequestHead::sample(Method::GET, "a.test", "/");
        assert_eq!(chain.on_request(&mut head, &mut context(), 0).unwrap_err().reason, "access");
    }

    #[test]
    fn the_smallest_body_limit_holds() {
        let (large, small) = (Policy::BodyLimit(100), Policy::BodyLimit(10));
        assert_eq!(Chain::compile(&[&large, &small]).unwrap().body_limit(), Some(10));
        assert_eq!(Chain::default().body_limit(), None);
        assert!(Chain::default().is_empty());
    }

    #[test]
    fn a_chain_with_one_wrong_policy_is_no_chain_and_names_every_error() {
        let pattern = |p: &str| FieldCheck { name: field("x"), check: Check::Pattern(p.into()) };
        let wrong = Policy::HeaderCheck(HeaderCheckPolicy {
            checks: vec![pattern("("), pattern("ok"), pattern("[")],
            status: 403,
            audit: false,
        });
        let framing = Policy::RequestHeaders(set("content-length", "1"));
        let errors = Chain::compile(&[&wrong, &framing]).unwrap_err();
        assert_eq!(errors.len(), 3);
    }

    #[test]
    fn a_closed_chain_refuses_everything() {
        let chain = Chain::closed("header check could not be compiled");
        assert!(!chain.is_empty());
        let mut head = RequestHead::sample(Method::GET, "a.test", "/");
        let refusal = chain.on_request(&mut head, &mut context(), 0).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.reason), (500, "closed"));
    }

    #[test]
    fn response_edits_of_the_last_policy_run_first() {
        let host = Policy::ResponseHeaders(set("x-who", "host"));
        let route = Policy::ResponseHeaders(set("x-who", "route"));
        let chain = Chain::compile(&[&host, &route]).unwrap();
        let mut head = ResponseHead::default();
        chain.on_response(&mut head);
        assert_eq!(head.fields.find(&crate::message::Name::new("x-who")), Some(&b"host"[..]));
    }

    #[test]
    fn explain_goes_past_the_first_refusal() {
        let rewrite = Policy::Rewrite(RewritePolicy { path: Some(PathRewrite::Full("/n".into())), host: None });
        let chain = Chain::compile(&[&required("x-a", 403), &required("x-b", 403), &rewrite]).unwrap();
        let head = RequestHead::sample(Method::GET, "a.test", "/");
        let verdicts = chain.explain(&head, &context());
        assert_eq!(verdicts.iter().map(|v| v.passed).collect::<Vec<_>>(), [false, false, true]);
    }
}
