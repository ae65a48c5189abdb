//! Where did a piece of configuration come from, and what could not be honoured?

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Where something was said: enough for its author to find it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file's path as given, or `kind/namespace/name` of an object.
    pub place: Arc<str>,
    /// Line and column in that file, where there is one.
    pub position: Option<Position>,
    /// The key path inside the document, such as `routes[2].path`; empty for the whole document.
    pub key: Cow<'static, str>,
    /// Creation time of the object in seconds since the epoch; 0 for files. The oldest object wins a conflict.
    pub created: u64,
}

/// A place in a text, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Origin {
    /// An origin without position: the whole of `place`.
    pub fn of(place: impl Into<Arc<str>>) -> Self {
        Self { place: place.into(), ..Self::default() }
    }

    /// The same place with another key path and position.
    #[must_use]
    pub fn at(&self, key: impl Into<Cow<'static, str>>, position: Option<Position>) -> Self {
        Self { place: self.place.clone(), position, key: key.into(), created: self.created }
    }
}

impl fmt::Display for Origin {
    /// `file:line:column: key` or `kind/namespace/name: key`, each part only where known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        if let Some(at) = self.position {
            write!(f, ":{}:{}", at.line, at.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        Ok(())
    }
}

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Honoured, but probably not what was meant (a shadowed route, a certificate that expires soon).
    Warning,
    /// Not honoured: left out, or the last good version kept.
    Error,
}

/// Something in the user's configuration that could not be honoured (or deserves a warning).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// Where it was said.
    pub origin: Origin,
    /// Whether it was honoured.
    pub severity: Severity,
    /// What is wrong, in one clause: `unknown key "heders"`.
    pub what: String,
    /// What would be right, where one can say: `did you mean "headers"?`; empty otherwise.
    pub hint: String,
}

impl Problem {
    /// A problem that keeps something from being honoured.
    pub fn error(origin: Origin, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { origin, severity: Severity::Error, what: what.into(), hint: hint.into() }
    }

    /// A problem with something that is honoured all the same.
    pub fn warning(origin: Origin, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { origin, severity: Severity::Warning, what: what.into(), hint: hint.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{}: {level}: {}", self.origin, self.what)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}
