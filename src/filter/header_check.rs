//! Do the request's headers look as they must?

use super::{Refusal, Verdict, whole};
use crate::message::{Audit, Name, RequestContext, RequestHead};
use crate::model::{Check, FieldCheck, HeaderCheckPolicy, ValueError};
use http::StatusCode;
use regex::bytes::Regex;
use std::sync::Arc;

/// Compiled checks; the first that fails answers.
#[derive(Clone, Debug)]
pub struct HeaderCheck {
    checks: Box<[Compiled]>,
    status: StatusCode,
    audit: bool,
}

#[derive(Clone, Debug)]
struct Compiled {
    name: Name,
    rule: Rule,
    detail: Arc<str>,
}

/// Expressions see raw bytes: a value that is not UTF-8 is matched as it is and never skipped.
#[derive(Clone, Debug)]
enum Rule {
    Required,
    Forbidden,
    Pattern { expression: Regex, required: bool },
    MaxLength(usize),
    OneOf(Box<[Box<[u8]>]>),
}

impl HeaderCheck {
    pub(super) fn compile(spec: &HeaderCheckPolicy) -> Result<Self, Vec<ValueError>> {
        let mut checks = Vec::with_capacity(spec.checks.len());
        let mut wrong = Vec::new();
        for check in &spec.checks {
            match Compiled::new(check) {
                Ok(compiled) => checks.push(compiled),
                Err(error) => wrong.push(error),
            }
        }
        if !(400..=499).contains(&spec.status) {
            let what = format!("{} is not a status for a refused header check", spec.status);
            wrong.push(ValueError::new(what, "use 400 to 499, such as 403"));
        }
        match StatusCode::from_u16(spec.status) {
            Ok(status) if wrong.is_empty() => Ok(Self { checks: checks.into(), status, audit: spec.audit }),
            _ => Err(wrong),
        }
    }

    pub(super) fn check(&self, head: &RequestHead, ctx: &mut RequestContext) -> Result<(), Refusal> {
        let Some(failed) = self.checks.iter().find(|c| !c.holds(head)) else { return Ok(()) };
        if self.audit {
            let audit = || Audit { filter: "header_check", detail: Arc::clone(&failed.detail) };
            ctx.audited.get_or_insert_with(audit);
            return Ok(());
        }
        Err(Refusal { status: self.status, reason: "header_check", detail: Arc::clone(&failed.detail) })
    }

    pub(super) fn explain(&self, head: &RequestHead) -> Verdict {
        let failed: Vec<&str> = self.checks.iter().filter(|c| !c.holds(head)).map(|c| &*c.detail).collect();
        if failed.is_empty() {
            return Verdict::pass("header_check", format!("{} checks hold", self.checks.len()));
        }
        let failed = failed.join("; ");
        if self.audit {
            return Verdict::pass(
                "header_check",
                format!("audit only, would answer {}: {failed}", self.status.as_u16()),
            );
        }
        Verdict::fail("header_check", format!("answers {}: {failed}", self.status.as_u16()))
    }
}

impl Compiled {
    fn new(spec: &FieldCheck) -> Result<Self, ValueError> {
        let name = &spec.name;
        let (rule, detail) = match &spec.check {
            Check::Required => (Rule::Required, format!("header {name} is missing")),
            Check::Forbidden => (Rule::Forbidden, format!("header {name} is forbidden")),
            Check::RequiredPattern(p) => (
                Rule::Pattern { expression: whole(p)?, required: true },
                format!("header {name} is missing or does not match {p}"),
            ),
            Check::Pattern(p) => {
                (Rule::Pattern { expression: whole(p)?, required: false }, format!("header {name} does not match {p}"))
            }
            Check::MaxLength(max) => (Rule::MaxLength(*max), format!("header {name} is longer than {max} bytes")),
            Check::OneOf(values) => {
                let detail = format!("header {name} is none of {}", values.join(", "));
                (Rule::OneOf(values.iter().map(|v| v.as_bytes().into()).collect()), detail)
            }
        };
        Ok(Self { name: Name::new(name.as_str()), rule, detail: detail.into() })
    }

