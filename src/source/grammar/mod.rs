//! What does a text of routes say?
//!
//! One text holds any number of documents. A document is lines of `host/path: cluster`, or the routes of some hosts with what
//! holds for all of them, or clusters, or lines and clusters together. Every route counts on its own: a wrong one is a
//! problem and left out, the others stay. A wrong setting of a document refuses all of its routes, because it may be the
//! filter that keeps people out. Nothing here knows files: the same text may come from a ConfigMap.

mod action;
mod cluster;
mod document;
mod health;
mod keep;
mod name;
mod path;
mod route;
#[cfg(test)]
mod tests;

pub use action::{MAX_WEIGHT, REDIRECT_STATUS, RESPOND_STATUS};
pub use document::looks_like_routes;
pub use health::{HEALTHY, INTERVAL, TIMEOUT, UNHEALTHY};
pub use keep::keep_last_good;
pub use name::shorten;
pub use path::{canonical, parse_line, show_path};
pub use route::{IDLE_TIMEOUT, MAX_ATTEMPTS};

use crate::config::decode::{Decoder, Files};
use crate::config::schema::Schema;
use crate::config::yaml::{self, Value};
use crate::model::{Fragment, HostPattern, Origin, Problem};
use std::sync::Arc;

/// What a text says, and what of it could not be honoured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// Everything that is right.
    pub fragment: Fragment,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// The names of what was left out, so that last good versions can be found.
    pub refused: Refused,
}

/// What a text means to say but says wrongly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refused {
    /// All of it: the text is not YAML.
    pub text: bool,
    /// Names of routes.
    pub routes: Vec<String>,
    /// Names of clusters.
    pub clusters: Vec<String>,
    /// Hosts of certificate bindings.
    pub bindings: Vec<Vec<HostPattern>>,
}

/// Reads a text. `place` is how problems call it, `files` reads the files that it names.
pub fn parse(place: &str, text: &str, files: &dyn Files) -> Parsed {
    let place: Arc<str> = place.into();
    let mut parsed = Parsed::default();
    let documents = match yaml::parse(text) {
        Ok(documents) => documents,
        Err(error) => {
            let origin = Origin::of(place).at("", Some(error.at));
            parsed.problems.push(Problem::error(origin, error.what, error.hint));
            parsed.refused.text = true;
            return parsed;
        }
    };
    let mut decoder = Decoder::new(place, files);
    let mut seen = document::Seen::default();
    for node in documents.iter().filter(|node| node.value != Value::Null) {
        document::read(node, &mut decoder, &mut seen, &mut parsed);
    }
    parsed.problems = decoder.finish();
    parsed
}

/// The JSON Schema of one document of a routes file.
pub fn schema() -> serde_json::Value {
    let doc = "Routes of Tidegate. A file holds any number of documents, divided by lines of ---, and is read again when it changes.";
    Schema::of("Tidegate routes", doc, &document::document())
}
