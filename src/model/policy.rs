//! Which filters can be asked for, and with which settings?

use super::FieldName;

/// One filter's settings. The stages (`filter` room) fix the order: access, header check, body limit, rewrite, header edits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Client addresses.
    Access(AccessPolicy),
    /// Largest request body in bytes; 413 beyond it.
    BodyLimit(u64),
    /// What the request's headers must look like.
    HeaderCheck(HeaderCheckPolicy),
    /// Edits of the request before it is forwarded.
    RequestHeaders(HeaderEdit),
    /// Edits of the response before it is sent.
    ResponseHeaders(HeaderEdit),
    /// Another path or host for the upstream.
    Rewrite(RewritePolicy),
}

/// Who may come in, by client address; 403 otherwise. `deny` wins over `allow`; an empty `allow` allows everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessPolicy {
    /// Networks let in.
    pub allow: Vec<ipnet::IpNet>,
    /// Networks kept out.
    pub deny: Vec<ipnet::IpNet>,
}

/// Typed checks of request headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderCheckPolicy {
    /// The checks, in the order of definition; the first that fails answers.
    pub checks: Vec<FieldCheck>,
    /// Status of a refusal, 400 to 499; default 403.
    pub status: u16,
    /// Log and count, but let pass.
    pub audit: bool,
}

/// One check of one header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldCheck {
    /// Which header.
    pub name: FieldName,
    /// What must hold.
    pub check: Check,
}

/// What must hold for a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// It is there, with any value.
    Required,
    /// It is there, and every value matches the expression as a whole.
    RequiredPattern(String),
    /// It is not there.
    Forbidden,
    /// Where it is there, every value matches the expression as a whole.
    Pattern(String),
    /// No value is longer than so many bytes.
    MaxLength(usize),
    /// Where it is there, every value is one of these.
    OneOf(Vec<String>),
}

/// Edits in this order: remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdit {
    /// Replace all values by this one.
    pub set: Vec<(FieldName, String)>,
    /// Add a value beside those there are.
    pub add: Vec<(FieldName, String)>,
    /// Remove all values.
    pub remove: Vec<FieldName>,
}

/// Another path or host for the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RewritePolicy {
    /// New path; the query is kept.
    pub path: Option<PathRewrite>,
    /// New Host.
    pub host: Option<String>,
}

/// How a path is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path.
    Full(String),
    /// The prefix that the route matched, segment-wise (Gateway API ReplacePrefixMatch).
    Prefix(String),
    /// First match of the expression, with `$1` or `$name` for captures.
    Regex {
        /// The expression.
        pattern: String,
        /// What to put in its place.
        replace: String,
    },
}