    /// Every value is looked at: a second field of the same name must not carry what the first may not.
    fn holds(&self, head: &RequestHead) -> bool {
        let mut values = head.fields.find_all(&self.name);
        match &self.rule {
            Rule::Required => values.next().is_some(),
            Rule::Forbidden => values.next().is_none(),
            Rule::Pattern { expression, required } => {
                let mut seen = !required;
                values.all(|v| {
                    seen = true;
                    expression.is_match(v)
                }) && seen
            }
            Rule::MaxLength(max) => values.all(|v| v.len() <= *max),
            Rule::OneOf(allowed) => values.all(|v| allowed.iter().any(|a| &**a == v)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::context;
    use super::*;
    use crate::model::FieldName;
    use http::Method;

    fn policy(check: Check) -> HeaderCheckPolicy {
        let name = FieldName::parse("X-Key").unwrap();
        HeaderCheckPolicy { checks: vec![FieldCheck { name, check }], status: 403, audit: false }
    }

    fn holds(check: Check, values: &[&[u8]]) -> bool {
        let mut head = RequestHead::sample(Method::GET, "a.test", "/");
        for value in values {
            head.fields.push(b"x-KEY", value);
        }
        HeaderCheck::compile(&policy(check)).unwrap().check(&head, &mut context()).is_ok()
    }

    #[test]
    fn required_and_forbidden_look_at_presence_alone() {
        assert!(holds(Check::Required, &[b""]) && !holds(Check::Required, &[]));
        assert!(holds(Check::Forbidden, &[]) && !holds(Check::Forbidden, &[b""]));
    }

    #[test]
    fn a_pattern_matches_the_whole_of_every_value() {
        let hex = || Check::RequiredPattern("[0-9a-f]{2}|zz".into());
        assert!(holds(hex(), &[b"0f"]) && holds(hex(), &[b"zz", b"aa"]));
        assert!(!holds(hex(), &[]) && !holds(hex(), &[b"0f", b"no"]));
        for wrong in [&b"0f0"[..], b"x0f", b"zzz", b"0f\n", b"\xff"] {
            assert!(!holds(hex(), &[wrong]), "{wrong:?}");
        }
    }

    #[test]
    fn an_optional_pattern_holds_where_the_header_is_missing() {
        let digits = || Check::Pattern("[0-9]+".into());
        assert!(holds(digits(), &[]) && holds(digits(), &[b"1"]) && !holds(digits(), &[b"1", b"a"]));
    }

    #[test]
    fn length_and_set_are_checked_for_every_value() {
        assert!(holds(Check::MaxLength(2), &[b"ab", b""]) && !holds(Check::MaxLength(2), &[b"a", b"abc"]));
        let set = || Check::OneOf(vec!["a".into(), "b".into()]);
        assert!(holds(set(), &[]) && holds(set(), &[b"b"]) && !holds(set(), &[b"A"]) && !holds(set(), &[b"a", b"c"]));
    }

    #[test]
    fn audit_lets_pass_and_leaves_a_mark() {
        let audit = HeaderCheckPolicy { audit: true, ..policy(Check::Required) };
        let check = HeaderCheck::compile(&audit).unwrap();
        let head = RequestHead::sample(Method::GET, "a.test", "/");
        let mut ctx = context();
        assert!(check.check(&head, &mut ctx).is_ok());
        let first = ctx.audited.clone().unwrap();
        assert_eq!((first.filter, &*first.detail), ("header_check", "header x-key is missing"));
        let other = HeaderCheckPolicy { audit: true, ..policy(Check::RequiredPattern("a".into())) };
        HeaderCheck::compile(&other).unwrap().check(&head, &mut ctx).unwrap();
        assert_eq!(ctx.audited, Some(first), "the first one is told, as it is of those that refuse");
        assert!(check.explain(&head).passed);
    }

    #[test]
    fn the_refusal_has_the_configured_status_and_names_the_header() {
        let spec = HeaderCheckPolicy { status: 401, ..policy(Check::Required) };
        let head = RequestHead::sample(Method::GET, "a.test", "/");
        let refusal = HeaderCheck::compile(&spec).unwrap().check(&head, &mut context()).unwrap_err();
        assert_eq!(refusal.status.as_u16(), 401);
        assert!(refusal.detail.contains("x-key"));
        assert!(HeaderCheck::compile(&HeaderCheckPolicy { status: 200, ..spec }).is_err());
    }

    #[test]
    fn an_expression_that_cannot_be_compiled_is_an_error_with_a_hint() {
        let errors = HeaderCheck::compile(&policy(Check::Pattern("(?=a)".into()))).unwrap_err();
        assert!(errors[0].hint.contains("look-around"), "{errors:?}");
        assert!(HeaderCheck::compile(&policy(Check::Pattern("a)|(b".into()))).is_err());
    }
}
